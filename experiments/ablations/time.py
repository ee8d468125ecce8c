"""How flow time enters a block: the designs of DiT (Peebles and Xie 2023, section 3.2 and figure 5), for video.

The paper, with classes instead of text: adaLN-Zero is better than cross-attention, and that than in-context.

    vidflow ablate --config=experiments/ablations/time.py --workdir=runs/ablations/time

Results: experiments/ablations/RESULTS.md. Arguments: those of experiments/bounce/text_to_video.py, such as `smoke`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.tasks.ablating import Ablation, Arm


def get_config(arg: str = "") -> ConfigDict:
    return configs.load(f"{Path(__file__).parents[1] / 'bounce' / 'text_to_video.py'}:{arg}")


def ablation() -> Ablation:
    others = {"adaLN": "adaln", "in-context": "in_context", "cross-attention": "cross_attention"}
    arms = (Arm("adaLN-Zero"), *(Arm(name, {"model.design.time": value}) for name, value in others.items()))
    return Ablation(arms, matched="steps", rates=(1e-2, 2e-2, 4e-2))
