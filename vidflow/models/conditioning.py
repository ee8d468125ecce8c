"""What a velocity network is told besides the noisy video: the text, a class, and the flow time."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class Conditioning:
    """One struct for every task: a task is which fields are filled.

    Attributes:
      text: [B, L, D] text tokens, of any width.
      text_segment: [B, L] integers; 0 is padding, which none sees. Where rows hold several videos, a token is seen by
        that of its segment alone; elsewhere all see it.
      label: [B] integers, a class; the number of classes for none.
    """

    text: Any = None
    text_segment: Any = None
    label: Any = None


class TimeEmbedding(nn.Module):
    """Flow time t in [0, 1], [B, T'] -> [B, T', width]: sinusoids of 1000 t, then a two-layer network.

    The factor 1000 spreads t over the frequencies that diffusion transformers use (Peebles and Xie 2023).
    """

    width: int
    frequencies: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, t: Float[Array, "B frames"]) -> Float[Array, "B frames D"]:
        half = self.frequencies // 2
        rate = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half) / half)
        angle = 1000.0 * t.astype(jnp.float32)[..., None] * rate
        x = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1).astype(self.dtype)
        init = nn.initializers.normal(0.02)
        x = nn.Dense(
            self.width, dtype=self.dtype, kernel_init=nn.with_logical_partitioning(init, (None, "embed")), name="in"
        )(x)
        return nn.Dense(
            self.width,
            dtype=self.dtype,
            kernel_init=nn.with_logical_partitioning(init, ("embed", "features")),
            name="out",
        )(nn.silu(x))


def modulation(
    time: Float[Array, "B M D"],
    vectors: int,
    dtype: Any,
    name: str,
    frame: Int[Array, "B N"] | None = None,
) -> Float[Array, "B _ vectors D"]:
    """Vectors that shift, scale and gate, [B, M, vectors, D]: one projection of the embedded time that starts at zero
    (adaLN-Zero, Peebles and Xie 2023). To be called within a compact module, whose child `name` it makes.

    `frame` [B, N] gives every token its frame's vectors, [B, N, vectors, D], where every frame has a time of its own.
    """
    width = time.shape[-1]
    init = nn.with_logical_partitioning(nn.initializers.zeros, ("embed", "modulation"))
    x = nn.Dense(vectors * width, dtype=dtype, kernel_init=init, name=name)(time)
    x = x.reshape(*time.shape[:2], vectors, width)
    return x if frame is None else jnp.take_along_axis(x, frame[:, :, None, None], axis=1)
