"""One protocol for autoencoders, so that their numbers can be compared.

The same autoencoder is reported between 30 and 40 dB in different papers, for its score depends on clips, frame rate,
size, rounding and the order of means. So the protocol stands beside the numbers, and so does a codec without any
learning that may store as many numbers as the autoencoder has latents.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from vidflow.autoencoders.latents import Compression
from vidflow.autoencoders.perceptual import Perceptual
from vidflow.autoencoders.tiling import Tiles
from vidflow.data.pipeline import Source
from vidflow.data.sources import clips_at_once, is_held_out, to_bytes, to_float
from vidflow.errors import UsageError
from vidflow.metrics import frechet, image, intervals
from vidflow.metrics.i3d import I3D
from vidflow.metrics.intervals import Interval

Videos = UInt8[np.ndarray, "B T H W 3"]
Codec = Callable[[Videos], Videos]
Scores = dict[str, Interval]
BATCH = 8


class Protocol(NamedTuple):
    """What a score of reconstruction, or a loss, is of.

    Attributes:
      source, split: where the clips come from.
      clips, frames, fps, height, width: their number and shape; fps 0 for the files' own.
      compression: of the autoencoder.
      elements: numbers in a clip's latents.
      interval: frames of that rate between those of a clip, drawn for each clip up to this one.
      tiles: of latents in which the autoencoder works; empty for none.
      seed: from which the clips follow; None where they are those of files.
    """

    source: str
    split: str
    clips: int
    frames: int
    fps: float
    height: int
    width: int
    compression: str
    elements: int
    interval: int = 1
    tiles: str = ""
    seed: int | None = None

    def card(self) -> str:
        """The protocol in words."""
        rate = f"{self.fps:g} frames a second" if self.fps else "their own frame rate"
        rate += f", one in 1 to {self.interval} of them" if self.interval > 1 else ""
        tiles = f", in tiles of {self.tiles}" if self.tiles else ""
        split = self.split if self.seed is None else f"{self.split}, seed {self.seed}"
        pixels = self.frames * self.height * self.width * 3
        return (
            f"{self.clips} clips of {self.source} ({split}), {self.frames} frames of {self.width}x{self.height} "
            f"at {rate}; posterior mean; pixels in [-1, 1], rounded to 8 bits; each measure is the mean over the "
            "frames of a clip, then over clips, with the 95% interval of clips; image_: of first frames alone; "
            "validation/flow_loss: of the latents of the same clips. Latents "
            f"{self.compression}{tiles}: {self.elements} numbers for {pixels}, one for {pixels / self.elements:.1f}."
        )


class Judges(NamedTuple):
    """Networks that others trained, of which a score needs the weights."""

    perceptual: Perceptual | None = None
    i3d: I3D | None = None


NO_JUDGES = Judges()


def protocol(
    data: ConfigDict, seed: int, clips: int, compression: Compression, tiles: Tiles | None = None
) -> Protocol:
    """That of so many clips of `data` under an autoencoder of this compression, which works in these tiles."""
    source = f"bounce level {data.level}" if data.source == "bounce" else data.source
    source += " with signs" if data.get("signs", False) else ""
    name = source if data.source == "bounce" else data.get("test_path", "") or data.path or source
    split, interval = "held out" if is_held_out(data) else "the first ones, not held out", data.get("max_interval", 1)
    shape = compression.latent_shape(data.frames, *compression.whole(data.height, data.width))
    words = f"{compression.time}x{compression.height}x{compression.width}, {compression.channels} channels"
    shown = "{}x{}x{} that share {}x{}x{}".format(*tiles.size, *tiles.overlap) if tiles else ""
    return Protocol(
        source=name,
        split=split,
        clips=clips,
        frames=data.frames,
        fps=data.fps or 0.0,
        height=data.height,
        width=data.width,
        compression=words,
        elements=int(np.prod(shape)),
        interval=interval,
        tiles=shown,
        seed=seed if data.source != "folder" or interval > 1 else None,
    )


def floor(compression: Compression) -> Codec:
    """A codec without learning, of no more numbers than the latents: as many frames as there are latents along time,
    each made smaller and larger again by bicubic interpolation; the others are copies of the frame before."""

    def codec(videos: Videos) -> Videos:
        frames, height, width = videos.shape[1:4]
        t, h, w, channels = compression.latent_shape(frames, *compression.whole(height, width))
        scale = np.sqrt(h * w * channels / (3 * height * width))
        small = (max(int(height * scale), 1), max(int(width * scale), 1))
        kept = np.round(np.linspace(0, frames, t, endpoint=False)).astype(int)
        shown = np.searchsorted(kept, np.arange(frames), side="right") - 1
        return to_bytes(np.asarray(_through(jnp.asarray(to_float(videos[:, kept])), small)))[:, shown]

    return codec


def _through(videos: jax.Array, small: tuple[int, int]) -> jax.Array:
    shape = videos.shape
    less = jax.image.resize(videos, (*shape[:2], *small, 3), "cubic")
    return jax.image.resize(less, shape, "cubic")


def scores(codec: Codec, source: Source, clips: int, judges: Judges = NO_JUDGES) -> Scores:
    """Of the first clips: `psnr` in dB, `ssim` where pictures are large enough, and with their judges `lpips` and
    `rfvd`, the Frechet distance of all reconstructions from all clips, which is one number and has no interval. What
    begins with `image_` is of the first frame of each clip by itself."""
    rows: dict[str, list[float]] = {}
    features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    batch = clips_at_once(*source[0]["video"].shape[:3], most=BATCH)
    for low in range(0, clips, batch):
        videos = np.stack([source[index]["video"] for index in range(low, min(low + batch, clips))])
        again = codec(videos)
        images = videos[:, :1]
        found = _measures(videos, again, judges.perceptual)
        found |= {f"image_{name}": v for name, v in _measures(images, codec(images), judges.perceptual).items()}
        for name, values in found.items():
            rows.setdefault(name, []).extend(values.tolist())
        if judges.i3d is not None:
            for found, shown in zip(features, (videos, again), strict=True):
                found.append(np.asarray(_exactly(I3D.logits, judges.i3d, to_float(shown))))
    found = {name: intervals.mean(values) for name, values in rows.items()}
    if judges.i3d is not None:
        distance = frechet.distance(*map(np.concatenate, features))
        found["rfvd"] = Interval(distance, np.nan, np.nan, clips)
    return found


def _measures(videos: Videos, again: Videos, perceptual: Perceptual | None) -> dict[str, Float[np.ndarray, "B"]]:
    found = {"psnr": image.psnr(videos, again).mean(axis=1)}
    if min(videos.shape[2:4]) >= image.WINDOW:
        found["ssim"] = image.ssim(videos, again).mean(axis=1)
    if perceptual is not None:
        found["lpips"] = np.asarray(_exactly(Perceptual.distance, perceptual, to_float(videos), to_float(again)))
    return found


def _exactly(judge: Callable[..., jax.Array], *given: Any) -> jax.Array:
    """Without the rounding of factors to fewer bits by which TPUs and GPUs are quicker: a score is of no device."""
    with jax.default_matmul_precision("highest"):
        return jax.jit(judge)(*given)


def table(rows: dict[str, Scores]) -> str:
    """A line for each codec."""
    names = list(next(iter(rows.values())))
    lines = [f"{'':24}" + "".join(f"{name:>26}" for name in names)]
    for codec, found in rows.items():
        cells = [_cell(found[name]) for name in names]
        lines.append(f"{codec:24}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)


def _cell(score: Interval) -> str:
    interval = f" ({score.low:.3f} to {score.high:.3f})" if score.low < score.high else ""
    return f"{score.mean:.3f}{interval}"


def compare(
    codec: Codec,
    compression: Compression,
    source: Source,
    data: ConfigDict,
    seed: int,
    clips: int,
    judges: Judges = NO_JUDGES,
    tiles: Tiles | None = None,
) -> tuple[Protocol, dict[str, Scores]]:
    """The scores of an autoencoder, which works in these tiles, and of the floor under one protocol.

    Raises:
      UsageError: fewer than two clips.
    """
    clips = min(clips, len(source))
    if clips < 2:
        raise UsageError(f"An interval needs at least 2 clips, and there are {clips}: add videos, or raise --clips.")
    said = protocol(data, seed, clips, compression, tiles)
    codecs = {"autoencoder": codec, "floor": floor(compression)}
    return said, {name: scores(each, source, clips, judges) for name, each in codecs.items()}
