"""Pixels of a scene: shapes by signed distance, composed back to front over a background."""

from math import cos, pi, sin

import numpy as np
from jaxtyping import Float, UInt8

from vidflow.worlds.bounce.scene import HEADING_INTERVALS, SIZES, Object, Scene, trajectory

# Six hues 60 degrees apart, all with the same chroma (largest minus smallest channel).
CHROMA = 200
RGB = {
    "red": (225, 25, 25),
    "yellow": (230, 230, 30),
    "green": (25, 225, 25),
    "cyan": (30, 230, 230),
    "blue": (40, 40, 240),
    "purple": (210, 10, 210),
}
GREYS = {  # the darker and the lighter of the two greys of a background
    "black": (0, 0),
    "grey": (128, 128),
    "white": (255, 255),
    "striped": (64, 192),
    "checkered": (64, 192),
}
CELL = 0.125  # width of a stripe, side of a check, in units of min(height, width)
STAR_INNER = 0.382  # inner over outer radius of the regular pentagram


def background(name: str, height: int, width: int) -> Float[np.ndarray, "H W"]:
    """Grey levels in [0, 255]; stripes are vertical."""
    unit = min(height, width)
    across = np.floor((np.arange(width) + 0.5) / (unit * CELL)).astype(int)[None, :]
    down = np.floor((np.arange(height) + 0.5) / (unit * CELL)).astype(int)[:, None]
    light = (across + (down if name == "checkered" else 0 * down)) % 2
    return np.array(GREYS[name], np.float32)[light]


def signed_distance(
    shape: str, x: Float[np.ndarray, "..."], y: Float[np.ndarray, "..."], diameter: float
) -> Float[np.ndarray, "..."]:
    """Distance to the outline, negative inside, in the unit of x, y and `diameter`.

    (x, y), y down, is relative to the centre of the shape's bounding box, which is `diameter` wide;
    the star is 0.951 diameters high, all others as high as wide. Near a corner the distance is to
    the edge's line, which keeps corners sharp.
    """
    half = diameter / 2
    if shape == "circle":
        return np.sqrt(x * x + y * y) - half
    x = np.abs(x)  # all shapes are mirror symmetric
    if shape == "square":
        return np.maximum(x, np.abs(y)) - half
    if shape == "triangle":  # the apex is at the top
        slant = (2 * x - y - half) / 5**0.5
        return np.maximum(slant, y - half)
    return _star_distance(x, y, half)


def _star_distance(
    x: Float[np.ndarray, "..."], y: Float[np.ndarray, "..."], half: float
) -> Float[np.ndarray, "..."]:
    """A five-pointed star, one tip up: fold the plane onto half a tip, then one edge's line."""
    outer = half / sin(2 * pi / 5)
    up = outer * (1 - cos(pi / 5)) / 2 - y  # the box reaches lower than the centre of the star
    for sign in (1, -1):  # mirrors at 36 degrees on both sides of the vertical
        normal_x, normal_y = sign * cos(pi / 5), -sin(pi / 5)
        beyond = 2 * np.maximum(0, normal_x * x + normal_y * up)
        x, up = x - beyond * normal_x, up - beyond * normal_y
    x = np.abs(x)
    inner_x, inner_y = STAR_INNER * outer * sin(pi / 5), STAR_INNER * outer * cos(pi / 5)
    edge_x, edge_y = inner_x, inner_y - outer
    return (-edge_y * x + edge_x * (up - outer)) / (edge_x**2 + edge_y**2) ** 0.5


def draw(
    shape: str, diameter: float, centres: Float[np.ndarray, "T 2"], height: int, width: int
) -> Float[np.ndarray, "T H W"]:
    """Fraction in [0, 1] of every pixel that a shape covers; `diameter`, `centres` in pixels."""
    centres = centres.astype(np.float32)
    x = np.arange(width, dtype=np.float32) + 0.5 - centres[:, 0, None]
    y = np.arange(height, dtype=np.float32) + 0.5 - centres[:, 1, None]
    return np.clip(0.5 - signed_distance(shape, x[:, None, :], y[:, :, None], diameter), 0, 1)


def coverage(thing: Object, frames: int, height: int, width: int) -> Float[np.ndarray, "T H W"]:
    """Fraction in [0, 1] of every pixel that the object covers, occlusion left aside."""
    unit = min(height, width)
    centres = trajectory(thing, frames, width / height) * unit
    return draw(thing.shape, SIZES[thing.size] * unit, centres, height, width)


def render(scene: Scene, frames: int, height: int, width: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Antialiased frames; any number of frames, each independent of how many there are."""
    grey = background(scene.background, height, width)
    video = np.empty((3, frames, height, width), np.float32)  # channels first: contiguous planes
    video[:] = grey
    for thing in scene.objects:
        covered = coverage(thing, frames, height, width)
        for plane, value in zip(video, RGB[thing.colour], strict=True):
            plane += covered * (value - plane)
    return np.ascontiguousarray((video + 0.5).astype(np.uint8).transpose(1, 2, 3, 0))


def visibility(
    scene: Scene, frames: int, height: int, width: int
) -> Float[np.ndarray, " objects"]:
    """Per object, the unoccluded fraction of its area, averaged over the heading frames."""
    frames = min(frames, HEADING_INTERVALS + 1)
    seen = np.ones(len(scene.objects))
    free = np.ones((frames, height, width), np.float32)
    for i in reversed(range(len(scene.objects))):
        covered = coverage(scene.objects[i], frames, height, width)
        area = covered.sum(axis=(1, 2))
        seen[i] = ((covered * free).sum(axis=(1, 2)) / area).mean()
        free *= 1 - covered
    return seen
