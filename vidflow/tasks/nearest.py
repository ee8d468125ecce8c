"""The model of the table that is nearest to what a law asks for, and how to plan it."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from vidflow import config as configs
from vidflow.models.sizes import SIZES
from vidflow.scaling import parameters as formulas
from vidflow.tasks import text_to_video

ROOT = Path(__file__).parents[2]
LARGE = 5e8  # parameters of a model that is planned as Movie Gen's are, and not as bounce's


class Nearest(NamedTuple):
    """A row of the table of sizes.

    Attributes:
      size: its name.
      transformer: parameters of the transformer in the config of `plan`.
      parameters: of the whole model, with what reads the text.
      plan: flags of vidflow plan.
    """

    size: str
    transformer: int
    parameters: int
    plan: str


def nearest(parameters: float) -> Nearest:
    """By the ratio of parameters of the transformer."""
    # With the tables and text of Movie Gen's; what experiments make of them differs by less than sizes do.
    counts = {
        name: formulas.transformer(size, positions=(32, 96, 96), text_width=size.width, features=64)
        for name, size in SIZES.items()
    }
    name = min(counts, key=lambda name: abs(math.log(counts[name] / parameters)))
    spec, topology = "experiments/bounce/text_to_video.py", "v5e:2x4"
    if counts[name] > LARGE:
        spec, topology = "experiments/moviegen/video.py:768px", "v5p:4x4x4"
    config = configs.override(configs.load(str(ROOT / spec)), [("model.size", name)])
    learner = text_to_video.outline(config)
    params = nn.unbox(jax.eval_shape(learner.init, jax.eval_shape(lambda: jax.random.key(0))))["params"]
    plan = f"--config={spec} --config.model.size={name} --topology={topology} --search"
    return Nearest(name, _count(params["backbone"]), _count(params), plan)


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
