"""The diffusion transformer: noisy latents, time, and text or a class -> what the flow's target asks for.

One module for the family: Movie Gen's (section 3.1.3) and DiT's (Peebles and Xie 2023) are two designs of it.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vidflow.linear import linear
from vidflow.models import positions as places
from vidflow.models import rematerialisation
from vidflow.models.blocks import Block, Told, modulate, norm
from vidflow.models.conditioning import Conditioning, TimeEmbedding, modulation
from vidflow.models.design import MOVIE_GEN, Design
from vidflow.models.positions import FactorisedPositions
from vidflow.models.sizes import Size
from vidflow.models.tokens import Tokens, grid_of, patchify, unpatchify
from vidflow.typing import Latents

Tail = tuple[Array, Array]  # tokens [B, L, E] and their segments [B, L]


@flax.struct.dataclass
class Output:
    """What the network returns.

    Attributes:
      prediction: [B, T, H, W, C] like its input.
      extras: named further outputs; "variance", of the prediction's shape, where the model learns one.
    """

    prediction: Any
    extras: dict[str, Any] = flax.struct.field(default_factory=dict)


class VideoTransformer(nn.Module):
    """Patches, a scanned stack of blocks, a modulated linear head.

    Attributes:
      size: layers, width, heads and feed-forward width.
      patch: (time, height, width) of a patch of latents.
      positions: lengths of the (time, height, width) position tables, in patches, of designs that learn them.
      design: what a block is made of.
      classes: number of classes that `Conditioning.label` may name; 0: it names none.
      variance: whether the head also says a variance (DiT's learned sigma).
      remat, saved: what a layer keeps for its backward pass, as in `models.rematerialisation`.
      unrolled: whether layers are compiled one after the other instead of one as the body of a loop, which has to write
        what the backward pass needs into stacks and read it back.
      kernel, strategy: of attention, as in `vidflow.attention.attend`.
      dtype: of the computation; parameters are float32.
    """

    size: Size
    patch: tuple[int, int, int]
    positions: tuple[int, int, int]
    design: Design = MOVIE_GEN
    classes: int = 0
    variance: bool = False
    remat: str = "none"
    saved: tuple[str, ...] = ()
    unrolled: bool = False
    kernel: str = "xla"
    strategy: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latents: Latents, t: Float[Array, "B ..."], conditioning: Conditioning) -> Output:
        """`t` is [B], or [B, T / patch time] for a time of its own for every frame of patches."""
        design, width, grid = self.design, self.size.width, grid_of(latents.shape, self.patch)
        tokens = patchify(latents.astype(self.dtype), self.patch)
        x = linear(tokens.x, "patch", width, ("latent", "embed"), self.dtype, spread=True, bias=design.bias)
        time = self._time(t[:, None] if t.ndim == 1 else t, conditioning)
        across, within = self._sequences(time, conditioning)
        x, segment, place = _joined(x, tokens, within)
        # With a time per frame every token takes the vectors of its frame.
        frame = place[:, :, 0] if design.vectors and time.shape[1] > 1 else None
        told = self._told(tokens.position, place, time, frame, across)
        if design.positions in ("first", "waves"):
            x = x + told.position
        x = self._stack(tokens.packed, design.text == "in_context")(x, segment, told)[0][:, : grid.tokens]

        head = ()
        if design.vectors:
            own = None if frame is None else frame[:, : grid.tokens]
            vectors = modulation(time, 2, self.dtype, "head_modulation", own)
            head = (vectors[:, :, 0], vectors[:, :, 1])
        x = modulate(norm(design, self.dtype, "head_norm", bool(head)), x, head)
        features = latents.shape[-1] * self.patch[0] * self.patch[1] * self.patch[2] * (2 if self.variance else 1)
        zeros = nn.initializers.zeros
        x = linear(x, "head", features, ("embed", "latent"), self.dtype, zeros, spread=True, bias=design.bias)
        if not self.variance:
            return Output(unpatchify(x, grid, self.patch))
        prediction, variance = jnp.split(unpatchify(x, grid, self.patch), 2, axis=-1)
        return Output(prediction, {"variance": variance})

    def _time(self, t: Float[Array, "B M"], conditioning: Conditioning) -> Float[Array, "B _ D"]:
        """What the layers hear of flow time and class: as vectors their sum, as tokens one after the other."""
        time = TimeEmbedding(self.size.width, dtype=self.dtype, name="time")(t)
        label = None
        if self.classes:
            init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
            one_more = self.classes + 1  # for none (Peebles and Xie 2023)
            embed = nn.Embed(one_more, self.size.width, dtype=self.dtype, embedding_init=init, name="label")
            label = embed(conditioning.label)[:, None]
        if self.design.vectors:
            return nn.silu(time if label is None else time + label)
        return time if label is None else jnp.concatenate([time, label], axis=1)

    def _sequences(self, time: Float[Array, "B M D"], conditioning: Conditioning) -> tuple[list[Tail], list[Tail]]:
        """What cross-attention reads, and what joins the video's own sequence."""
        ways: dict[str, list[Tail]] = {"cross_attention": [], "in_context": []}
        if self.design.text in ways:
            text = conditioning.text
            if self.design.text == "in_context" or self.design.time == "cross_attention":  # it stands beside others
                text = linear(text, "text", self.size.width, ("latent", "embed"), self.dtype)
            ways[self.design.text].append((text, conditioning.text_segment))
        if self.design.time in ways:
            ways[self.design.time].append((time, jnp.ones(time.shape[:2], jnp.int32)))
        return ways["cross_attention"], ways["in_context"]

    def _told(
        self,
        position: Int[Array, "B N 3"],
        place: Int[Array, "B M 3"],
        time: Float[Array, "B _ D"],
        frame: Int[Array, "B M"] | None,
        across: list[Tail],
    ) -> Told:
        """`position` is of the video's tokens, `place` also of those that joined them, which stand nowhere."""
        design, width = self.design, self.size.width
        told = Told(time=time, frame=frame)
        if design.learns_positions:
            told = told.replace(position=FactorisedPositions(self.positions, width, name="positions")(position))
        elif design.positions == "waves":
            told = told.replace(position=places.waves(position, width))
        else:
            told = told.replace(angle=places.angles(place, width // self.size.heads))
        if told.position is not None:
            nowhere = ((0, 0), (0, place.shape[1] - position.shape[1]), (0, 0))
            told = told.replace(position=jnp.pad(told.position, nowhere).astype(self.dtype))
        if design.vectors and design.shared:
            told = told.replace(modulation=modulation(time, design.vectors, self.dtype, "modulation", frame))
        if across:
            context, segment = (jnp.concatenate(parts, axis=1) for parts in zip(*across, strict=True))
            told = told.replace(context=context, context_segment=segment)
        return told

    def _stack(self, packed: bool, padded: bool) -> nn.Module:
        policy = rematerialisation.policy(self.remat, self.saved)
        # Only the bounds of a loop keep the compiler from merging what is computed again with what was computed before.
        block = Block if policy is None else nn.remat(Block, prevent_cse=self.unrolled, policy=policy)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.size.layers,
            unroll=self.size.layers if self.unrolled else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        size, how = self.size, (self.kernel, self.strategy, self.dtype, packed, padded)
        return stack(size.heads, size.feed_forward, self.design, *how, name="blocks")


def _joined(x: Float[Array, "B N D"], tokens: Tokens, tails: list[Tail]) -> tuple[Array, Array, Array]:
    """The video's tokens and behind them others, their segments, and their places: (0, 0, 0) for the others."""
    if not tails:
        return x, tokens.segment, tokens.position
    if tokens.packed:
        raise ValueError("Rows that hold several videos cannot hold text or time in context: use cross-attention.")
    more, segments = zip(*tails, strict=True)
    x, segment = (jnp.concatenate(parts, axis=1) for parts in ((x, *more), (tokens.segment, *segments)))
    place = jnp.pad(tokens.position, ((0, 0), (0, x.shape[1] - tokens.x.shape[1]), (0, 0)))
    return nn.with_logical_constraint(x, ("batch", "tokens", "features")), segment, place
