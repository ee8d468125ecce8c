"""The training loop: what a run does, in the order it does it."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vidflow.data import pipeline
from vidflow.errors import Preempted, UsageError
from vidflow.parallel import rules
from vidflow.parallel.devices import peak_flops
from vidflow.parallel.mesh import batch_sharding, whole_mesh
from vidflow.training import hosts, run_folder
from vidflow.training import state as states
from vidflow.training.preemption import Notice
from vidflow.training.program import Learner, Program, make_program
from vidflow.training.saving import Saving
from vidflow.training.telemetry import Telemetry, check_name
from vidflow.training.warm_start import start_from


class Task(NamedTuple):
    """What is trained. The loop knows nothing else of it.

    Attributes:
      learner: the step's part.
      source: examples by index.
      finish: called with the averaged parameters once the run is complete, on the first process alone; writes what
        others will use.
    """

    learner: Learner
    source: pipeline.Source
    finish: Callable[[Any], None]


def train(config: ConfigDict, workdir: Path, task: Task) -> None:
    """Trains `task` to `config.steps`, going on from the newest checkpoint in `workdir` if there is one.

    Raises:
      UsageError: a mesh, batch or optimizer that cannot be, a metric that there is not, a checkpoint of another model,
        too many steps skipped.
      Preempted: the run was told to stop, and is saved.
    """
    mesh = whole_mesh(config.mesh.to_dict())
    with rules.in_force(config.get("rules", rules.DEFAULT)):
        program = make_program(config, task.learner, mesh)
        if config.checkpoint.best:
            with jax.set_mesh(mesh):
                _, metrics = jax.eval_shape(program.step, program.state, program.batch, program.given(0))
            check_name(config.checkpoint.best, metrics)
        with Saving(config.checkpoint, workdir, mesh, program.state) as saving:
            state = saving.newest() or _first_state(config, task, program)
            if int(state.step) > config.steps:
                raise UsageError(
                    f"{workdir} has taken {int(state.step)} steps already: set --config.steps to no fewer."
                )
            if int(state.step) < config.steps:
                with jax.set_mesh(mesh), Notice() as notice:
                    state = _run_steps(config, workdir, task, mesh, program, state, saving, notice)
    averaged = hosts.gather(state.ema)
    hosts.on_first(task.finish, averaged)
    hosts.on_first(run_folder.mark_finished, workdir, config.steps)


def _first_state(config: ConfigDict, task: Task, program: Program) -> states.State:
    fresh = program.initialise(jax.random.key(config.seed))
    return start_from(Path(config.init_from), fresh, task.learner.patch_volume) if config.init_from else fresh


def _run_steps(
    config: ConfigDict,
    workdir: Path,
    task: Task,
    mesh: Mesh,
    program: Program,
    state: states.State,
    saving: Saving,
    notice: Notice,
) -> states.State:
    """The loop proper. Resuming relies on this order of operations; do not change it lightly.

    1. The state says how many steps it holds: with s of them, the next step is s.
    2. batch(s) is read; it is a function of (seed, s), and no position in the data is carried.
    3. Step s runs; its randomness is a function of (seed, s, row).
    4. Its metrics are handed over; nothing waits for the device.
    5. When a save is due after s + 1 steps, or they are all, or the run is told to stop, metrics are written out and
       then the state is saved as s + 1: so no checkpoint is ever ahead of metrics.jsonl.
    """
    start = int(state.step)
    dataset = pipeline.rows(task.source, seed=config.seed)
    batches = pipeline.batches(
        dataset, batch_size=config.batch_size, start=start, sharding=batch_sharding(mesh), threads=config.data.threads
    )
    telemetry = Telemetry(
        workdir,
        start=start,
        steps=config.steps,
        every=config.log_every,
        window=config.checkpoint.every,
        rows=config.batch_size,
        flops=task.learner.flops_per_row * config.batch_size,
        peak=peak_flops(math.prod(mesh.shape.values())),
        max_skips=config.stability.max_skips,
        examples=partial(pipeline.indices, task.source, seed=config.seed, batch_size=config.batch_size),
    )
    for s in range(start, config.steps):
        batch = next(batches)
        state, metrics = program.step(state, batch, program.given(s))
        telemetry.step(s, metrics)
        if s == start:
            telemetry.flush()  # the first step compiles: keep it out of the throughput of the next ones
        told, last = notice.reached(s), s + 1 == config.steps
        if saving.is_due(s + 1) or told or last:
            telemetry.flush()
            saving.save(state, s + 1, telemetry, surely=told or last)
            telemetry.pause()
        if told and not last:
            telemetry.close()
            saving.wait()
            saved = f"Told to stop: saved step {s + 1} of {config.steps}; the same command goes on."
            raise Preempted(saved, config.preemption_code)
    telemetry.close()
    return state
