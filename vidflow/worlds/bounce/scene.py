"""What happens in a clip: objects with attributes, a background, and the law of motion.

Lengths are in units of min(height, width); x runs right, y runs down, the origin is the top left
corner. The frame is `extent(aspect)` wide and high, so one of its sides is always 1.
"""

from dataclasses import dataclass
from itertools import product
from math import sqrt

import numpy as np
from jaxtyping import Float

from vidflow.errors import UsageError

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "purple")
SIZES = {"small": 0.3125, "medium": 0.42, "large": 0.53}  # diameters
SPEEDS = {"slow": 0.04, "fast": 0.08}  # distance per frame
BACKGROUNDS = ("black", "grey", "white", "striped", "checkered")
DIAGONAL = 1 / sqrt(2)
DIRECTIONS = {  # unit vectors (x, y), y down
    "right": (1.0, 0.0),
    "left": (-1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up and to the left": (-DIAGONAL, -DIAGONAL),
    "up and to the right": (DIAGONAL, -DIAGONAL),
    "down and to the left": (-DIAGONAL, DIAGONAL),
    "down and to the right": (DIAGONAL, DIAGONAL),
    "still": (0.0, 0.0),
}
SPLITS = ("train", "test")
TOP_LEVEL = 3
MAX_OBJECTS = 3
HEADING_INTERVALS = 4  # no object bounces before this many frame intervals have passed
PLACEMENT_DRAWS = 32
PURPOSES = ("scene", "caption", "sign")  # independent random streams of one clip


@dataclass(frozen=True)
class Object:
    """One moving shape; (x, y) is the centre of its bounding square in frame 0.

    `speed` is None when `direction` is "still".
    """

    shape: str
    colour: str
    size: str
    direction: str
    speed: str | None
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """Objects from back to front, with distinct colours, over a background."""

    objects: tuple[Object, ...]
    background: str


def held_out(shape: str, colour: str, direction: str) -> bool:
    """Whether the combination is kept for the test split.

    For every (shape, direction) exactly one colour is held out: 36 of the 216 triples. Each shape,
    colour and direction is held out equally often, and every pair of values is left in training.
    The offsets are two pairs three apart, which evens out that 9 directions are not a multiple of
    the 6 colours.
    """
    offset = (0, 1, 3, 4)[SHAPES.index(shape)]
    return (tuple(DIRECTIONS).index(direction) + offset) % 6 == COLOURS.index(colour)


TRIPLES = {
    split: tuple(
        triple
        for triple in product(SHAPES, COLOURS, DIRECTIONS)
        if held_out(*triple) == (split == "test")
    )
    for split in SPLITS
}


def generator(seed: int, index: int, split: str, purpose: str = "scene") -> np.random.Generator:
    """The random stream of one clip for one of PURPOSES; no global state is read or changed."""
    if split not in SPLITS:
        raise UsageError(f"bounce has no split {split!r}: use one of {', '.join(SPLITS)}.")
    if seed < 0 or index < 0:
        raise UsageError(f"bounce needs seed and index >= 0, got seed {seed} and index {index}.")
    return np.random.default_rng((seed, SPLITS.index(split), index, PURPOSES.index(purpose)))


def extent(aspect: float) -> tuple[float, float]:
    """Width and height of a frame of aspect width / height, in units of its smaller side."""
    return max(1.0, aspect), max(1.0, 1.0 / aspect)


def velocity(thing: Object) -> tuple[float, float]:
    """(x, y) distance per frame at the start."""
    speed = 0.0 if thing.speed is None else SPEEDS[thing.speed]
    x, y = DIRECTIONS[thing.direction]
    return speed * x, speed * y


def reflect(
    position: Float[np.ndarray, "..."], low: float, high: float
) -> Float[np.ndarray, "..."]:
    """Unbounded motion folded into [low, high] by mirrors at both ends: a triangle wave."""
    length = high - low
    return high - np.abs(length - (position - low) % (2 * length))


def trajectory(thing: Object, frames: int, aspect: float = 1.0) -> Float[np.ndarray, "T 2"]:
    """Centres (x, y) in every frame, with specular reflection at the walls in closed form."""
    radius = SIZES[thing.size] / 2
    time = np.arange(frames, dtype=np.float64)
    axes = zip((thing.x, thing.y), velocity(thing), extent(aspect), strict=True)
    folded = [reflect(start + v * time, radius, side - radius) for start, v, side in axes]
    return np.stack(folded, axis=-1)


def scene(seed: int, index: int, level: int, split: str, aspect: float = 1.0) -> Scene:
    """The scene of one clip: a pure function of its arguments.

    Level 0: one medium object that is fast or still, on black; 1: sizes and speeds; 2: backgrounds;
    3: one to three objects. `aspect` is width / height of the frame. In split "train" no object,
    in "test" every object has a held-out (shape, colour, direction).
    Raises `UsageError` for an unknown level or split, or a negative seed or index.
    """
    if not 0 <= level <= TOP_LEVEL:
        raise UsageError(f"bounce has no level {level}: use 0 to {TOP_LEVEL}.")
    rng = generator(seed, index, split)
    count = int(rng.integers(1, MAX_OBJECTS + 1)) if level >= 3 else 1
    background = str(rng.choice(BACKGROUNDS)) if level >= 2 else "black"
    things: list[Object] = []
    for _ in range(count):
        things.append(_draw_object(rng, level, split, {other.colour for other in things}))
    return Scene(_place(rng, things, aspect), background)


def _draw_object(rng: np.random.Generator, level: int, split: str, taken: set[str]) -> Object:
    """An object of a colour not taken, not placed yet."""
    free = [triple for triple in TRIPLES[split] if triple[1] not in taken]
    shape, colour, direction = free[rng.integers(len(free))]
    size = tuple(SIZES)[rng.integers(len(SIZES))] if level >= 1 else "medium"
    # Fast at level 0: in 4 intervals the object moves by three quarters of its own diameter.
    speed = tuple(SPEEDS)[rng.integers(len(SPEEDS))] if level >= 1 else "fast"
    return Object(shape, colour, size, direction, None if direction == "still" else speed, 0.0, 0.0)


def _place(rng: np.random.Generator, things: list[Object], aspect: float) -> tuple[Object, ...]:
    """Start positions without an early bounce; of several draws the one with least overlap."""
    radius = np.array([SIZES[thing.size] / 2 for thing in things])[:, None]
    travel = np.array([velocity(thing) for thing in things]) * HEADING_INTERVALS
    low = radius + np.maximum(0, -travel)
    high = np.array(extent(aspect)) - radius - np.maximum(0, travel)
    draws = PLACEMENT_DRAWS if len(things) > 1 else 1
    start = rng.uniform(low, high, size=(draws, len(things), 2))
    time = np.linspace(0, 1, HEADING_INTERVALS + 1)[:, None]
    path = start[:, :, None] + time * travel[:, None]  # draws, objects, frames, 2
    distance = np.linalg.norm(path[:, :, None] - path[:, None], axis=-1)
    overlap = np.maximum(0, (radius + radius.T)[..., None] - distance)
    overlap *= 1 - np.eye(len(things))[..., None]
    best = start[np.argmin(overlap.sum(axis=(1, 2, 3)))]
    return tuple(
        Object(thing.shape, thing.colour, thing.size, thing.direction, thing.speed, *map(float, at))
        for thing, at in zip(things, best, strict=True)
    )
