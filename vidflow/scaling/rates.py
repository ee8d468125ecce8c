"""The best learning rate and batch size over model size and tokens (Yin et al. 2024, section 3).

For each model and length, the loss over (log learning rate, log batch size) is close to a quadratic surface; its
minimum is the best pair. Their logarithms are linear in those of parameters and tokens:

    best = coefficient * tokens^p * parameters^q
"""

from typing import NamedTuple

import numpy as np

from vidflow.errors import UsageError
from vidflow.scaling.laws import Values, percentiles

NAMES = ("rate", "batch")


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


def best_rate(rate: Values, loss: Values) -> float:
    """The minimum of a parabola over the logarithm of the learning rate.

    Raises:
      UsageError: fewer than three rates, or a minimum beyond them.
    """
    return float(np.exp(_Surface.of(np.log(rate)[:, None], loss, ("learning rates",)).checked()[0]))


def best_pair(rate: Values, batch: Values, loss: Values) -> tuple[float, float]:
    """The minimum of a quadratic surface over the logarithms: learning rate, batch size.

    Raises:
      UsageError: fewer than three values of either, fewer than six pairs, or a minimum beyond them.
    """
    rate_, batch_ = np.exp(_surface(Trained(np.zeros_like(rate), np.zeros_like(rate), rate, batch, loss)).checked())
    return float(rate_), float(batch_)


def fit(runs: Trained, resamples: int = 200, seed: int = 0) -> dict[str, Fitted]:
    """The rules of `rate` and `batch`.

    Intervals are of a residual bootstrap: each run gets another run's deviation from its surface, widened by the
    freedom that the surfaces took; data sets in which a surface has no minimum are left out.

    Raises:
      UsageError: as `best_pair`, or too few models and lengths to tell their parts apart.
    """
    pairs = sorted(set(zip(runs.parameters.tolist(), runs.tokens.tolist(), strict=True)))
    chosen = [(runs.parameters == parameters) & (runs.tokens == tokens) for parameters, tokens in pairs]
    surfaces = [_surface(Trained(*(column[some] for column in runs))) for some in chosen]
    best = np.array([surface.checked() for surface in surfaces])
    design = np.stack([np.ones(len(pairs)), *np.log(np.array(pairs)).T[::-1]], axis=1)  # 1, tokens, parameters
    if len(pairs) < 3 or np.linalg.matrix_rank(design) < 3:
        raise UsageError("Models and lengths grow together here: train two sizes or more, one of them for two lengths.")
    rng = np.random.default_rng(seed)
    deviations = np.concatenate([surface.deviations() for surface in surfaces])
    again = []
    for _ in range(resamples):
        drawn = [surface.redrawn(rng.choice(deviations, len(surface.loss))).lowest() for surface in surfaces]
        again += [np.stack(drawn)] if all(at is not None for at in drawn) else []
    rules = [_rules(design, found) for found in (best, *again)]
    return {name: Fitted(rules[0][place], [each[place] for each in rules[1:]]) for place, name in enumerate(NAMES)}


def _rules(design: np.ndarray, best: np.ndarray) -> list[Rule]:
    """Of each column of the logarithms of best values."""
    constants = np.linalg.lstsq(design, best, rcond=None)[0]
    return [Rule(float(np.exp(column[0])), *map(float, column[1:])) for column in constants.T]


def _surface(runs: Trained) -> "_Surface":
    x = np.log(np.stack([runs.rate, runs.batch], axis=1))
    return _Surface.of(x, runs.loss, ("learning rates", "batch sizes"))


class _Surface(NamedTuple):
    """loss = design @ constants, a quadratic of least squares over the columns of x."""

    x: np.ndarray
    loss: np.ndarray
    names: tuple[str, ...]
    design: np.ndarray
    constants: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, loss: np.ndarray, names: tuple[str, ...]) -> "_Surface":
        """Raises UsageError: too few values of a column, or pairs."""
        for column, name in zip(x.T, names, strict=True):
            if len(set(column.tolist())) < 3:
                raise UsageError(f"A minimum over {name} needs at least three of them.")
        u, upper = x - x.mean(axis=0), np.triu_indices(x.shape[1])
        design = np.concatenate([np.ones((len(u), 1)), u, u[:, upper[0]] * u[:, upper[1]]], axis=1)
        if np.linalg.matrix_rank(design) < design.shape[1]:
            raise UsageError(f"Too few pairs of {' and '.join(names)} for a surface of {design.shape[1]} constants.")
        return cls(x, loss, names, design, np.linalg.lstsq(design, loss, rcond=None)[0])

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
        n = self.x.shape[1]
        square = np.zeros((n, n))
        square[np.triu_indices(n)] = self.constants[1 + n :]
        hessian = square + square.T
        if not np.all(np.linalg.eigvalsh(hessian) > 0):
            return None
        return np.linalg.solve(hessian, -self.constants[1 : 1 + n]) + self.x.mean(axis=0)

    def checked(self) -> np.ndarray:
        """Where the minimum is.

        Raises:
          UsageError: beyond the values that were tried, or nowhere.
        """
        at = self.lowest()
        for column, name, best in zip(self.x.T, self.names, [np.nan] * 2 if at is None else at, strict=False):
            if not column.min() <= best <= column.max():
                larger = np.polyfit(column, self.loss, 1)[0] < 0
                way, end = ("larger", column.max()) if larger else ("smaller", column.min())
                raise UsageError(
                    f"The best of the {name} lies beyond those tried: try {way} ones than {np.exp(end):.3g}."
                )
        return at
