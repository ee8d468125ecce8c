"""Short or long captions of the same clips (Movie Gen, table 8b, compares captions of videos with those of frames).

A long caption of bounce says in twice the words what a short one says. Every arm is scored on prompts of its own kind,
about the same held-out scenes.

    vidflow ablate --config=experiments/ablations/captions.py --workdir=runs/ablations/captions

Results: experiments/ablations/RESULTS.md. Arguments: those of experiments/bounce/text_to_video.py, such as `smoke`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.tasks.ablating import Ablation, Arm


def get_config(arg: str = "") -> ConfigDict:
    config = configs.load(f"{Path(__file__).parents[1] / 'bounce' / 'text_to_video.py'}:{arg}")
    config.text.length = 96  # the longest caption fits
    return config


def ablation() -> Ablation:
    arms = (Arm("short captions"), Arm("long captions", {"data.captions": "long"}))
    return Ablation(arms, matched="steps", rates=(1e-2, 2e-2, 4e-2))
