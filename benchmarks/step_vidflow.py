"""One case of benchmarks/train_step.py: a training step of vidflow's VideoTransformer."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import timing
from ml_collections import ConfigDict
from train_step import CHANNELS, FEATURES, PATCH, TEXT_TOKENS

from vidflow.flow import couplings, objectives, paths, targets, times
from vidflow.models import sizes
from vidflow.models.conditioning import Conditioning
from vidflow.models.dit import VideoTransformer
from vidflow.parallel import rules
from vidflow.parallel.mesh import make_mesh
from vidflow.scaling import flops
from vidflow.training.program import Learner, make_program
from vidflow.training.step import Objective

OPTIMIZER = {"name": "adamw", "learning_rate": 1e-4, "warmup": 10, "decay": "constant"}
OPTIMIZER |= {"weight_decay": 0.1, "clip": 1.0, "b1": 0.9, "b2": 0.95}


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """The row's own part."""
    size, device, mesh = sizes.size(case["size"]), jax.devices()[0], make_mesh()
    dtype = jnp.float32 if device.platform == "cpu" else jnp.bfloat16
    model = VideoTransformer(size, PATCH, tuple(case["grid"]), remat=case["remat"], kernel=case["kernel"], dtype=dtype)
    with rules.in_force():
        program = make_program(make_config(case), make_learner(model, case), mesh)
        start = time.perf_counter()
        with jax.set_mesh(mesh):
            compiled = program.step.lower(program.state, program.batch, program.given(0)).compile()
        compile_seconds = time.perf_counter() - start
        state = program.initialise(jax.random.key(0))
    batch = jax.device_put(make_batch(case, size.width, dtype), jax.tree.map(lambda leaf: leaf.sharding, program.batch))
    metrics: dict[str, jax.Array] = {}

    def run(calls: int) -> None:
        nonlocal state, metrics
        for _ in range(calls):
            state, metrics = compiled(state, batch, program.given(0))
        jax.block_until_ready((state, metrics))

    result = timing.repeat(run, case["seconds"])
    loss = float(metrics["loss"])
    return {
        "device": device.device_kind,
        "dtype": jnp.dtype(dtype).name,
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
        "compile_seconds": compile_seconds,
        "loss": loss if math.isfinite(loss) else None,
        **result,
        **timing.rates(training_flops(case) * case["batch"], result["ms"], device.device_kind),
        **timing.jax_memory(compiled),
    }


def make_config(case: dict[str, Any]) -> ConfigDict:
    """The settings of a run that a step depends on."""
    return ConfigDict(
        {"seed": 0, "steps": 10**6, "batch_size": case["batch"], "microbatches": 1, "ema_decay": 0.9999}
        | {"stability": {"loss_spike": 0.0, "norm_spike": 0.0, "window": 100}}
        | {"gradient_dtype": case["gradient_dtype"], "optimizer": OPTIMIZER}
    )


def make_learner(model: VideoTransformer, case: dict[str, Any]) -> Learner:
    """Flow matching on `make_batch`'s rows."""
    row = jax.eval_shape(lambda: make_batch(case | {"batch": 1}, model.size.width, model.dtype))
    row = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in row.items()}
    return Learner(make_init(model), make_objective(model), row, {"model": float(training_flops(case))})


def training_flops(case: dict[str, Any]) -> int:
    """Model FLOPs of one clip in a step, by the closed formula."""
    size = sizes.size(case["size"])
    options = {"text_tokens": TEXT_TOKENS, "text_width": size.width, "features": FEATURES}
    return (1 + flops.BACKWARD) * sum(flops.transformer(size, tokens=case["tokens"], **options))


def make_init(model: VideoTransformer) -> Any:
    """key -> annotated parameters, noise added so that none is zero. Made from the smallest video there is."""

    def init(key: jax.Array) -> Any:
        text = Conditioning(jnp.zeros((1, 1, model.size.width)), jnp.ones((1, 1), jnp.int32))
        boxed = model.init(key, jnp.zeros((1, *PATCH, CHANNELS)), jnp.zeros(1), text)
        leaves, tree = jax.tree.flatten(boxed)
        keys = jax.random.split(key, len(leaves))
        noisy = [x + 0.02 * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=True)]
        return tree.unflatten(noisy)

    return init


def make_objective(model: VideoTransformer) -> Objective:
    """Flow matching given text, as in `vidflow.tasks.text_to_video` but for the text's encoder and its dropout."""

    recipe = objectives.Recipe(paths.linear(), targets.velocity(), times.logit_normal(), couplings.independent())

    def objective(params: Any, keys: jax.Array, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        text = Conditioning(batch["text"], jnp.ones(batch["text"].shape[:2], jnp.int32))

        def network(x: jax.Array, t: jax.Array) -> jax.Array:
            return model.apply(params, x, t, text).prediction

        loss, _ = objectives.regression(network, keys, batch["latents"], recipe)
        return loss.mean(), {}

    return objective


def make_batch(case: dict[str, Any], width: int, dtype: Any) -> dict[str, jax.Array]:
    """Random latents and text, on the device."""
    latents, text = jax.random.split(jax.random.key(1))
    sides = [side * step for side, step in zip(case["grid"], PATCH, strict=True)]
    return {
        "latents": jax.random.normal(latents, (case["batch"], *sides, CHANNELS)),
        "text": jax.random.normal(text, (case["batch"], TEXT_TOKENS, width), dtype),
        "row": jnp.arange(case["batch"]),
        "index": jnp.arange(case["batch"]),
    }
