"""The diffusion transformer: noisy latents, time and text -> velocity (Movie Gen, section 3.1.3)."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.linear import linear
from vidflow.models import rematerialisation
from vidflow.models.blocks import Block, modulate, norm
from vidflow.models.conditioning import Conditioning, TimeEmbedding
from vidflow.models.positions import FactorisedPositions
from vidflow.models.sizes import Size
from vidflow.models.tokens import grid_of, patchify, unpatchify
from vidflow.typing import Latents


@flax.struct.dataclass
class Output:
    """What a velocity network returns.

    Attributes:
      prediction: [B, T, H, W, C] like its input.
      extras: named further outputs (learned variance, insertion rates, ...); empty for most models.
    """

    prediction: Any
    extras: dict[str, Any] = flax.struct.field(default_factory=dict)


class VideoTransformer(nn.Module):
    """Patches, a scanned stack of blocks, a modulated linear head.

    Attributes:
      size: layers, width, heads and feed-forward width.
      patch: (time, height, width) of a patch of latents.
      positions: lengths of the (time, height, width) position tables, in patches.
      remat, saved: what a layer keeps for its backward pass, as in `models.rematerialisation`.
      kernel, strategy: of attention, as in `vidflow.attention.attend`.
      dtype: of the computation; parameters are float32.
    """

    size: Size
    patch: tuple[int, int, int]
    positions: tuple[int, int, int]
    remat: str = "none"
    saved: tuple[str, ...] = ()
    kernel: str = "xla"
    strategy: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latents: Latents, t: Float[Array, "B ..."], conditioning: Conditioning) -> Output:
        """`t` is [B], or [B, T / patch time] for a time of its own for every frame of patches."""
        width, grid = self.size.width, grid_of(latents.shape, self.patch)
        tokens = patchify(latents.astype(self.dtype), self.patch)
        x = linear(tokens.x, "patch", width, ("latent", "embed"), self.dtype, spread=True)
        position = FactorisedPositions(self.positions, width, name="positions")(tokens.position)

        t = t[:, None] if t.ndim == 1 else t
        time = nn.silu(TimeEmbedding(width, dtype=self.dtype, name="time")(t))
        modulation = self._modulation(time, 6, "modulation")
        head = self._modulation(time, 2, "head_modulation")
        if t.shape[1] > 1:  # a time per frame: every token takes its frame's vectors
            frame = tokens.position[:, :, 0, None, None]
            modulation, head = (jnp.take_along_axis(a, frame, axis=1) for a in (modulation, head))

        x = self._stack(tokens.packed, x, tokens.segment, position.astype(self.dtype), modulation, conditioning)
        x = modulate(norm(self.dtype, "head_norm")(x), head[:, :, 0], head[:, :, 1])
        features = latents.shape[-1] * self.patch[0] * self.patch[1] * self.patch[2]
        x = linear(x, "head", features, ("embed", "latent"), self.dtype, nn.initializers.zeros, spread=True)
        return Output(unpatchify(x, grid, self.patch))

    def _modulation(self, time: Float[Array, "B M D"], vectors: int, name: str) -> Float[Array, "B M n D"]:
        init = nn.with_logical_partitioning(nn.initializers.zeros, ("embed", "modulation"))
        x = nn.Dense(vectors * self.size.width, dtype=self.dtype, kernel_init=init, name=name)(time)
        return x.reshape(*time.shape[:2], vectors, self.size.width)

    def _stack(self, packed: bool, x: Array, *shared: Any) -> Array:
        policy = rematerialisation.policy(self.remat, self.saved)
        block = Block if policy is None else nn.remat(Block, prevent_cse=False, policy=policy)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.size.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        size = self.size
        blocks = stack(size.heads, size.feed_forward, self.kernel, self.strategy, self.dtype, packed, name="blocks")
        return blocks(x, *shared)[0]
