"""Sampling schedules: the increasing times at which a solver evaluates the model, from 0 (noise) to 1 (data)."""

import numpy as np
from jaxtyping import Float

from vidflow.errors import UsageError


def uniform(steps: int) -> Float[np.ndarray, "steps_plus_one"]:
    """`steps` equal steps."""
    _check(steps, least=1)
    return np.linspace(0.0, 1.0, steps + 1)


def linear_quadratic(steps: int, reference: int = 250) -> Float[np.ndarray, "steps_plus_one"]:
    """Half the steps as small as those of a `reference`-step uniform schedule, the rest growing quadratically.

    Movie Gen, section 3.4.2, gives the idea (the early steps matter most) and not the quadratic; this is the form
    whose slope is continuous at the joint. With L = steps // 2 linear steps of 1 / reference and Q = steps - L:
    f(L + j) = (L + j) / reference + (1 - steps / reference) (j / Q)^2.

    Raises:
      UsageError: fewer than 2 steps, or a reference with fewer steps than `steps`.
    """
    _check(steps, least=2)
    if reference < steps:
        raise UsageError(
            f"A linear-quadratic schedule of {steps} steps needs a reference of at least {steps} uniform steps, "
            f"not {reference}: raise config.sampling.reference or lower the steps."
        )
    linear = steps // 2
    index = np.arange(steps + 1)
    excess = np.maximum(index - linear, 0) / (steps - linear)
    return index / reference + (1.0 - steps / reference) * excess**2


def _check(steps: int, least: int) -> None:
    if steps < least:
        raise UsageError(f"This schedule needs at least {least} sampling step(s), not {steps}: raise --steps.")
