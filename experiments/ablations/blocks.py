"""Llama's block or DiT's (Movie Gen, table 8c: +18.6 net wins for Llama's in quality, +12.6 in alignment).

RMSNorm, SwiGLU and no biases against LayerNorm, GELU and biases, everything else of the demo. SwiGLU has three matrices
and GELU two, so the arms are given equal FLOPs, not equal steps.

    vidflow ablate --config=experiments/ablations/blocks.py --workdir=runs/ablations/blocks

Results: experiments/ablations/RESULTS.md. Arguments: those of experiments/bounce/text_to_video.py, such as `smoke`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.tasks.ablating import Ablation, Arm


def get_config(arg: str = "") -> ConfigDict:
    return configs.load(f"{Path(__file__).parents[1] / 'bounce' / 'text_to_video.py'}:{arg}")


def ablation() -> Ablation:
    block = {"model.design.norm": "layer", "model.design.mlp": "gelu", "model.design.bias": True}
    arms = (Arm("Llama block"), Arm("DiT block", block, together="the paper changes the whole block"))
    return Ablation(arms, matched="flops", rates=(1e-2, 2e-2, 4e-2))
