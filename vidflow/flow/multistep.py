"""Solvers that remember: a step uses what the network said at the step before it.

On a Gaussian path the flow is a linear equation driven by the predicted datum D(x, t). With l = log(alpha / sigma),
which grows by h in a step, its exact solution is

    x' = (sigma' / sigma) x + alpha' (the integral of exp(l - l') D dl over the step),

so only D is extrapolated (Lu et al. 2022, eq. 9). Every step is then x' = a x + b D + c D_before, and these numbers
follow from path and times alone: they are tables in float64, made before anything is traced.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vidflow.errors import UsageError
from vidflow.flow import paths, targets
from vidflow.flow.paths import Path
from vidflow.flow.solvers import Solver, Times, Velocity

# Growth of log(alpha / sigma) in a step, above which D is not extrapolated. In the last step of most schedules it grows
# by 8 or without end, in the one before by 0.7: the slope of D there says nothing of so far ahead.
LEAP = 4.0


class Point(NamedTuple):
    """A time on the path: alpha, sigma, and log(alpha / sigma), infinite at an end that lacks one of them."""

    alpha: float
    sigma: float
    log_snr: float


def ddim(path: Path) -> Solver:
    """First order: the datum is taken as constant through a step (Song et al. 2021, eq. 12, eta = 0)."""
    return lambda velocity, x0, times: _run(path, velocity, x0, times, second=False, corrects=False)


def dpm_solver(path: Path) -> Solver:
    """DPM-Solver++(2M), second order, one evaluation a step (Lu et al. 2022, algorithm 2)."""
    return lambda velocity, x0, times: _run(path, velocity, x0, times, second=True, corrects=False)


def unipc(path: Path) -> Solver:
    """UniPC-2 with B(h) = exp(h) - 1, one evaluation a step (Zhao et al. 2023, algorithms 5 and 6): third order where
    log(alpha / sigma) is finite and no step leaps, second from pure noise to pure data.

    Its predictor is DPM-Solver++(2M)'s step; the next evaluation also corrects the step that led to it.
    """
    return lambda velocity, x0, times: _run(path, velocity, x0, times, second=True, corrects=True)


def _run(
    path: Path, velocity: Velocity, x0: Float[Array, "B ..."], times: Times, second: bool, corrects: bool
) -> Float[Array, "B ..."]:
    if second and len(times) < 3:
        raise UsageError(
            "A solver of second order by history needs 2 steps, and there is 1: raise --steps, or take "
            "config.sampling.solver=ddim."
        )
    points = _points(path, times)
    predictors = [_predictor(points, i, second) for i in range(len(times) - 1)]
    correctors = [_corrector(points, i) if corrects else _KEPT for i in range(len(times) - 1)]
    rows = tuple(jnp.asarray(np.asarray(table), x0.dtype) for table in (times[:-1], predictors, correctors))
    source, wanted = targets.velocity(), targets.data()

    def step(carry: tuple[Array, ...], row: tuple[Array, ...]) -> tuple[tuple[Array, ...], None]:
        predicted, x_before, before, earlier = carry
        t, (a, b, c), (kept, p, q, r, s) = row
        now = targets.convert(source, wanted, path, velocity(predicted, t), predicted, t)
        x = predicted
        if corrects:
            x = kept * predicted + p * x_before + q * before + r * earlier + s * now
        return (a * x + b * now + c * before, x, now, before), None

    return jax.lax.scan(step, (x0, *3 * [jnp.zeros_like(x0)]), rows)[0][0]


_KEPT = (1.0, 0.0, 0.0, 0.0, 0.0)  # the predicted x stands


def _predictor(points: list[Point], i: int, second: bool) -> tuple[float, float, float]:
    """(a, b, c) of the step from point i, with the evaluations there and at the point before it."""
    now, then = points[i], points[i + 1]
    drift = then.sigma / now.sigma
    gain = then.alpha - drift * now.alpha  # alpha' (1 - exp(-h)), finite at both ends
    if not second or i == 0 or not _finite(points[i - 1 : i + 1]) or then.log_snr - now.log_snr > LEAP:
        return drift, gain, 0.0
    ratio = (now.log_snr - points[i - 1].log_snr) / (then.log_snr - now.log_snr)
    return drift, gain * (1.0 + 0.5 / ratio), -gain * 0.5 / ratio


def _corrector(points: list[Point], i: int) -> tuple[float, float, float, float, float]:
    """What x becomes at point i, of: itself as predicted, x at the point before, and the evaluations at the point
    before, at the one before that, and here."""
    if i == 0 or not _finite(points[i - 1 : i + 1]):
        return _KEPT
    before, now = points[i - 1], points[i]
    drift = now.sigma / before.sigma
    gain = now.alpha - drift * before.alpha
    if i == 1 or not _finite(points[i - 2 : i - 1]):
        return 0.0, drift, 0.5 * gain, 0.0, 0.5 * gain
    h = now.log_snr - before.log_snr
    ratio = (points[i - 2].log_snr - before.log_snr) / h
    # Weights with which the corrector is exact for D that is constant, linear and quadratic in l.
    growth = np.expm1(-h)
    linear = -growth / h - 1.0
    quadratic = -linear / h - 0.5
    old, new = np.linalg.solve([[1.0, 1.0], [ratio, 1.0]], np.array([linear, 2.0 * quadratic]) / growth)
    return 0.0, drift, gain * (1.0 - old / ratio - new), gain * old / ratio, gain * new


def _finite(points: list[Point]) -> bool:
    return all(np.isfinite(point.log_snr) for point in points)


def _points(path: Path, times: Times) -> list[Point]:
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        t = jnp.asarray(np.asarray(times, np.float64))
        columns = [np.asarray(f(t)) for f in (path.alpha, path.sigma, lambda t: paths.log_snr(path, t))]
    return [Point(*map(float, row)) for row in zip(*columns, strict=True)]
