"""The video transformer of vidflow/models in plain PyTorch: the same layers, shapes and parameters.

Written as it usually is in PyTorch: projections of one input fused into one, attention by SDPA. Matrix products run in
the autocast dtype if there is one, norms in float32; a test copies weights over and compares the outputs.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidflow.models.sizes import Size


class VideoTransformer(nn.Module):
    """See `vidflow.models.dit.VideoTransformer`; `remat` recomputes every block in the backward pass."""

    def __init__(
        self,
        size: Size,
        patch: tuple[int, int, int],
        positions: tuple[int, int, int],
        channels: int,
        text_width: int,
        remat: bool = False,
    ) -> None:
        super().__init__()
        width, features = size.width, channels * math.prod(patch)
        self.sides, self.remat = patch, remat
        self.patch = nn.Linear(features, width, bias=False)
        self.positions = nn.ParameterList(nn.Parameter(torch.randn(n, width) * width**-0.5) for n in positions)
        self.time = TimeEmbedding(width)
        self.modulation, self.head_modulation = nn.Linear(width, 6 * width), nn.Linear(width, 2 * width)
        self.blocks = nn.ModuleList(Block(width, size.heads, size.feed_forward, text_width) for _ in range(size.layers))
        self.head_norm = RMSNorm(width)
        self.head = nn.Linear(width, features, bias=False)

    def forward(self, latents: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """latents [B, T, H, W, C], t [B], text [B, L, D] -> velocity of the latents' shape."""
        b, frames, height, width, c = latents.shape
        i, j, k = self.sides
        grid = (frames // i, height // j, width // k)
        x = latents.reshape(b, grid[0], i, grid[1], j, grid[2], k, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
        x = self.patch(x.reshape(b, math.prod(grid), -1))
        tables = (table[:n] for table, n in zip(self.positions, grid, strict=True))
        in_time, in_height, in_width = tables
        position = in_time[:, None, None] + in_height[:, None] + in_width
        position = position.reshape(1, -1, x.shape[-1]).to(x.dtype)

        time = F.silu(self.time(t, x.dtype))
        modulation = self.modulation(time).unflatten(-1, (6, -1))
        # No dropout, so no random state to keep.
        again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        for block in self.blocks:
            inputs = (x, position, modulation, text)
            x = again(block, *inputs) if self.remat else block(*inputs)
        shift, scale = self.head_modulation(time).unflatten(-1, (2, -1))[:, :, None].unbind(1)
        x = self.head(modulate(self.head_norm(x), shift, scale))
        x = x.reshape(b, *grid, i, j, k, c).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return x.reshape(latents.shape)


class Block(nn.Module):
    """See `vidflow.models.blocks.Block`."""

    def __init__(self, width: int, heads: int, feed_forward: int, text_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Parameter(torch.zeros(6, width))
        self.attention_norm, self.cross_norm, self.feed_forward_norm = (RMSNorm(width) for _ in range(3))
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.cross_query = nn.Linear(width, width, bias=False)
        self.cross_key_value = nn.Linear(text_width, 2 * width, bias=False)
        self.cross_out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * feed_forward, bias=False)
        self.down = nn.Linear(feed_forward, width, bias=False)

    def forward(self, x: Tensor, position: Tensor, modulation: Tensor, text: Tensor) -> Tensor:
        vectors = (modulation + self.modulation).to(x.dtype)[:, :, None]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = vectors.unbind(1)
        x = x + position
        h = modulate(self.attention_norm(x), shift_a, scale_a)
        x = x + gate_a * self.out(self._attend(*self.query_key_value(h).chunk(3, dim=-1)))
        query = self.cross_query(self.cross_norm(x))
        x = x + self.cross_out(self._attend(query, *self.cross_key_value(text).chunk(2, dim=-1)))
        h = modulate(self.feed_forward_norm(x), shift_f, scale_f)
        gate, up = self.gate_up(h).chunk(2, dim=-1)
        return x + gate_f * self.down(F.silu(gate) * up)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class RMSNorm(nn.Module):
    """Statistics in float32, result in the dtype of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6) * self.weight).to(x.dtype)


class TimeEmbedding(nn.Module):
    """See `vidflow.models.conditioning.TimeEmbedding`."""

    def __init__(self, width: int, frequencies: int = 256) -> None:
        super().__init__()
        self.half = frequencies // 2
        self.first, self.second = nn.Linear(frequencies, width), nn.Linear(width, width)

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        rate = torch.exp(-math.log(10_000.0) * torch.arange(self.half, device=t.device) / self.half)
        angle = 1000.0 * t.float()[:, None] * rate
        x = torch.cat([angle.cos(), angle.sin()], dim=-1).to(dtype)
        return self.second(F.silu(self.first(x)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift
