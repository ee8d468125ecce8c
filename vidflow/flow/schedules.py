"""Sampling schedules: the increasing times at which a solver evaluates the model, from 0 (noise) to 1 (data).

A schedule is a function of the number of steps, named in a config by the function that makes it: "uniform",
"linear_quadratic:reference=250", "shifted:factor=7".
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from vidflow.errors import UsageError
from vidflow.flow.times import shift

Times = Float[np.ndarray, "steps_plus_one"]
Schedule = Callable[[int], Times]


def uniform() -> Schedule:
    """Equal steps."""
    return _grid


def linear_quadratic(reference: int = 250) -> Schedule:
    """Half the steps as small as those of a `reference`-step uniform schedule, the rest growing quadratically.

    Movie Gen, section 3.4.2, gives the idea (the early steps matter most) and not the quadratic; this is the form
    whose slope is continuous at the joint. With L = steps // 2 linear steps of 1 / reference and Q = steps - L:
    f(L + j) = (L + j) / reference + (1 - steps / reference) (j / Q)^2.

    Its schedules raise UsageError for fewer than 2 steps, or more than `reference`.
    """

    def times(steps: int) -> Times:
        _check(steps, least=2)
        if reference < steps:
            raise UsageError(
                f"A linear-quadratic schedule of {steps} steps needs a reference of at least {steps} uniform steps, "
                f"not {reference}: raise it in config.sampling.schedule or lower the steps."
            )
        linear = steps // 2
        index = np.arange(steps + 1)
        excess = np.maximum(index - linear, 0) / (steps - linear)
        return index / reference + (1.0 - steps / reference) * excess**2

    return times


def shifted(factor: float = 3.0) -> Schedule:
    """Equal steps moved towards the noise (`times.shift`), as SD3's and HunyuanVideo's are."""
    return lambda steps: shift(_grid(steps), factor)


def cosine() -> Schedule:
    """1 - cos(pi u / 2): small steps near the noise, large ones near the data."""
    return lambda steps: 1.0 - np.cos(0.5 * np.pi * _grid(steps))


def within(times: Times, start: float = 0.0, end: float = 1.0) -> Times:
    """The schedule drawn together to [start, end], for targets that say nothing at an end of the path.

    Raises:
      UsageError: not 0 <= start < end <= 1, or times that do not grow.
    """
    if not np.all(np.diff(times) > 0.0):
        raise UsageError("The times of config.sampling.schedule do not grow from step to step: correct its arguments.")
    if not 0.0 <= start < end <= 1.0:
        raise UsageError(f"Sampling goes from 0 <= start < end <= 1, not from {start:g} to {end:g}: correct them.")
    return start + (end - start) * times


def _grid(steps: int) -> Times:
    _check(steps, least=1)
    return np.linspace(0.0, 1.0, steps + 1)


def _check(steps: int, least: int) -> None:
    if steps < least:
        raise UsageError(f"This schedule needs at least {least} sampling step(s), not {steps}: raise --steps.")
