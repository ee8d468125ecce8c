"""Flow matching or diffusion (Movie Gen, table 8a: +16.5 net wins for flow matching in quality, +7.1 in alignment).

The paper's diffusion arm predicts v on a path with zero terminal signal-to-noise ratio, and its times are uniform: two
things at once. A third arm takes the path alone.

    vidflow ablate --config=experiments/ablations/objective.py --workdir=runs/ablations/objective

Losses of validation are comparable: `tasks/validation.py`. Results: experiments/ablations/RESULTS.md. Arguments: those
of experiments/bounce/text_to_video.py, such as `smoke`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.tasks.ablating import Ablation, Arm

# On a path of constant variance the velocity is infinite at its end; the rotation is its bounded form, v-prediction.
DIFFUSION = {"flow.path": "variance_preserving:zero_terminal_snr=true", "flow.target": "rotation"}


def get_config(arg: str = "") -> ConfigDict:
    return configs.load(f"{Path(__file__).parents[1] / 'bounce' / 'text_to_video.py'}:{arg}")


def ablation() -> Ablation:
    arms = (
        Arm("flow matching"),
        Arm("diffusion", DIFFUSION | {"flow.times": "uniform"}, together="the paper changes path and times"),
        Arm("diffusion's path", DIFFUSION, together="v-prediction is the velocity of that path"),
    )
    return Ablation(arms, matched="steps", rates=(2.5e-3, 5e-3, 1e-2))
