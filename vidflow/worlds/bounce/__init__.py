"""bounce: coloured shapes that move and bounce, with captions and a reader.

Every clip is a pure function of (seed, split, index). `scene` draws what happens, `render` makes
pixels, `grammar` makes and understands captions, `reader` reads a video back into attributes.
Only numpy is imported, so that data-loader processes stay light.
"""

import numpy as np
from jaxtyping import UInt8

from vidflow.errors import UsageError
from vidflow.worlds.bounce import grammar, render, scene


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
) -> tuple[UInt8[np.ndarray, "T H W 3"], str]:
    """The `index`-th clip of a split with its caption; `captions` is "short", "long" or "mixed".

    The first frames of a longer clip are the frames of the shorter one. Raises `UsageError` for an
    unknown level, split or caption style, a negative seed or index, or a video without pixels.
    """
    if min(frames, height, width) < 1:
        raise UsageError(
            f"bounce needs frames, height and width >= 1, got {frames}, {height} and {width}."
        )
    drawn = scene.scene(seed, index, level, split, aspect=width / height)
    rng = scene.generator(seed, index, split, purpose="caption")
    video = render.render(drawn, frames, height, width)
    return video, grammar.caption(drawn, level, rng, captions)
