"""One case of benchmarks/train_step.py in PyTorch: a model of our layout, or the Wan transformer of diffusers."""

import math
from contextlib import nullcontext
from typing import Any

import timing
import torch
import torch.nn.functional as F
import torch_peer
from train_step import CHANNELS, FEATURES, PATCH, TEXT_TOKENS

from vidflow.models import sizes
from vidflow.models.sizes import Size
from vidflow.scaling import flops

EMA_DECAY = 0.9999


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """The row's own part. On a GPU blocks are compiled, one program for all of them, and products run in bfloat16."""
    gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    size = sizes.size(case["size"])
    wan = case["framework"] == "diffusers"
    with torch.device("cuda" if gpu else "cpu"):
        model = make_wan(size, case["remat"] != "none") if wan else make_peer(size, case)
        latents, text = make_batch(case, size.width, torch.bfloat16 if gpu else torch.float32)
    if gpu:
        for block in model.blocks:
            block.compile()
    step = make_step(model, velocity_of_wan if wan else torch.nn.Module.__call__, latents, text)
    loss = torch.zeros(())

    def run(calls: int) -> None:
        nonlocal loss
        for _ in range(calls):
            loss = step()
        if gpu:
            torch.cuda.synchronize()

    result = timing.repeat(run, case["seconds"])
    device = torch.cuda.get_device_name() if gpu else "cpu"
    work = wan_flops(case) if wan else peer_flops(case)
    row = {
        "device": device,
        "dtype": "bfloat16" if gpu else "float32",
        "compiled": gpu,
        "parameters": sum(p.numel() for p in model.parameters()),
        "compile_seconds": max(0.0, result["first_ms"] - result["ms"]) / 1000,  # what the first step took longer
        "loss": loss.item() if math.isfinite(loss.item()) else None,
        **result,
        **timing.rates(work, result["ms"], device),
        **timing.torch_memory(),
    }
    return row | ({"note": wan_note(case)} if wan else {})


def make_step(model: Any, velocity: Any, latents: torch.Tensor, text: torch.Tensor) -> Any:
    """A call is a step and returns the loss: flow matching, clipping, fused AdamW, moving average."""
    params = list(model.parameters())
    average = [p.detach().clone() for p in params]
    optimizer = torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> torch.Tensor:
        noise = torch.randn_like(latents)
        t = torch.sigmoid(torch.randn(latents.shape[0], device=latents.device))
        weight = t.reshape(-1, *[1] * (latents.ndim - 1))
        with torch.autocast("cuda", torch.bfloat16) if latents.is_cuda else nullcontext():
            prediction = velocity(model, weight * latents + (1 - weight) * noise, t, text)
        loss = F.mse_loss(prediction.float(), latents - noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - EMA_DECAY)
        return loss.detach()

    return step


def make_peer(size: Size, case: dict[str, Any]) -> torch_peer.VideoTransformer:
    """Our layout; parameters random as in `step_vidflow.make_init`."""
    remat = case["remat"] != "none"
    model = torch_peer.VideoTransformer(size, PATCH, tuple(case["grid"]), CHANNELS, size.width, remat)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def make_wan(size: Size, remat: bool) -> Any:
    """The Wan transformer of this many layers and heads, of this width, its feed-forward with as many FLOPs as ours."""
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        patch_size=PATCH,
        num_attention_heads=size.heads,
        attention_head_dim=size.width // size.heads,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=size.width,
        ffn_dim=wan_feed_forward(size),
        num_layers=size.layers,
    )
    if remat:
        model.enable_gradient_checkpointing()
    return model.train()


def velocity_of_wan(model: Any, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Of latents with the channels last."""
    out = model(x.movedim(-1, 1), 1000 * t, text, return_dict=False)[0]
    return out.movedim(1, -1)


def make_batch(case: dict[str, Any], width: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Random latents and text."""
    sides = [side * step for side, step in zip(case["grid"], PATCH, strict=True)]
    text = torch.randn(case["batch"], TEXT_TOKENS, width, dtype=dtype)
    return torch.randn(case["batch"], *sides, CHANNELS), text


def peer_flops(case: dict[str, Any]) -> int:
    """Model FLOPs of a step: vidflow's."""
    return (1 + flops.BACKWARD) * case["batch"] * _forward(case)


def wan_feed_forward(size: Size) -> int:
    """Two matrices as large together as our three."""
    return 3 * size.feed_forward // 2


def wan_flops(case: dict[str, Any]) -> int:
    """Model FLOPs of a step of the Wan transformer: ours, plus two products of the text before the first layer, less
    the time's part of the head. Time and text are counted once, the blocks are those of ours."""
    d = sizes.size(case["size"]).width
    extra = 2 * (TEXT_TOKENS * 2 * d * d - 2 * d * d)
    return (1 + flops.BACKWARD) * case["batch"] * (_forward(case) + extra)


def wan_note(case: dict[str, Any]) -> str:
    """What is different in it."""
    size = sizes.size(case["size"])
    more = 100 * (wan_flops(case) / peer_flops(case) - 1)
    return (
        f"diffusers, {case['size']}, {case['tokens']:,} tokens: WanTransformer3DModel has rotary positions, normalised "
        f"queries and keys, LayerNorm, biases, and a GELU feed-forward of 2 matrices {wan_feed_forward(size):,} wide "
        f"where ours is SwiGLU of 3 {size.feed_forward:,} wide; its FLOPs are its own, {more:+.2f}% of ours."
    )


def _forward(case: dict[str, Any]) -> int:
    size = sizes.size(case["size"])
    options = {"text_tokens": TEXT_TOKENS, "text_width": size.width, "features": FEATURES}
    return sum(flops.transformer(size, tokens=case["tokens"], **options))
