"""What every autoencoder shares: its compression, its posterior, and the normalisation of its latents."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.errors import UsageError
from vidflow.typing import Latents, RowKeys


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

    def latent_frames(self, frames: int) -> int:
        """Latents along time of so many frames."""
        alone = int(self.first_alone)
        return alone + -((alone - frames) // self.time)


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
