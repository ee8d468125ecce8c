"""Signs: a board under the world with a short word on it, which captions quote: letters and digits, or Chinese.

The word of a clip is drawn apart from its scene. In split "train" no word of two or more glyphs is one of "test": a
model has seen every glyph, and has to put together words that it has not. The lower third of a frame is the sign's.
"""

import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import numpy as np
from jaxtyping import Float, UInt8

from vidflow.errors import UsageError
from vidflow.worlds.bounce import scene
from vidflow.worlds.bounce.glyphs import GLYPHS, HEIGHT, SCRIPTS

LONGEST = {"latin": 3, "characters": 2}  # glyphs of a word
HELD_OUT = 6  # one word in so many is in "test"
INK, BOARD, AROUND = 0, 255, 64
MARGIN = 1  # dots of the board around the glyphs, and of what is around the board, above and below
FINE = 8  # samples along each side of a pixel
READABLE = 0.5  # of the variance of a strip that the best word may leave unexplained
SAID = re.compile(
    r",?\s*\b(?:(?:and|with|over|above)\s+)?(?:(?:a|the)\s+)?sign"
    r"(?:\s+(?:below|it|that|which|says|saying|reads|reading))*\s*[\"“]([^\"”]+)[\"”]\.?",
    re.IGNORECASE,
)


def height_of(height: int) -> int:
    """Rows of a frame that belong to its sign."""
    return height // 3


def word(seed: int, index: int, split: str) -> str:
    """What the sign of a clip says.

    Raises:
      UsageError: as `scene.generator`.
    """
    rng = scene.generator(seed, index, split, purpose="sign")
    while True:
        script = tuple(SCRIPTS)[rng.integers(len(SCRIPTS))]
        length = int(rng.integers(1, LONGEST[script] + 1))
        found = "".join(rng.choice(tuple(SCRIPTS[script]), size=length))
        if held_out(found) == (split == "test"):
            return found


def held_out(text: str) -> bool:
    """Whether a word is kept for the split "test"; no single glyph is."""
    return len(text) > 1 and zlib.crc32(text.encode()) % HELD_OUT == 0


def caption(text: str, world: str, rng: np.random.Generator) -> str:
    """The caption of a world, one clause or sentences, with what its sign says."""
    says = ("says", "reads")[rng.integers(2)]
    if world.endswith("."):
        return f'{world} The sign below {says} "{text}".'
    return f'{world}, {("and the sign", "over a sign that")[rng.integers(2)]} {says} "{text}"'


def apart(prompt: str) -> tuple[str, str | None]:
    """What a prompt says of the world, and what its sign shall say; None where it speaks of none."""
    found = SAID.search(prompt)
    return (prompt, None) if found is None else (prompt[: found.start()] + prompt[found.end() :], found[1])


def draw(text: str, height: int, width: int) -> Float[np.ndarray, "h w"]:
    """Grey levels in [0, 255] of a strip with a board in its middle and the word on it.

    Raises:
      UsageError: no glyph, or one that the font has not.
    """
    if not text or (unknown := [glyph for glyph in text if glyph not in GLYPHS]):
        raise UsageError(f"The font of signs has {''.join(GLYPHS)}, not '{text and unknown[0]}'.")
    dots = _dots([GLYPHS[glyph] for glyph in text])
    return _painted(dots, height, width)


def read(strips: UInt8[np.ndarray, "T h w 3"]) -> str:
    """The word that explains the pixels best, "" where none does; never fails on strange content."""
    seen = np.median(strips.mean(axis=-1, dtype=np.float32), axis=0)
    spread = float(np.square(seen - seen.mean()).mean())
    misfit, text = min(
        _fit(seen, script, length) for script in SCRIPTS for length in range(1, LONGEST[script] + 1)
    )
    return text if misfit < READABLE * spread else ""


def score(said: str, wanted: str) -> dict[str, bool | float]:
    """"glyphs": the share of the longer word's places where both have the same; "word": whether it is the word."""
    right = [a == b for a, b in zip(said, wanted, strict=False)]
    return {"glyphs": sum(right) / max(len(said), len(wanted)), "word": said == wanted}


def _dots(glyphs: list[np.ndarray]) -> Float[np.ndarray, "rows columns"]:
    """Ink of a board: 1 where there is a dot."""
    gap = np.zeros((HEIGHT, 1))
    row = np.concatenate([part for glyph in glyphs for part in (gap, glyph)][1:], axis=1)
    return np.pad(row, MARGIN).astype(np.float32)


def _painted(dots: Float[np.ndarray, "rows columns"], height: int, width: int) -> Float[np.ndarray, "h w"]:
    rows, columns = dots.shape
    unit = height / (rows + 2 * MARGIN)
    y = np.floor((np.arange(height * FINE) + 0.5) / FINE / unit).astype(int) - MARGIN
    x = np.floor(((np.arange(width * FINE) + 0.5) / FINE - width / 2) / unit + columns / 2).astype(int)
    inside = ((y >= 0) & (y < rows))[:, None] & ((x >= 0) & (x < columns))
    ink = dots[np.clip(y, 0, rows - 1)][:, np.clip(x, 0, columns - 1)]
    fine = np.where(inside, BOARD + (INK - BOARD) * ink, AROUND)
    return fine.reshape(height, FINE, width, FINE).mean(axis=(1, 3)).astype(np.float32)


def _fit(seen: Float[np.ndarray, "h w"], script: str, length: int) -> tuple[float, str]:
    """The mean squared misfit of the best word of so many glyphs, and the word. Glyphs are matched one by one."""
    columns, templates = _templates(script, length, *seen.shape)
    best = (np.inf, "")
    for moved in _shifted(seen):
        chosen = [
            int(np.square(templates[:, :, span] - moved[:, span]).sum(axis=(1, 2)).argmin()) for span in columns
        ]
        text = "".join(tuple(SCRIPTS[script])[glyph] for glyph in chosen)
        misfit = float(np.square(draw(text, *seen.shape) - moved).mean())
        best = min(best, (misfit, text))
    return best


@lru_cache
def _templates(
    script: str, length: int, height: int, width: int
) -> tuple[list[slice], Float[np.ndarray, "glyphs h w"]]:
    """Of each place of a word the columns that are its alone, and boards with one glyph at all places."""
    glyphs = SCRIPTS[script]
    boards = np.stack([_painted(_dots([dots] * length), height, width) for dots in glyphs.values()])
    one = next(iter(glyphs.values())).shape[1]
    unit = height / (HEIGHT + 4 * MARGIN)
    total = length * (one + 1) - 1
    starts = [width / 2 + unit * (place * (one + 1) - total / 2) for place in range(length)]
    return [slice(max(0, int(np.ceil(low))), int(np.floor(low + unit * one)) + 1) for low in starts], boards


def _shifted(seen: Float[np.ndarray, "h w"]) -> Iterator[Float[np.ndarray, "h w"]]:
    """A picture, and it moved by a pixel each way."""
    padded = np.pad(seen, 1, mode="edge")
    for down, right in product((1, 0, 2), repeat=2):
        yield padded[down : down + seen.shape[0], right : right + seen.shape[1]]
