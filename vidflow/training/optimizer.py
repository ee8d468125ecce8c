"""Optimizers and learning-rate schedules from config."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict
from optax import contrib

from vidflow.errors import UsageError

DECAY = 0.2  # the last part of the steps of "stable", in which its rate decays

# Pairs of (input, output) axes between which a kernel is a matrix: projections in the interior of a transformer, and
# every convolution, an autoencoder's first and last too. Muon is for these (Jordan et al. 2024); embeddings, position
# tables, norms, biases and the first and last layer of a transformer stay with AdamW.
MATRICES = {("embed", "heads"), ("heads", "embed"), ("embed", "mlp"), ("mlp", "embed")}


def make_optimizer(config: ConfigDict, axis_names: Any) -> optax.GradientTransformation:
    """The transformation that `config.optimizer` describes, at a learning rate of 1: the rate is a function of the
    step of the run, which skipped steps move on too, and not of the number of updates.

    Parameters under different names at the top (a model and its discriminator) are clipped apart from one another.

    Args:
      config: `name` ("adamw" or "muon"), `weight_decay` (of `MATRICES` alone), `clip` (global gradient norm; 0: never),
        `b1`, `b2`.
      axis_names: logical axis names of each parameter (`parallel.rules.axis_names`).

    Raises:
      UsageError: an unknown name.
    """
    if len(axis_names) > 1:
        return _each({name: make_optimizer(config, {name: tree}) for name, tree in axis_names.items()})
    if config.name == "adamw":
        update = optax.adamw(
            1.0, config.b1, config.b2, weight_decay=config.weight_decay, mask=_is_matrix_tree(axis_names)
        )
    elif config.name == "muon":
        update = contrib.muon(
            1.0,
            beta=0.95,
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            muon_weight_dimension_numbers=jax.tree.map(_matrix_axes, axis_names, is_leaf=_is_spec),
        )
    else:
        raise UsageError(f"Unknown config.optimizer.name '{config.name}': use 'adamw' or 'muon'.")
    return optax.chain(optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(), update)


def _each(optimizers: dict[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """Each optimizer on the parameters of its name."""

    def init(params: Any) -> Any:
        return {name: optimizer.init({name: params[name]}) for name, optimizer in optimizers.items()}

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, states = {}, {}
        for name, optimizer in optimizers.items():
            own = None if params is None else {name: params[name]}
            change, states[name] = optimizer.update({name: gradient[name]}, state[name], own)
            updates |= change
        return updates, states

    return optax.GradientTransformation(init, update)


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up over `config.warmup` steps to `config.learning_rate`, then `config.decay` until the end of a run
    of `steps`: "constant"; "cosine" or "linear" to a tenth; or "stable" (warm-up, stable, decay: Hu et al. 2024), which
    is constant up to `shared_steps` and then linear to a tenth. A function of the step alone.

    Raises:
      UsageError: an unknown decay.
    """
    peak, warmup = config.learning_rate, config.warmup
    rest, stable = max(steps - warmup, 1), max(shared_steps(config, steps) - warmup, 0)
    decays = {
        "stable": optax.linear_schedule(peak, 0.1 * peak, max(rest - stable, 1), stable),
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest, alpha=0.1),
        "linear": optax.linear_schedule(peak, 0.1 * peak, rest),
    }
    if config.decay not in decays:
        raise UsageError(f"Unknown config.optimizer.decay '{config.decay}': use one of {', '.join(decays)}.")
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decays[config.decay]], [warmup])


def shared_steps(config: ConfigDict, steps: int) -> int:
    """How many steps a run of `steps` has in common with a longer one of the same config otherwise."""
    return {"constant": steps, "stable": steps - round(DECAY * steps)}.get(config.decay, 0)


def matrices_as(dtype: str, axis_names: Any) -> Callable[[Any], Any]:
    """A view of the parameters (`training.step.make_step`) with the kernels of `MATRICES` in `dtype`, where the model
    computes in it anyway.

    Raises:
      UsageError: another dtype than float32 or bfloat16.
    """
    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"Unknown config.gradient_dtype '{dtype}': use 'float32' or 'bfloat16'.")
    is_matrix = _is_matrix_tree(axis_names)
    return lambda params: jax.tree.map(lambda p, matrix: p.astype(dtype) if matrix else p, params, is_matrix)


def _matrix_axes(names: P) -> contrib.MuonDimensionNumbers | None:
    """Which axes of a kernel form its matrix; the layer axis of a scanned stack is a batch of matrices."""
    axes = [axis for axis, name in enumerate(names) if name != "layers"]
    if tuple(names)[-2:] not in MATRICES:
        return None
    return contrib.MuonDimensionNumbers(reduction_axis=tuple(axes[:-1]), output_axis=axes[-1])


def _is_matrix_tree(axis_names: Any) -> Any:
    return jax.tree.map(lambda names: tuple(names)[-2:] in MATRICES, axis_names, is_leaf=_is_spec)


def _is_spec(node: Any) -> bool:
    return isinstance(node, P)
