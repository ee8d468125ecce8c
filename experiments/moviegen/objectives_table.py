"""The table of experiments/moviegen/RESULTS.md, from the runs of launch/objectives.sh:

    python experiments/moviegen/objectives_table.py runs/objectives

Each cell is the mean over training seeds with Student's 95% interval.
"""

import itertools
import json
import sys
from pathlib import Path

from vidflow.metrics import intervals

ARMS = (("linear", "variance_preserving"), ("uniform", "logit_normal"), ("velocity", "noise"))
MEASURES = ("validation/flow_loss", "bounce/shape", "bounce/colour", "bounce/direction")


def main() -> None:
    out = Path(sys.argv[1])
    print(f"| path | times | target | seeds | {' | '.join(MEASURES)} |")
    print("|" + (4 + len(MEASURES)) * "---|")
    for arm in itertools.product(*ARMS):
        seeds = [json.loads(path.read_text()) for path in sorted(out.joinpath(*arm).glob("*/evaluation.json"))]
        if len(seeds) > 1:
            cells = [cell([seed[name]["mean"] for seed in seeds]) for name in MEASURES]
            print(f"| {' | '.join(arm)} | {len(seeds)} | {' | '.join(cells)} |")


def cell(values: list[float]) -> str:
    mean, low, high, _ = intervals.mean(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
