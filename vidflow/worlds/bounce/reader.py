"""Read a video of the bounce world back into attributes, from its pixels alone.

Chroma separates objects from the achromatic background and from each other; what colour covers
which pixel is then matched with every shape in every size, jointly over the frames. `score`
compares what was read with what a caption names.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from jaxtyping import Float, Int, UInt8

from vidflow.errors import UsageError
from vidflow.worlds.bounce.grammar import Description
from vidflow.worlds.bounce.render import CHROMA, GREYS, RGB, background, draw, signed_distance
from vidflow.worlds.bounce.scene import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    HEADING_INTERVALS,
    MAX_OBJECTS,
    SHAPES,
    SIZES,
    SPEEDS,
)

WORKING_SIDE = 32  # larger videos are averaged down by whole factors, never below this side
CORE = 0.6  # coverage of a core pixel; an even blend of two colours 120 degrees apart has 0.5
CORE_AREA = 0.006  # least core area of an object in a frame, in units of min(height, width)^2
CORE_FRAMES = 0.4  # least fraction of frames with a core
VISIBLE = 0.15  # least visible fraction of an object for its position to count
# Speckle is no object: no shape explains it, or only a large one that it hardly fills. Two thirds
# of the residual may be two more objects of the same colour.
MAX_RESIDUAL = 0.7
LEAST_SEEN = 0.2  # visible fraction of an object, averaged over all frames
LEAST_CONTRAST = 32  # a quarter of the contrast of striped and checkered, in grey levels
STILL_BELOW = min(SPEEDS.values()) / 2
FAST_ABOVE = sum(SPEEDS.values()) / 2
PHASES = np.linspace(-0.5, 0.5, 5, dtype=np.float32)  # sub-pixel positions that are tried
TEMPLATES = tuple((shape, size) for shape in SHAPES for size in SIZES)

# An orthonormal basis of the chroma plane: the part of a colour that is orthogonal to grey.
CHROMA_PLANE = np.array([[2, -1, -1], [0, 3**0.5, -(3**0.5)]], np.float32).T / 6**0.5
PALETTE = np.array([RGB[colour] for colour in COLOURS], np.float32) @ CHROMA_PLANE
HUES = PALETTE / np.linalg.norm(PALETTE, axis=1, keepdims=True)
FULL_CHROMA = CHROMA * (2 / 3) ** 0.5  # length in the chroma plane of every palette colour


@dataclass(frozen=True)
class ObjectReading:
    """One object as seen.

    `speed` is None when `direction` is "still". `positions` holds the centre (x, y) in every frame
    in units of min(height, width), NaN where the object is not visible. `area` is its mean visible
    area in units of min(height, width)^2. `residual` is the mean squared misfit of the matched
    shape over the mean square of the coverage: near 0 for a clean shape, near 1 for none.
    """

    colour: str
    shape: str
    size: str
    direction: str
    speed: str | None
    positions: Float[np.ndarray, "T 2"]
    area: float
    residual: float


@dataclass(frozen=True)
class Reading:
    """What a video shows; `objects` are sorted by visible area, largest first."""

    background: str
    objects: tuple[ObjectReading, ...]


def read(video: UInt8[np.ndarray, "T H W 3"]) -> Reading:
    """Find the objects and the background of any video; never fails on strange content.

    The heading is taken over the first HEADING_INTERVALS frame intervals. Motion cannot be seen
    in fewer than two frames with the object visible: the direction is then "still". Several objects
    of one colour are counted, but equal ones may be taken for each other from frame to frame.
    Raises `UsageError` for a video without pixels.
    """
    if video.size == 0:
        raise UsageError(f"Cannot read a video of shape {video.shape}: it has no pixels.")
    pixels, unit = _shrink(video)
    chroma = pixels @ CHROMA_PLANE / FULL_CHROMA
    present = _present(chroma, unit)
    covers = _coverage(chroma, present)
    objects = []
    for k, colour in enumerate(present):
        others = _grow(np.delete(covers, k, axis=0).sum(axis=0))
        # What another object may hide does not count, but where this one is seen it is in front.
        weight = np.maximum(np.clip(1 - 2 * others, 0, 1), covers[k])
        objects += _read_colour(COLOURS[colour], covers[k], weight, unit)
    objects.sort(key=lambda thing: -thing.area)
    return Reading(_read_background(pixels, covers.sum(axis=0)), tuple(objects))


def _shrink(
    video: UInt8[np.ndarray, "T H W 3"],
) -> tuple[Float[np.ndarray, "T h w 3"], float]:
    """Average blocks of pixels; also the length of min(H, W) in the new pixels."""
    frames, height, width, _ = video.shape
    factor = max(1, min(height, width) // WORKING_SIDE)
    h, w = height // factor, width // factor
    blocks = video[:, : h * factor, : w * factor].reshape(frames, h, factor, w, factor, 3)
    return blocks.mean(axis=(2, 4), dtype=np.float32), min(height, width) / factor


def _present(chroma: Float[np.ndarray, "T h w 2"], unit: float) -> list[int]:
    """Indices of the colours with enough core pixels in enough frames."""
    projections = chroma @ HUES.T
    hue = projections.argmax(axis=-1)
    full = projections.max(axis=-1)
    return [k for k in range(len(COLOURS)) if _has_core(full * (hue == k), unit)]


def _has_core(cover: Float[np.ndarray, "T h w"], unit: float) -> bool:
    """Whether there is enough well covered area in enough frames for an object."""
    areas = (cover > CORE).sum(axis=(1, 2))
    return bool((areas >= CORE_AREA * unit**2).mean() >= CORE_FRAMES)


def _coverage(
    chroma: Float[np.ndarray, "T h w 2"], present: list[int]
) -> Float[np.ndarray, "K T h w"]:
    """Per present colour the fraction in [0, 1] of every pixel that it covers.

    A pixel belongs to the one colour it is most like, so that no blend of two colours looks like a
    third. The most covered pixels of each colour count as full, however pale a video is.
    """
    projections = np.moveaxis(chroma @ HUES[present].T, -1, 0)
    if not present:
        return projections
    owner = projections.argmax(axis=0) == np.arange(len(present))[:, None, None, None]
    covers = np.maximum(0, projections * owner)
    for cover in covers:
        cover /= np.quantile(cover[cover > CORE], 0.8)
    return np.minimum(1, covers)


def _grow(cover: Float[np.ndarray, "T h w"]) -> Float[np.ndarray, "T h w"]:
    """The largest value among each pixel and its eight neighbours."""
    for axis in (1, 2):
        pad = [(0, 0), (0, 0), (0, 0)]
        pad[axis] = (1, 1)
        padded = np.pad(cover, pad)
        cover = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=axis).max(axis=-1)
    return cover


@lru_cache(maxsize=8)
def _bank(unit: float) -> tuple[Float[np.ndarray, "K P S S"], int]:
    """Coverage of every template in a square window at every sub-pixel phase, and its side S."""
    side = ceil(max(SIZES.values()) * unit) + 3
    at = np.arange(side, dtype=np.float32) + 0.5 - side / 2
    shifted = at - PHASES[:, None]
    x, y = shifted[None, :, None, :], shifted[:, None, :, None]
    templates = [
        np.clip(0.5 - signed_distance(shape, x, y, SIZES[size] * unit), 0, 1)
        for shape, size in TEMPLATES
    ]
    return np.stack(templates).reshape(len(TEMPLATES), -1, side, side), side


def _read_colour(
    colour: str, cover: Float[np.ndarray, "T h w"], weight: Float[np.ndarray, "T h w"], unit: float
) -> list[ObjectReading]:
    """All objects of one colour: match every template jointly over the frames, keep the best one,
    erase it and look at what is left."""
    found: list[ObjectReading] = []
    while _has_core(cover * weight, unit) and len(found) < MAX_OBJECTS:
        misfit, centres, seen = _match(cover, weight, unit)
        best = int(misfit.sum(axis=0).argmin())
        shape, size = TEMPLATES[best]
        centres, seen = centres[:, best], seen[:, best]
        residual = misfit[:, best].sum() / (weight * cover**2).sum()
        if residual > MAX_RESIDUAL or seen.mean() < LEAST_SEEN:
            break
        footprint = _grow(_grow(draw(shape, SIZES[size] * unit, centres, *cover.shape[1:])))
        area = (cover * weight * footprint).sum(axis=(1, 2)).mean() / unit**2
        positions = (centres / unit).astype(np.float64)
        positions[seen < VISIBLE] = np.nan
        found.append(
            ObjectReading(
                colour, shape, size, *_heading(positions, seen), positions,
                area=float(area), residual=float(residual),
            )  # fmt: skip
        )
        weight = weight * (1 - footprint)
    return found


def _match(
    cover: Float[np.ndarray, "T h w"], weight: Float[np.ndarray, "T h w"], unit: float
) -> tuple[
    Float[np.ndarray, "T K"], Float[np.ndarray, "T K 2"], Float[np.ndarray, "T K"]
]:
    """Per frame and template: least weighted squared misfit, centre in pixels, visible fraction.

    The misfit of a template M is sum w (c - M)^2 = sum w c^2 - 2 sum (w c) M + sum w M^2. The two
    correlations are taken by FFT at whole pixels, then directly at the sub-pixel phases around
    the best whole pixel. Windows may reach over the frame, where the weight is zero, but centres
    stay where the shape is inside the frame.
    """
    bank, side = _bank(unit)
    margin = side // 2
    pads = ((0, 0), (margin, margin), (margin, margin))
    w, wc = np.pad(weight, pads), np.pad(weight * cover, pads)
    coarse = _correlate(w, wc, bank[:, len(PHASES) ** 2 // 2])
    centre_x, centre_y = (np.arange(coarse.shape[i]) + side / 2 - margin for i in (-1, -2))
    radius = np.array([SIZES[size] / 2 * unit - 1 for _, size in TEMPLATES])[:, None]
    height, width = cover.shape[1:]
    outside_x = (centre_x < radius) | (centre_x > width - radius)
    outside_y = (centre_y < radius) | (centre_y > height - radius)
    coarse = coarse + 1e9 * (outside_y[:, :, None] | outside_x[:, None, :])
    flat = coarse.reshape(*coarse.shape[:2], -1).argmin(axis=-1)
    row, column = np.divmod(flat, coarse.shape[-1])

    windows_w, windows_wc = _windows(w, row, column, side), _windows(wc, row, column, side)
    templates = bank.reshape(*bank.shape[:2], -1).swapaxes(1, 2)  # K S*S P
    hit, mass = windows_wc @ templates, windows_w @ templates**2  # K T P
    phase = (mass - 2 * hit).argmin(axis=-1)[..., None]
    hit, mass = (np.take_along_axis(a, phase, axis=-1)[..., 0].T for a in (hit, mass))
    energy = (weight * cover**2).sum(axis=(1, 2))[:, None]
    down, right = (PHASES[i[..., 0].T] for i in np.divmod(phase, len(PHASES)))
    centres = np.stack([centre_x[column] + right, centre_y[row] + down], axis=-1)
    area = bank[:, 0].sum(axis=(1, 2))
    return energy - 2 * hit + mass, centres.astype(np.float32), hit / area


def _correlate(
    w: Float[np.ndarray, "T Y X"],
    wc: Float[np.ndarray, "T Y X"],
    templates: Float[np.ndarray, "K S S"],
) -> Float[np.ndarray, "T K y x"]:
    """sum w M^2 - 2 sum (w c) M for every whole-pixel position of the window."""
    shape = w.shape[1:]
    side = templates.shape[-1]
    template, square = (np.fft.rfft2(a, shape).conj() for a in (templates, templates**2))
    w, wc = np.fft.rfft2(w)[:, None], np.fft.rfft2(wc)[:, None]
    valid = np.fft.irfft2(w * square - 2 * wc * template, shape)
    return valid[..., : shape[0] - side + 1, : shape[1] - side + 1]


def _windows(
    image: Float[np.ndarray, "T Y X"],
    row: Int[np.ndarray, "T K"],
    column: Int[np.ndarray, "T K"],
    side: int,
) -> Float[np.ndarray, "K T _"]:
    """Cut a side x side window out of each frame for each template, flat."""
    views = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(1, 2))
    cut = views[np.arange(len(image))[:, None], row, column]
    return cut.reshape(*row.shape, -1).swapaxes(0, 1)


def _heading(
    positions: Float[np.ndarray, "T 2"], seen: Float[np.ndarray, " T"]
) -> tuple[str, str | None]:
    """Direction and speed from a line through the visible positions of the heading frames."""
    positions, seen = positions[: HEADING_INTERVALS + 1], seen[: HEADING_INTERVALS + 1]
    usable = np.flatnonzero(~np.isnan(positions[:, 0]))
    if len(usable) < 2:
        return "still", None
    weight = seen[usable] / seen[usable].sum()
    time = usable - weight @ usable
    velocity = (weight * time) @ positions[usable] / (weight @ time**2)
    speed = float(np.linalg.norm(velocity))
    if speed < STILL_BELOW:
        return "still", None
    direction = max(DIRECTIONS, key=lambda name: float(velocity @ np.array(DIRECTIONS[name])))
    return direction, "fast" if speed > FAST_ABOVE else "slow"


def _read_background(
    pixels: Float[np.ndarray, "T h w 3"], cover: Float[np.ndarray, "T h w"]
) -> str:
    """The pattern that explains the uncovered pixels best, if they have its contrast, else the
    nearest plain grey."""
    free = _grow(cover) < 0.2
    if not free.any():
        free[:] = True
    grey = pixels.mean(axis=-1)
    values = grey[free]

    def levels(name: str) -> tuple[float, float, float]:
        """Mean grey of the pattern's light and dark pixels and the variance within them."""
        pattern = background(name, *grey.shape[1:]) > np.mean(GREYS[name])
        light = np.broadcast_to(pattern, grey.shape)[free]
        if light.all() or not light.any():
            return 0.0, 0.0, float(values.var())
        means = float(values[light].mean()), float(values[~light].mean())
        return *means, float(((values - np.where(light, *means)) ** 2).mean())

    patterns = [name for name in BACKGROUNDS if GREYS[name][0] < GREYS[name][1]]
    best = min(patterns, key=lambda name: levels(name)[2])
    light, dark, _ = levels(best)
    if light - dark > LEAST_CONTRAST:
        return best
    plain = [name for name in BACKGROUNDS if name not in patterns]
    return min(plain, key=lambda name: abs(GREYS[name][0] - float(np.median(values))))


def score(reading: Reading, description: Description) -> dict[str, bool | float]:
    """Whether each attribute that the description names is seen in the reading.

    Keys: "colour", "shape", "direction" and "count" (equal numbers of objects) always; "size",
    "speed" and "background" when named. A described object on its own is
    judged by the largest object in the video, whatever its colour, so that a video full of things
    earns nothing for one of them. Of several described objects, each is judged by the largest of
    its colour; where there is none, nothing about it is right. With several objects the values of
    object attributes are fractions over the objects that name them; with one, all are booleans.

    An object counts that is there in `CORE_FRAMES` of the frames, so that a video that falls apart in its second half
    loses little by it.
    """
    single = len(description.objects) == 1
    results: dict[str, list[bool]] = {}
    for wanted in description.objects:
        candidates = [thing for thing in reading.objects if single or thing.colour == wanted.colour]
        found = candidates[0] if candidates else None
        for attribute in ("colour", "shape", "size", "direction", "speed"):
            value = getattr(wanted, attribute)
            if value is not None:
                right = found is not None and getattr(found, attribute) == value
                results.setdefault(attribute, []).append(right)
    scores: dict[str, bool | float] = {
        name: values[0] if single else sum(values) / len(values) for name, values in results.items()
    }
    scores["count"] = len(reading.objects) == len(description.objects)
    if description.background is not None:
        scores["background"] = reading.background == description.background
    return scores
