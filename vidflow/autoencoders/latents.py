"""What every autoencoder shares: its compression, its posterior, and the normalisation of its latents."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.errors import UsageError
from vidflow.typing import Latents, RowKeys, Video

ROUNDING = 1e-3  # of pixels that another program computed


class Compression(NamedTuple):
    """Pixels per latent along time, height and width, and channels per latent.

    With `first_alone` the first frame has a latent of its own, as causal autoencoders give it.
    """

    time: int
    height: int
    width: int
    channels: int
    first_alone: bool = False

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(t, h, w, c) of the latents of a video; time is rounded up.

        Raises:
          UsageError: a height or width that the strides do not divide, or no frames.
        """
        if frames < 1:
            raise UsageError(f"A video needs at least 1 frame, not {frames}: raise --frames or config.data.frames.")
        for side, length, stride in (("height", height, self.height), ("width", width, self.width)):
            if length < stride or length % stride:
                raise UsageError(
                    f"A {side} of {length} pixels is not a positive multiple of the autoencoder's stride {stride}: "
                    f"use {max(round(length / stride), 1) * stride}."
                )
        return self.latent_frames(frames), height // self.height, width // self.width, self.channels

    def whole(self, height: int, width: int) -> tuple[int, int]:
        """The nearest height and width, no smaller, that the strides divide."""
        return -(-height // self.height) * self.height, -(-width // self.width) * self.width

    def filled(self, video: Video) -> Float[Array, "B T _ _ 3"]:
        """The video with its last row and column repeated until the strides divide height and width.

        Those of the reconstruction that are beyond the video's own size are to be cut off again.
        """
        height, width = self.whole(*video.shape[2:4])
        pads = ((0, 0), (0, 0), (0, height - video.shape[2]), (0, width - video.shape[3]), (0, 0))
        return jnp.pad(video, pads, mode="edge")

    def latent_frames(self, frames: int) -> int:
        """Latents along time of so many frames."""
        alone = int(self.first_alone)
        return alone + -((alone - frames) // self.time)


def check_range(video: Any) -> None:
    """Whether pixels are in [-1, 1].

    Raises:
      UsageError: they are not, or not numbers; values that are being traced are not looked at.
    """
    if isinstance(video, jax.core.Tracer):
        return
    low, high = float(jnp.min(video)), float(jnp.max(video))
    if not (low >= -1 - ROUNDING and high <= 1 + ROUNDING):
        raise UsageError(
            f"Pixels of a video are numbers in [-1, 1], and these go from {low:.4g} to {high:.4g}: of bytes, give "
            "video / 127.5 - 1."
        )


@flax.struct.dataclass
class Posterior:
    """A Gaussian over latents, diagonal.

    Attributes:
      mean, logvar: [B, t, h, w, c].
    """

    mean: Any
    logvar: Any

    def sample(self, keys: RowKeys) -> Latents:
        """One draw; the noise of a row depends on its key alone."""
        noise = jax.vmap(lambda key, row: jax.random.normal(key, row.shape))(keys, self.mean)
        return self.mean + jnp.exp(0.5 * self.logvar) * noise

    def kl(self) -> Float[Array, "B"]:
        """KL divergence to N(0, I) of each row, in nats per latent element."""
        nats = 0.5 * (jnp.square(self.mean) + jnp.exp(self.logvar) - 1.0 - self.logvar)
        return nats.mean(axis=(1, 2, 3, 4))


class Statistics(NamedTuple):
    """Mean and standard deviation of the latents, per channel; stored beside the weights."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, z: Latents) -> Latents:
        return (z - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def denormalise(self, z: Latents) -> Latents:
        return z * jnp.asarray(self.std) + jnp.asarray(self.mean)
