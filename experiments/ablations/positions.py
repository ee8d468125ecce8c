"""Where a patch is: learned tables at every layer (Movie Gen) or at the first, or rotations of queries and keys.

    vidflow ablate --config=experiments/ablations/positions.py --workdir=runs/ablations/positions

Results: experiments/ablations/RESULTS.md. Arguments: those of experiments/bounce/text_to_video.py, such as `smoke`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.tasks.ablating import Ablation, Arm


def get_config(arg: str = "") -> ConfigDict:
    return configs.load(f"{Path(__file__).parents[1] / 'bounce' / 'text_to_video.py'}:{arg}")


def ablation() -> Ablation:
    others = {"learned, first layer": "first", "rotary": "rotary"}
    arms = (Arm("learned, every layer"), *(Arm(name, {"model.design.positions": p}) for name, p in others.items()))
    return Ablation(arms, matched="steps", rates=(1e-2, 2e-2, 4e-2))
