"""IsoFLOP curves of text to video on the bounce world: how a budget of FLOPs is best spent on parameters and tokens.

Question: which powers of compute are the best size and length of a small video model? Liang et al. (2024) found 0.57
and 0.43 for images, HunyuanVideo 0.36 and 0.63 for video.
Results: experiments/scaling/RESULTS.md.

    launch/scaling.sh   # this grid and that of in_context.py; or by hand:
    vidflow encode --config=experiments/bounce/text_to_video.py --config.autoencoder.run=experiments/scaling \\
        --config.data.clips=262144 --out=runs/isoflop/latents
    vidflow sweep --config=experiments/scaling/isoflop.py --workdir=runs/isoflop/sweep --evaluate=loss
    vidflow fit --results=runs/isoflop/sweep/results.jsonl --out=runs/isoflop/laws --holdout=largest

The autoencoder is the demo's and lies beside this file, because one that the same command trains on another processor
moves every loss by percents. Every size is tried at four learning rates where it is first trained, and then at two:
the best is higher for small models and for short runs.
Argument: `size` of the ladder, `flops` of the budget, from which the number of steps follows, `text` by cross-attention
or in context. Clips are read from a cache, so large that none is seen more than four times up to 7e13 FLOPs. The two
largest budgets are for an accelerator: a CPU would take days.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.config import parse_arg
from vidflow.models.sizes import LADDER, size
from vidflow.tasks import text_to_video

BUDGETS = (2e12, 7e12, 2e13, 7e13, 2e14, 7e14)
# So many sizes a budget, the smallest of them by its place in the ladder: the best one is in the middle.
SIZES, FIRST = 5, (0, 0, 1, 2, 3, 3)
SEEDS_AT = 7e12  # the budget that is trained with three seeds, which shows the noise of a loss
RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2)  # tried for each size at its smallest budget


def get_config(arg: str = "") -> ConfigDict:
    arg = parse_arg(arg, size=tuple(LADDER), flops=2e12, text=("cross_attention", "in_context"))
    config = configs.load(str(Path(__file__).parents[1] / "bounce" / "text_to_video.py"))
    width = size(arg.size).width
    config.model.size = arg.size
    config.model.design.text = arg.text
    config.text.update({"width": width, "heads": size(arg.size).heads})
    config.optimizer.update({"name": "adamw", "learning_rate": 4e-3, "warmup": 50, "decay": "linear", "b2": 0.95})
    config.autoencoder.run = "experiments/scaling"  # its folder `autoencoder`
    config.data.update({"source": "cache", "path": "runs/isoflop/latents"})
    config.checkpoint.every = 500
    step = text_to_video.outline(config).flops_per_row * config.batch_size
    config.steps = max(1, round(arg.flops / step))
    return config


def sweep(add, largest: float = BUDGETS[-1]) -> None:
    tried = set()
    for budget, first in zip(BUDGETS, FIRST, strict=True):
        if budget > largest:
            break
        for name in tuple(LADDER)[first : first + SIZES]:
            arg = f"size={name},flops={budget:g}"
            best = (8e-3, 1.6e-2) if size(name).width <= 128 else (4e-3, 8e-3)
            for rate in best if name in tried else RATES:
                add({"optimizer.learning_rate": rate, "seed": 0}, arg)
            for seed in (1, 2) if budget == SEEDS_AT else ():
                add({"optimizer.learning_rate": 1.6e-2, "seed": seed}, arg)
            tried.add(name)
