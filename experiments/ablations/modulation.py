"""One projection of flow time for all layers (PixArt-alpha, Movie Gen) or one in each (DiT).

    vidflow ablate --config=experiments/ablations/modulation.py --workdir=runs/ablations/modulation

An arm with a projection a layer has more parameters and, for all but the shortest videos, about as many FLOPs. Results:
experiments/ablations/RESULTS.md. Arguments: those of experiments/bounce/text_to_video.py, such as `smoke`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.tasks.ablating import Ablation, Arm


def get_config(arg: str = "") -> ConfigDict:
    return configs.load(f"{Path(__file__).parents[1] / 'bounce' / 'text_to_video.py'}:{arg}")


def ablation() -> Ablation:
    arms = (Arm("shared"), Arm("a projection in each layer", {"model.design.shared": False}))
    return Ablation(arms, matched="steps", rates=(1e-2, 2e-2, 4e-2))
