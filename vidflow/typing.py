"""The letters of the code base, as array types.

B batch, T H W frames, height and width of pixels, t h w c time, height, width and channels of latents, C channels,
N tokens, D model width, K heads, L text tokens. As a variable `t` is flow time: 0 is noise, 1 is data.
"""

from jaxtyping import Array, Float, Int, Key

Video = Float[Array, "B T H W 3"]  # RGB in [-1, 1]
Latents = Float[Array, "B t h w c"]
RowKeys = Key[Array, "B"]  # one random key for each row of the batch
TokenIds = Int[Array, "B L"]
