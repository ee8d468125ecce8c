"""Patch sizes (Peebles and Xie 2023, section 4): smaller patches are more tokens and more FLOPs for as many parameters.

All arms have equal FLOPs, so those of smaller patches take fewer steps: at equal steps smaller ones won in the paper,
which gave them more compute.

    vidflow ablate --config=experiments/ablations/patches.py --workdir=runs/ablations/patches

Results: experiments/ablations/RESULTS.md. Arguments: those of experiments/bounce/text_to_video.py, such as `smoke`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.tasks.ablating import Ablation, Arm


def get_config(arg: str = "") -> ConfigDict:
    return configs.load(f"{Path(__file__).parents[1] / 'bounce' / 'text_to_video.py'}:{arg}")


def ablation() -> Ablation:
    others = ((1, 2, 2), (2, 4, 4))
    arms = (Arm("2 x 2 x 2"), *(Arm(" x ".join(map(str, p)), {"model.patch": p}) for p in others))
    return Ablation(arms, matched="flops", rates=(1e-2, 2e-2, 4e-2))
