"""The compiled part of a run: one jitted step and the state it works on. A run executes it; a plan only compiles it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from vidflow import limits
from vidflow.errors import UsageError
from vidflow.parallel import compiling, rules
from vidflow.parallel.mesh import batch_sharding, check_batch, whole_mesh
from vidflow.training import state as states
from vidflow.training.health import Limits
from vidflow.training.optimizer import learning_rate, make_optimizer, matrices_as
from vidflow.training.step import Objective, make_step


class Learner(NamedTuple):
    """What is learnt, known from the config alone: enough to compile a step.

    Attributes:
      init: key -> parameters, annotated with logical axis names.
      objective: (params, row keys, batch) -> (loss, metrics).
      row: shape and dtype of every array of one example, a tree.
      flops: model FLOPs of one example, forward and backward, by part of the model.
      patch_volume: latents in a patch, by which weights of fewer channels are widened (`models.growing`).
    """

    init: Callable[[jax.Array], Any]
    objective: Objective
    row: dict[str, Any]
    flops: Mapping[str, float]
    patch_volume: int = 1

    @property
    def flops_per_row(self) -> float:
        return sum(self.flops.values())


class Given(NamedTuple):
    """What runs of one program differ in, so that seeds and learning rates of a sweep share its compilation."""

    seed: np.ndarray | jax.Array
    rate: np.ndarray | jax.Array


class Program(NamedTuple):
    """Attributes:
    initialise: key -> a fresh state, every leaf created where it lives.
    step: (state, batch, given) -> (state, metrics), jitted, the state donated.
    given: the number of a step -> what it is given.
    state, batch: shapes, dtypes and shardings of the step's other arguments.
    """

    initialise: Callable[[jax.Array], states.State]
    step: Any
    given: Callable[[int], Given]
    state: states.State
    batch: dict[str, Any]


def check(config: ConfigDict) -> None:
    """What can be refused of a config before anything is made for its run.

    Raises:
      UsageError: a value beyond its limit, a mesh that these devices do not give, a batch that does not divide over it,
        an unknown optimizer, decay or dtype of gradients, or one that the model does not compute in, spikes of a single
        loss.
    """
    limits.check(config)
    mesh = whole_mesh(config.mesh.to_dict())
    with rules.in_force(config.get("rules", rules.DEFAULT)):
        check_batch(mesh, config.batch_size, config.microbatches)
    make_optimizer(config.optimizer, {})
    learning_rate(config.optimizer, config.steps)
    matrices_as(config.gradient_dtype, {})
    if config.stability.loss_spike and config.stability.window == 1:
        raise UsageError(
            "config.stability.window is 1, and one loss has no spread to look for a spike in: set it to 2 or more, or "
            "loss_spike to 0."
        )
    if config.gradient_dtype == "bfloat16" and config.get("model", {}).get("dtype") == "float32":
        raise UsageError(
            "config.gradient_dtype is bfloat16, to which matrices are rounded, and config.model.dtype float32, in "
            "which a model is sampled: set both to the same."
        )


def check_step(config: ConfigDict, learner: Learner) -> None:
    """Traces a step that several devices share; on one there is nothing to divide.

    Raises:
      UsageError: tokens, heads or widths that do not divide over the mesh, or what `make_program` refuses.
    """
    mesh = whole_mesh(config.mesh.to_dict())
    if mesh.size == 1:
        return
    with rules.in_force(config.get("rules", rules.DEFAULT)):
        made = make_program(config, learner, mesh)
        with jax.set_mesh(mesh):
            jax.eval_shape(made.step, made.state, made.batch, made.given(0))


def make_program(config: ConfigDict, learner: Learner, mesh: Mesh) -> Program:
    """The step of this config on this mesh; to be made and traced within `rules.in_force`, traced within the mesh.

    Raises:
      UsageError: a batch that does not divide over the mesh, or an unknown optimizer or dtype of gradients.
    """
    check_batch(mesh, config.batch_size, config.microbatches)
    # Parameters are made outside the mesh, from a single row, which would not divide over its devices.
    boxed = jax.eval_shape(learner.init, jax.eval_shape(lambda: jax.random.key(0)))
    names = rules.axis_names(boxed)
    optimizer = make_optimizer(config.optimizer, names)
    stability = config.stability
    limits = Limits(stability.loss_spike, stability.norm_spike, stability.window)
    view = matrices_as(config.gradient_dtype, names)
    seed = np.int64(config.seed).astype(np.int32)  # as jax.random.key takes a Python integer
    rates = np.asarray(jax.vmap(learning_rate(config.optimizer, config.steps))(jnp.arange(config.steps)))

    def step(state: states.State, batch: dict[str, Any], given: Given) -> Any:
        taken = make_step(
            learner.objective,
            optimizer,
            lambda _: given.rate,
            seed=given.seed,
            ema_decay=config.ema_decay,
            limits=limits,
            microbatches=config.microbatches,
            view=view,
        )
        return taken(state, batch)

    on_host = config.get("host_memory", ())
    state = states.abstract(learner.init, optimizer, mesh, on_host)
    if on_host:
        step = _through_device_memory(step, jax.tree.map(lambda leaf: leaf.sharding, state))
    place = batch_sharding(mesh)
    number = jax.ShapeDtypeStruct((), "int32")
    row = {**learner.row, "row": number, "index": number}
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.batch_size, *x.shape), x.dtype, sharding=place), row)
    jitted = jax.jit(
        step,
        donate_argnums=0,
        # The state stays where it was, or the next step would compile again; metrics are whole on every device.
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), NamedSharding(mesh, P())),
        compiler_options=compiling.options(mesh.devices.flat[0]),
    )
    initialise = partial(states.initialise, learner.init, optimizer, mesh=mesh, on_host=on_host)
    return Program(initialise, jitted, lambda number: Given(seed, rates[number]), state, batch)


def _through_device_memory(step: Callable[..., Any], places: states.State) -> Callable[..., Any]:
    """A step on a state that rests in host memory in part: that part is fetched, used, and put back."""

    def move(state: states.State, kind: str) -> states.State:
        def one(leaf: jax.Array, place: NamedSharding) -> jax.Array:
            return jax.device_put(leaf, place.with_memory_kind(kind)) if place.memory_kind == "pinned_host" else leaf

        return jax.tree.map(one, state, places)

    def moved(state: states.State, *rest: Any) -> Any:
        state, metrics = step(move(state, "device"), *rest)
        return move(state, "pinned_host"), metrics

    return moved
