"""The one table of model sizes."""

from typing import NamedTuple

from vidflow.errors import UsageError


class Size(NamedTuple):
    """Layers, model width, attention heads, feed-forward width."""

    layers: int
    width: int
    heads: int
    feed_forward: int


# The ladder is for scaling laws on small machines: heads of 16, depth that grows with width.
LADDER = {
    f"ladder-{width}": Size(layers, width, width // 16, 3 * width)
    for layers, width in ((2, 32), (3, 48), (4, 64), (5, 96), (6, 128), (8, 192), (10, 256), (12, 384), (14, 512))
}

# dit-s to dit-xl are DiT's (Peebles and Xie 2023, table 1), whose feed-forward has two matrices.
# 30b is Movie Gen's (table 2 of its section 3); 1b and 5b are those of its open replication; 9b and 17b keep the
# ratios of 30b between the two sizes that Movie Gen names in its scaling study without publishing their shapes.
# wan-14b has the depth, width and heads of Wan 2.1 14B; its feed-forward of three matrices has as many parameters as
# Wan's of two, which is 13824 wide.
SIZES = {
    "smoke": Size(2, 64, 8, 128),
    "demo": Size(6, 128, 4, 384),
    "small": Size(8, 128, 4, 384),
    "base": Size(12, 768, 12, 2048),
    "1b": Size(24, 1536, 16, 4096),
    "5b": Size(32, 3072, 24, 8192),
    "9b": Size(36, 3840, 30, 10240),
    "17b": Size(42, 4992, 39, 13312),
    "30b": Size(48, 6144, 48, 16384),
    "wan-14b": Size(40, 5120, 40, 9216),
    "dit-s": Size(12, 384, 6, 1536),
    "dit-b": Size(12, 768, 12, 3072),
    "dit-l": Size(24, 1024, 16, 4096),
    "dit-xl": Size(28, 1152, 16, 4608),
    **LADDER,
}


def size(name: str) -> Size:
    """The row of that name.

    Raises:
      UsageError: no such row, listing those there are.
    """
    if name not in SIZES:
        raise UsageError(f"Unknown model size '{name}' in config.model.size: use one of {', '.join(SIZES)}.")
    return SIZES[name]
