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
FACTORS = (tuple(PATHS), ("logit_normal", "uniform"), ("velocity", "noise"))


def get_config(arg: str = "") -> ConfigDict:
    config = configs.load(f"{Path(__file__).parents[1] / 'bounce' / 'text_to_video.py'}:{arg}")
    config.flow.times = "logit_normal"  # the paper's, where the demo's mean is lower
    config.sampling.start = 0.01
    return config


def ablation() -> Ablation:
    arms = {cell: _arm(*cell) for cell in product(*FACTORS)}
    effects = {}
    for place, (one, other) in enumerate(FACTORS):
        with_other = {cell: (*cell[:place], other, *cell[place + 1 :]) for cell in arms if cell[place] == one}
        effects[f"{one} for {other}"] = [(arms[a].name, arms[b].name) for a, b in with_other.items()]
    return Ablation(tuple(arms.values()), matched="steps", rates=(5e-3, 1e-2, 2e-2), contrasts=effects)


def _arm(path: str, times: str, target: str) -> Arm:
    # On a path of constant variance the velocity is infinite at its end; the rotation, v-prediction, is bounded.
    target = "rotation" if (path, target) == ("diffusion", "velocity") else target
    values = {"flow.path": PATHS[path], "flow.times": times, "flow.target": target}
    return Arm(f"{path}, {times}, {target}", values, together="a cell of a full factorial design")
