"""The parametric method (Hoffmann et al. 2022, approach 3): one formula for the loss of every model at every length.

    L(N, D) = E + A / N^alpha + B / D^beta

Constants minimise Huber's loss of the difference of logarithms (delta 1e-3), from several starts, so that single bad
runs do not pull. Under C = k N D the best model of a budget is a power law of it.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy.special import logsumexp

from vidflow.errors import UsageError
from vidflow.scaling import laws
from vidflow.scaling.isoflop import Parabola, Points
from vidflow.scaling.laws import Fitted, PowerLaw

DELTA = 1e-3
GRID = 2000  # sizes looked at
NARROW = "intervals of a formula are narrow: in trials with 0.1% of noise they held the truth 52 times in 60"
FLAT, STEEP = 0.01, 10.0  # powers beyond which a term is as good as a part of the floor, or as a wall
FLOPS_SPREAD = 0.1  # of log (flops / parameters / tokens), beyond which C = k N D is not what was counted


class Loss(NamedTuple):
    """Constants of L(N, D) = floor + a / N^alpha + b / D^beta."""

    floor: float
    a: float
    alpha: float
    b: float
    beta: float

    def __call__(self, parameters: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
        return self.floor + self.a * np.power(parameters, -self.alpha) + self.b * np.power(tokens, -self.beta)

    def best(self, flops_per: float) -> dict[str, PowerLaw]:
        """The best `parameters` and `tokens`, and the `loss` that they reach, over the budget flops_per * N * D.

        Hoffmann et al., equation 4; the loss falls towards the floor as C^(-alpha beta / (alpha + beta)).
        """
        both = self.alpha + self.beta
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / both)
        n, d = self.beta / both, self.alpha / both
        parameters, tokens = PowerLaw(ratio * flops_per**-n, n), PowerLaw(flops_per**-d / ratio, d)
        reducible = self.a * parameters.coefficient**-self.alpha + self.b * tokens.coefficient**-self.beta
        loss = PowerLaw(reducible, -self.alpha * n, self.floor)
        return {"parameters": parameters, "tokens": tokens, "loss": loss}


def fit(points: Points) -> Loss:
    """The law of least deviation.

    Raises:
      UsageError: fewer than six points, parameters or tokens that do not vary by themselves, or a loss that is not seen
        to fall with one of them.
    """
    _check(points)
    powers = (0.1, 0.3, 0.6)
    law = _best_of(_starts(points, [*itertools.product((0.05, 0.5, 0.9), powers, powers)]), points)
    for name, power in (("parameters", law.alpha), ("tokens", law.beta)):
        if not _is_seen(power):
            raise UsageError(
                f"The formula does not see how the loss falls with the {name} (power {power:.2g}): train more sizes "
                "and lengths, or more seeds, or use --method=isoflop."
            )
    return law


def fit_with_intervals(points: Points, resamples: int = 200, seed: int = 0) -> tuple[Loss, list[Loss], list[str]]:
    """The law, that of each resampled data set which shows one, and what a reader should know of the intervals.

    Deviations of the logarithm of the loss are dealt out again, widened as `laws.widening` says. Even so intervals are
    narrow: of 60 data sets with 0.1% of noise those of the best parameters' exponent held the truth in 52.

    Raises:
      UsageError: as `fit`, or noise in which too many laws are lost.
    """
    law = fit(points)
    smooth = law(points.parameters, points.tokens)
    count = len(points.loss)
    deviations = (np.log(points.loss) - np.log(smooth)) * laws.widening(count, 5)
    rng, again = np.random.default_rng(seed), []
    starts = [_scaled(law, points), *_starts(points, [(0.5, power, power) for power in (0.1, 0.3, 0.6)])]
    for _ in range(resamples):
        again.append(_best_of(starts, points._replace(loss=smooth * np.exp(rng.choice(deviations, count)))))
    shown = [other for other in again if _is_seen(other.alpha) and _is_seen(other.beta)]
    lost = laws.lost(1 - len(shown) / resamples, "the formula does not show how the loss falls with one of the two")
    return law, shown, [NARROW, *lost]


def best(law: Loss, again: list[Loss], points: Points) -> dict[str, Fitted]:
    """Laws of the best `parameters`, `tokens` and `loss` over the budget.

    Raises:
      UsageError: FLOPs that are not a constant times parameters times tokens, for which the formula has no such law.
    """
    per = np.log(points.flops / points.parameters / points.tokens)
    if np.ptp(per) > FLOPS_SPREAD:
        raise UsageError(
            f"FLOPs a parameter and token go from {np.exp(per.min()):.3g} to {np.exp(per.max()):.3g}, and the "
            "parametric method needs one number: add --convention=6ND, or use --method=isoflop."
        )
    flops_per = float(np.exp(per.mean()))
    flops = np.array([points.flops.min(), points.flops.max()])
    drawn = [other.best(flops_per) for other in again]
    fitted = {}
    for name, line in law.best(flops_per).items():
        coefficients, exponents, floors = np.array([other[name] for other in drawn]).T
        fitted[name] = Fitted(line, np.log(coefficients), exponents, floors, flops, line(flops))
    return fitted


def best_on(laws: Sequence[Loss], curve: Parabola) -> dict[str, np.ndarray]:
    """Of the models between the smallest and the largest of a budget, however its FLOPs were counted: the `parameters`,
    `tokens` and `loss` of the one that is best by each law."""
    sizes = curve.points.parameters
    parameters = np.geomspace(sizes.min(), sizes.max(), GRID)
    tokens = curve.along(curve.points.tokens, parameters)
    losses = np.stack([law(parameters, tokens) for law in laws])
    at = losses.argmin(axis=1)
    return {"parameters": parameters[at], "tokens": tokens[at], "loss": losses.min(axis=1)}


def _is_seen(power: float) -> bool:
    return FLAT <= power <= STEEP


def _starts(points: Points, shapes: Sequence[tuple[float, float, float]]) -> list[tuple]:
    """Scaled constants of which the floor is so large a part of the lowest loss, and of these powers."""
    low = np.log(points.loss.min())
    halves = [low + np.log([part, (1 - part) / 2]) for part, _, _ in shapes]
    return [(floor, half, alpha, half, beta) for (floor, half), (_, alpha, beta) in zip(halves, shapes, strict=True)]


def _best_of(starts: Sequence[tuple], points: Points) -> Loss:
    u, v = _centred(points.parameters), _centred(points.tokens)
    found = min((_solve(start, u, v, points.loss) for start in starts), key=lambda found: found.cost)
    return _unscaled(found.x, points)


def _solve(start: tuple, u: np.ndarray, v: np.ndarray, loss: np.ndarray) -> optimize.OptimizeResult:
    target = np.log(loss)

    def terms(c: np.ndarray) -> np.ndarray:
        return np.stack([np.full_like(u, c[0]), c[1] - c[2] * u, c[3] - c[4] * v])

    def residuals(c: np.ndarray) -> np.ndarray:
        return logsumexp(terms(c), axis=0) - target

    def jacobian(c: np.ndarray) -> np.ndarray:
        parts = terms(c)
        share = np.exp(parts - logsumexp(parts, axis=0))
        return np.stack([share[0], share[1], -u * share[1], share[2], -v * share[2]], axis=1)

    return optimize.least_squares(
        residuals, start, jac=jacobian, loss="huber", f_scale=DELTA, x_scale="jac", xtol=1e-9, ftol=1e-9, gtol=1e-9
    )


def _centred(values: np.ndarray) -> np.ndarray:
    return np.log(values) - np.log(values).mean()


def _unscaled(c: np.ndarray, points: Points) -> Loss:
    """Constants of parameters and tokens from those of their centred logarithms."""
    n, d = np.log(points.parameters).mean(), np.log(points.tokens).mean()
    with np.errstate(over="ignore"):  # of a power that is not seen
        return Loss(*map(float, (np.exp(c[0]), np.exp(c[1] + c[2] * n), c[2], np.exp(c[3] + c[4] * d), c[4])))


def _scaled(law: Loss, points: Points) -> tuple:
    n, d = np.log(points.parameters).mean(), np.log(points.tokens).mean()
    return np.log(law.floor), np.log(law.a) - law.alpha * n, law.alpha, np.log(law.b) - law.beta * d, law.beta


def _check(points: Points) -> None:
    if len(points.loss) < 6:
        raise UsageError(f"The formula of the loss has five constants, and {len(points.loss)} runs do not test it.")
    if not np.all(points.loss > 0):
        raise UsageError("The formula is of positive losses, and some here are not: leave those rows out.")
    logs = np.stack([_centred(points.parameters), _centred(points.tokens)])
    if np.linalg.svd(logs, compute_uv=False)[1] < 1e-3 * np.sqrt(len(points.loss)):
        raise UsageError(
            "Parameters and tokens grow together here, so their parts of the loss cannot be told apart: train models "
            "of other sizes for as many tokens."
        )
