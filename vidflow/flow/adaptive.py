"""Steps as long as the error allows: Dormand and Prince's fifth-order pair, by diffrax."""

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vidflow.errors import UsageError
from vidflow.flow.solvers import Solver, Times, Velocity

MOST_STEPS = 4096


def dormand_prince(tolerance: float = 1e-5) -> Solver:
    """Fifth order, six evaluations a step (Dopri5). Of the times only the first and the last count.

    tolerance: of the error of a step, relative and absolute; 0 takes the times as they are, without control.
    The whole batch shares its steps, so their number depends on its rows; samples agree to the tolerance only. Where
    4,096 steps do not reach the last time, they are NaN.

    Raises:
      UsageError: a tolerance below 0, which no error keeps to.
    """
    if not tolerance >= 0.0:
        raise UsageError(f"No error keeps to a tolerance of {tolerance:g}: give 0 or more in config.sampling.solver.")

    def solve(velocity: Velocity, x0: Float[Array, "B ..."], times: Times) -> Float[Array, "B ..."]:
        times = np.asarray(times)
        if tolerance:
            control, most = diffrax.PIDController(rtol=tolerance, atol=tolerance), MOST_STEPS
        else:
            control, most = diffrax.StepTo(ts=jnp.asarray(times, x0.dtype)), len(times)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, x, _: velocity(x, t)),
            diffrax.Dopri5(),
            t0=jnp.asarray(times[0], x0.dtype),
            t1=jnp.asarray(times[-1], x0.dtype),
            dt0=None,
            y0=x0,
            stepsize_controller=control,
            max_steps=most,
            throw=False,
        )
        return jnp.where(solution.result == diffrax.RESULTS.successful, solution.ys[-1], jnp.nan)

    return solve
