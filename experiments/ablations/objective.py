"""Flow matching or diffusion (Movie Gen, table 8a: +16.5 net wins for flow matching in quality, +7.1 in alignment).

The paper's diffusion arm predicts v, on a path with zero terminal signal-to-noise ratio, at uniform times: several
things at once. Here are all combinations of path, times and what is predicted.

    vidflow ablate --config=experiments/ablations/objective.py --workdir=runs/ablations/objective

Losses of validation are comparable: `tasks/validation.py`. Noise says nothing where all is noise, so sampling starts a
little later in every arm. Results: experiments/moviegen/RESULTS.md. Arguments: those of
experiments/bounce/text_to_video.py, such as `smoke`.
"""

from itertools import product
from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.tasks.ablating import Ablation, Arm

PATHS = {"linear": "linear", "diffusion": "variance_preserving:zero_terminal_snr=true"}


def get_config(arg: str = "") -> ConfigDict:
    config = configs.load(f"{Path(__file__).parents[1] / 'bounce' / 'text_to_video.py'}:{arg}")
    config.flow.times = "logit_normal"  # the paper's, where the demo's mean is lower
    config.sampling.start = 0.01
    return config


def ablation() -> Ablation:
    # On a path of constant variance the velocity is infinite at its end; the rotation, v-prediction, is bounded.
    arms = []
    for path, times, target in product(PATHS, ("logit_normal", "uniform"), ("velocity", "noise")):
        target = "rotation" if (path, target) == ("diffusion", "velocity") else target
        values = {"flow.path": PATHS[path], "flow.times": times, "flow.target": target}
        arms.append(Arm(f"{path}, {times}, {target}", values, together="a cell of a full factorial design"))
    return Ablation(tuple(arms), matched="steps", rates=(5e-3, 1e-2, 2e-2))
