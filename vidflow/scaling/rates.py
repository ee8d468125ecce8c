"""The best learning rate and batch size over model size and tokens (Yin et al. 2024, section 3).

For each model and length, the loss over (log learning rate, log batch size) is close to a quadratic surface; its
minimum is the best pair. Their logarithms are linear in those of parameters and tokens:

    best = coefficient * tokens^p * parameters^q
"""

from typing import NamedTuple

import numpy as np

from vidflow.errors import UsageError
from vidflow.scaling.isoflop import alike
from vidflow.scaling.laws import LOST, Values, percentiles

NAMES = ("rate", "batch")
TRIED = ("learning rates", "batch sizes")


class Trained(NamedTuple):
    """Runs, one to an index."""

    parameters: Values
    tokens: Values
    rate: Values
    batch: Values
    loss: Values


class Rule(NamedTuple):
    """best = coefficient * tokens ** of_tokens * parameters ** of_parameters."""

    coefficient: float
    of_tokens: float
    of_parameters: float

    def __call__(self, parameters: float, tokens: float) -> float:
        return float(self.coefficient * tokens**self.of_tokens * parameters**self.of_parameters)


class Fitted(NamedTuple):
    """A rule, and those of resampled data sets."""

    rule: Rule
    again: list[Rule]

    def predict(self, parameters: float, tokens: float) -> tuple[float, float, float]:
        """The best value and the ends of its 95% interval."""
        return self.rule(parameters, tokens), *percentiles(np.array([rule(parameters, tokens) for rule in self.again]))

    def interval(self, constant: str) -> tuple[float, float]:
        """The ends of the 95% interval of a constant of the rule."""
        return percentiles(np.array([getattr(rule, constant) for rule in self.again]))


def fit(runs: Trained, resamples: int = 200, seed: int = 0) -> dict[str, Fitted]:
    """The rules of `rate` and `batch`.

    Intervals are of a residual bootstrap: each run gets another run's deviation from its surface, widened by the
    freedom that the surfaces took; data sets in which a surface has no minimum are left out, up to a fifth of all.

    Raises:
      UsageError: fewer than three learning rates or batch sizes of a model and length, fewer than six pairs, or no more
        for any, a minimum beyond them, noise that hides it, or too few models and lengths to tell their parts apart.
    """
    groups = _groups(runs)
    surfaces = [_Surface.of(some) for some in groups]
    if all(len(surface.loss) == len(surface.constants) for surface in surfaces):
        raise UsageError("Surfaces go through all of their six pairs, which tells nothing of noise: train more pairs.")
    best = np.array([surface.checked() for surface in surfaces])
    design = np.array([(1.0, np.log(some.tokens).mean(), np.log(some.parameters[0])) for some in groups])
    if len(groups) < 3 or np.linalg.matrix_rank(design) < 3:
        raise UsageError("Models and lengths grow together here: train two sizes or more, one of them for two lengths.")
    rng = np.random.default_rng(seed)
    deviations = np.concatenate([surface.deviations() for surface in surfaces])
    again = []
    for _ in range(resamples):
        drawn = [surface.redrawn(rng.choice(deviations, len(surface.loss))).lowest() for surface in surfaces]
        again += [np.stack(drawn)] if all(at is not None for at in drawn) else []
    if len(again) < (1 - LOST) * resamples:
        raise UsageError(
            f"In {1 - len(again) / resamples:.0%} of data sets with noise like that of the runs no learning rate and "
            "batch size are best: train more seeds, or values that lie further apart."
        )
    rules = [_rules(design, found) for found in (best, *again)]
    return {name: Fitted(rules[0][place], [each[place] for each in rules[1:]]) for place, name in enumerate(NAMES)}


def _rules(design: np.ndarray, best: np.ndarray) -> list[Rule]:
    """Of each column of the logarithms of best values."""
    constants = np.linalg.lstsq(design, best, rcond=None)[0]
    return [Rule(float(np.exp(column[0])), *map(float, column[1:])) for column in constants.T]


def _groups(runs: Trained) -> list[Trained]:
    """The runs of each model and length. Batches of other sizes share a budget's tokens but for a rest of a step."""
    result = []
    for model in np.unique(runs.parameters):
        own = Trained(*(column[runs.parameters == model] for column in runs))
        result += [Trained(*(column[some] for column in own)) for some in alike(own.tokens)]
    return result


class _Surface(NamedTuple):
    """loss = design @ constants, a quadratic of least squares over the logarithms of learning rate and batch size."""

    x: np.ndarray
    loss: np.ndarray
    design: np.ndarray
    constants: np.ndarray

    @classmethod
    def of(cls, runs: Trained) -> "_Surface":
        """Raises UsageError: too few values of either, or pairs."""
        x = np.log(np.stack([runs.rate, runs.batch], axis=1))
        for column, name in zip(x.T, TRIED, strict=True):
            if len(set(column.tolist())) < 3:
                raise UsageError(
                    f"A minimum over {name} needs at least three of them, and the model of {runs.parameters[0]:.3g} "
                    f"parameters and {runs.tokens.mean():.3g} tokens has {len(set(column.tolist()))}: train more."
                )
        (u, v), ones = (x - x.mean(axis=0)).T, np.ones(len(x))
        design = np.stack([ones, u, v, u * u, u * v, v * v], axis=1)
        if np.linalg.matrix_rank(design) < design.shape[1]:
            raise UsageError(f"Too few pairs of {' and '.join(TRIED)} for a surface of {design.shape[1]} constants.")
        return cls(x, runs.loss, design, np.linalg.lstsq(design, runs.loss, rcond=None)[0])

    def redrawn(self, deviations: np.ndarray) -> "_Surface":
        """The surface of other data: its own values and these deviations from them."""
        loss = self.design @ self.constants + deviations
        return self._replace(loss=loss, constants=np.linalg.lstsq(self.design, loss, rcond=None)[0])

    def deviations(self) -> np.ndarray:
        """Of the losses, widened by the freedom that the constants took; none where there was no more than that."""
        free = len(self.loss) - len(self.constants)
        return (self.loss - self.design @ self.constants) * np.sqrt(len(self.loss) / max(free, 1))

    def lowest(self) -> np.ndarray | None:
        """Where the minimum is, in logarithms; None if there is none."""
        _, *slope, uu, uv, vv = self.constants
        hessian = np.array([[2 * uu, uv], [uv, 2 * vv]])
        if not np.all(np.linalg.eigvalsh(hessian) > 0):
            return None
        return self.x.mean(axis=0) - np.linalg.solve(hessian, slope)

    def checked(self) -> np.ndarray:
        """Where the minimum is.

        Raises:
          UsageError: beyond the values that were tried, or nowhere.
        """
        at = self.lowest()
        for column, name, best in zip(self.x.T, TRIED, [np.nan] * 2 if at is None else at, strict=True):
            if not column.min() <= best <= column.max():
                larger = np.polyfit(column, self.loss, 1)[0] < 0
                way, end = ("larger", column.max()) if larger else ("smaller", column.min())
                raise UsageError(
                    f"The best of the {name} lies beyond those tried: try {way} ones than {np.exp(end):.3g}."
                )
        return at
