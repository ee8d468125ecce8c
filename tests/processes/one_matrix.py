"""A text-to-video task that learns one matrix instead of a transformer: all that is around the step, soon compiled."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vidflow.tasks import text_to_video
from vidflow.training.loop import Task
from vidflow.training.program import Learner


def build(config: ConfigDict, workdir: Path) -> Task:
    task = text_to_video.build(config, workdir)
    channels = task.learner.row["latents"].shape[-1]

    def init(key: jax.Array) -> Any:
        return {"matrix": nn.LogicallyPartitioned(jax.random.normal(key, (channels, 8)), ("embed", "mlp"))}

    def objective(params: Any, keys: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        noise = jax.vmap(lambda key: jax.random.normal(key, (8,)))(keys)
        loss = jnp.square(batch["latents"].mean(axis=(1, 2, 3)) @ params["matrix"] - noise).mean(axis=1)
        return loss.mean(), {"loss_by_feature": jnp.square(params["matrix"]).mean(axis=0)}

    return Task(Learner(init, objective, task.learner.row, {"model": 1.0}), task.source, task.finish)
