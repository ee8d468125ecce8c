"""The first three budgets of isoflop.py with the text in context: as tokens of the video's own sequence.

Question: does the way that text enters change the laws? Liang et al. (2024) found the loss to fall with the power
0.0385 of compute by cross-attention and 0.0273 in context, and say to compare laws within one architecture only.
Results: experiments/scaling/RESULTS.md: in context the loss is higher at every size and budget; it falls more slowly
with compute too, but the intervals of the powers overlap.

    vidflow sweep --config=experiments/scaling/in_context.py --workdir=runs/in_context/sweep --evaluate=loss
    vidflow fit --results=runs/in_context/sweep/results.jsonl --out=runs/in_context/laws --holdout=largest

Argument: as of isoflop.py.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs

GRID = Path(__file__).with_name("isoflop.py")


def get_config(arg: str = "") -> ConfigDict:
    return configs.load(f"{GRID}:{','.join(filter(None, (arg, 'text=in_context')))}")


def sweep(add) -> None:
    configs.function(GRID, "sweep", "def sweep(add)")(add, largest=2e13)
