"""bounce: coloured shapes that move and bounce, with captions and a reader.

Every clip is a pure function of (seed, split, index). `scene` draws what happens, `render` makes
pixels, `grammar` makes and understands captions, `reader` reads a video back into attributes.
Only numpy is imported, so that data-loader processes stay light.
"""

import numpy as np
from jaxtyping import UInt8

from vidflow.errors import UsageError
from vidflow.worlds.bounce import grammar, render, scene, signs
from vidflow.worlds.bounce.scene import Scene


def clip(
    seed: int,
    index: int,
    *,
    level: int,
    split: str,
    frames: int,
    height: int,
    width: int,
    captions: str = "mixed",
    with_signs: bool = False,
) -> tuple[UInt8[np.ndarray, "T H W 3"], str]:
    """The `index`-th clip of a split with its caption; `captions` is "short", "long" or "mixed".

    With signs, the lower third of every frame is a sign with a word that the caption quotes. The first frames of a
    longer clip are the frames of the shorter one. Raises `UsageError` for an unknown level, split or caption style, a
    negative seed or index, or a video without pixels.
    """
    if min(frames, height, width) < 1:
        raise UsageError(
            f"bounce needs frames, height and width >= 1, got {frames}, {height} and {width}."
        )
    if with_signs and height < 3:
        raise UsageError(f"bounce with signs needs a height of 3 or more, got {height}.")
    world = height - signs.height_of(height) if with_signs else height
    drawn, caption = told(
        seed, index, level=level, split=split, height=height, width=width, captions=captions, with_signs=with_signs
    )
    video = render.render(drawn, frames, world, width)
    if with_signs:
        strip = signs.draw(signs.word(seed, index, split), height - world, width)
        board = np.broadcast_to((strip + 0.5).astype(np.uint8)[None, :, :, None], (frames, *strip.shape, 3))
        video = np.concatenate([video, board], axis=1)
    return video, caption


def told(
    seed: int,
    index: int,
    *,
    level: int,
    split: str,
    height: int,
    width: int,
    captions: str = "mixed",
    with_signs: bool = False,
) -> tuple[Scene, str]:
    """What the clip shows, and its caption, without its pixels."""
    world = height - signs.height_of(height) if with_signs else height
    drawn = scene.scene(seed, index, level, split, aspect=width / world)
    rng = scene.generator(seed, index, split, purpose="caption")
    caption = grammar.caption(drawn, level, rng, captions)
    if with_signs:
        caption = signs.caption(signs.word(seed, index, split), caption, rng)
    return drawn, caption
