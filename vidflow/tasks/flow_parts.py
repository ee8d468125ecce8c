"""The mathematics that `config.flow` and `config.sampling` name."""

from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vidflow.choices import choose, options
from vidflow.errors import UsageError
from vidflow.flow import (
    adaptive,
    couplings,
    guidance,
    multistep,
    objectives,
    paths,
    schedules,
    solvers,
    stochastic,
    targets,
    times,
)
from vidflow.typing import RowKeys


class Part(NamedTuple):
    """A config value that names a function.

    Attributes:
      kind: what the function returns.
      modules: where it is looked for.
      given: its arguments that no config holds.
    """

    kind: Any
    modules: tuple[ModuleType, ...]
    given: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Of the functions that there are."""
        return list(options(self.kind, *self.modules, given=self.given))


PARTS = {
    "flow.path": Part(paths.Path, (paths,)),
    "flow.target": Part(targets.Target, (targets,)),
    "flow.times": Part(times.TimeDensity, (times,)),
    "flow.coupling": Part(couplings.Coupling, (couplings,)),
    "sampling.solver": Part(solvers.Solver, (solvers, multistep, adaptive, stochastic), ("path", "keys")),
    "sampling.schedule": Part(schedules.Schedule, (schedules,)),
    "sampling.guidance_shape": Part(guidance.Scale, (guidance,), ("scale", "times")),
}


def make_recipe(flow: ConfigDict) -> objectives.Recipe:
    """Path, target, times and coupling of training.

    Raises:
      UsageError: a name or an argument that there is not, or what is no path or no density of times.
    """
    parts = {name: _made(f"flow.{name}", flow[name]) for name in ("path", "target", "times", "coupling")}
    paths.check(parts["path"])
    times.check(parts["times"])
    return objectives.Recipe(**parts, per_frame=flow.per_frame, stratified=flow.stratified)


def make_path(flow: ConfigDict) -> paths.Path:
    return _made("flow.path", flow.path)


def make_target(flow: ConfigDict) -> targets.Target:
    return _made("flow.target", flow.target)


def make_solver(sampling: ConfigDict, path: paths.Path, keys: RowKeys) -> solvers.Solver:
    """`keys`: of the rows, for solvers that draw noise."""
    return _made("sampling.solver", sampling.solver, path=path, keys=keys)


def make_sampling_times(config: ConfigDict, steps: int) -> schedules.Times:
    """Those of `config.sampling` for that many steps.

    Raises:
      UsageError: fewer steps than the schedule needs, or times at which the target of `config.flow` does not determine
        the velocity.
    """
    sampling = config.sampling
    times = schedules.within(_made("sampling.schedule", sampling.schedule)(steps), sampling.start, sampling.end)
    targets.check(make_target(config.flow), make_path(config.flow), times[:-1])
    return times


def make_scale(sampling: ConfigDict, scale: float, at: schedules.Times) -> guidance.Scale:
    """The scale of guidance over time, for a solver that evaluates at the times `at`."""
    return _made("sampling.guidance_shape", sampling.guidance_shape, scale=scale, times=at)


def check_sampling(config: ConfigDict) -> None:
    """What sampling by `config.sampling` refuses, without a model.

    Raises:
      UsageError: a name or an argument that there is not, or settings that do not go together or with `config.flow`.
    """
    sampling, times = config.sampling, make_sampling_times(config, config.sampling.steps)
    make_scale(sampling, sampling.guidance, times)
    solver = make_solver(sampling, make_path(config.flow), jax.random.split(jax.random.key(0), 1))

    def is_solved(last: float) -> bool:
        """Whether a field that has this value at the last time, and is finite before, gives a finite sample."""
        x = jax.jit(lambda x: solver(lambda x, t: jnp.where(t < times[-1], x, last), x, times))(jnp.zeros((1, 1)))
        return bool(jnp.isfinite(x).all())

    if not is_solved(0.0):
        raise UsageError(
            f"config.sampling.solver={sampling.solver} takes the velocity apart into datum and noise, which the path "
            f"{config.flow.path} does not allow at some of these times: set config.sampling.start a little inside, or "
            "take another solver."
        )
    if not is_solved(jnp.nan):  # it asks for the velocity there
        targets.check(make_target(config.flow), make_path(config.flow), times[-1:])


def _made(name: str, spec: str, **given: Any) -> Any:
    part = PARTS[name]
    return choose(spec, part.kind, *part.modules, where=f"config.{name}", **given)
