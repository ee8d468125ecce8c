"""A patch discriminator, and how an autoencoder and it are trained against each other.

Both learn in the same step: one loss has terms for each, and what belongs to the other is held fixed by stop_gradient.
So the discriminator's weights, moments and average are parts of the state of the run like all others.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.autoencoders.layers import CONV_NAMES, Features, Resized
from vidflow.typing import Video

Score = Float[Array, "B t h w"]
LARGEST = 1e4  # of the adaptive weight


class PatchDiscriminator(nn.Module):
    """Scores patches of a video, higher for more real (PatchGAN, Isola et al. 2017).

    Attributes:
      width: features of the first layer, doubled by each of the next up to eightfold.
      layers: convolutions of stride 2.
      time: 1 looks at each frame by itself, 3 also at the frames beside it and halves their number from layer to layer.
      dtype: of the computation; parameters are float32, and so are the scores.
    """

    width: int = 64
    layers: int = 3
    time: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, video: Video) -> Score:
        x = video.astype(self.dtype)
        for layer in range(self.layers):
            x = nn.leaky_relu(self._conv(x, self.width * min(2**layer, 8), 2, f"down_{layer}"), 0.2)
        x = nn.leaky_relu(self._conv(x, self.width * min(2**self.layers, 8), 1, "last"), 0.2)
        return self._conv(x, 1, 1, "score")[..., 0].astype(jnp.float32)

    def _conv(self, x: Features, features: int, stride: int, name: str) -> Resized:
        along_time = 1 if self.time == 1 else stride
        return nn.Conv(
            features,
            (self.time, 3, 3),
            strides=(along_time, stride, stride),
            dtype=self.dtype,
            kernel_init=nn.with_logical_partitioning(nn.initializers.lecun_normal(), (None, None, None, *CONV_NAMES)),
            name=name,
        )(x)


def hinge(real: Score, fake: Score) -> Float[Array, "B"]:
    """The discriminator's loss: real patches above 1, others below -1."""
    both = nn.relu(1.0 - real).mean(axis=(1, 2, 3)) + nn.relu(1.0 + fake).mean(axis=(1, 2, 3))
    return 0.5 * both


def deceive(fake: Score) -> Float[Array, "B"]:
    """The autoencoder's loss: patches that pass for real."""
    return -fake.mean(axis=(1, 2, 3))


def r1(score: Callable[[Video], Score], video: Video) -> Float[Array, "B"]:
    """The squared gradient of the score on real videos (Mescheder et al. 2018), summed in float32."""
    gradient = jax.grad(lambda video: score(video).mean(axis=(1, 2, 3)).sum())(video.astype(jnp.float32))
    return jnp.square(gradient).sum(axis=(1, 2, 3, 4))


def adaptive_weight(
    last: Callable[[Any], Video], kernel: Any, reconstruct: Callable[[Video], Array], fool: Callable[[Video], Array]
) -> Float[Array, ""]:
    """How many times the gradient of one loss by the last kernel is larger than that of the other (VQGAN, Eq 7).

    It is that of the rows at hand, which are those of a microbatch where there are several: the mean of their ratios is
    not the ratio of the batch.

    Args:
      last: kernel of the last layer -> reconstruction.
      reconstruct, fool: reconstruction -> the two losses, scalars.
    """
    video, back = jax.vjp(last, kernel)
    norms = [jnp.linalg.norm(back(jax.grad(loss)(video))[0].astype(jnp.float32)) for loss in (reconstruct, fool)]
    return jax.lax.stop_gradient(jnp.clip(norms[0] / (norms[1] + 1e-4), 0.0, LARGEST))
