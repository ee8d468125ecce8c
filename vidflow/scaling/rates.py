"""The best learning rate and batch size over model size and tokens (Yin et al. 2024, section 3).

For each model and length, the loss over (log learning rate, log batch size) is close to a quadratic surface; its
minimum is the best pair. Their logarithms are linear in those of parameters and tokens:

    best = coefficient * tokens^p * parameters^q
"""

from typing import NamedTuple

import numpy as np

from vidflow.errors import UsageError
from vidflow.scaling.laws import Values


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


def best_rate(rate: Values, loss: Values) -> float:
    """The minimum of a parabola over the logarithm of the learning rate.

    Raises:
      UsageError: fewer than three rates, or a minimum beyond them.
    """
    (found,) = _minimum(np.log(rate)[:, None], loss, ("learning rates",))
    return found


def best_pair(rate: Values, batch: Values, loss: Values) -> tuple[float, float]:
    """The minimum of a quadratic surface over the logarithms: learning rate, batch size.

    Raises:
      UsageError: fewer than three values of either, fewer than six pairs, or a minimum beyond them.
    """
    rate_, batch_ = _minimum(np.log(np.stack([rate, batch], axis=1)), loss, ("learning rates", "batch sizes"))
    return rate_, batch_


def fit(runs: Trained) -> dict[str, Rule]:
    """The rules of `rate` and `batch`.

    Raises:
      UsageError: as `best_pair`, or too few models and lengths to tell their parts apart.
    """
    pairs = sorted(set(zip(runs.parameters.tolist(), runs.tokens.tolist(), strict=True)))
    found = []
    for parameters, tokens in pairs:
        chosen = (runs.parameters == parameters) & (runs.tokens == tokens)
        found.append(best_pair(runs.rate[chosen], runs.batch[chosen], runs.loss[chosen]))
    design = np.stack([np.ones(len(pairs)), *np.log(np.array(pairs)).T[::-1]], axis=1)  # 1, tokens, parameters
    if len(pairs) < 3 or np.linalg.matrix_rank(design) < 3:
        raise UsageError("Models and lengths grow together here: train two sizes or more, one of them for two lengths.")
    constants = np.linalg.lstsq(design, np.log(np.array(found)), rcond=None)[0]
    return {
        name: Rule(float(np.exp(column[0])), *map(float, column[1:]))
        for name, column in zip(("rate", "batch"), constants.T, strict=True)
    }


def _minimum(x: np.ndarray, loss: np.ndarray, names: tuple[str, ...]) -> list[float]:
    """Of the quadratic of least squares over the columns of x, back from logarithms."""
    for column, name in zip(x.T, names, strict=True):
        if len(set(column.tolist())) < 3:
            raise UsageError(f"A minimum over {name} needs at least three of them.")
    n = x.shape[1]
    centre = x.mean(axis=0)
    u = x - centre
    upper = np.triu_indices(n)
    design = np.concatenate([np.ones((len(u), 1)), u, u[:, upper[0]] * u[:, upper[1]]], axis=1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise UsageError(f"Too few pairs of {' and '.join(names)} for a surface of {design.shape[1]} constants.")
    constants = np.linalg.lstsq(design, loss, rcond=None)[0]
    square = np.zeros((n, n))
    square[upper] = constants[1 + n :]
    hessian = square + square.T
    at = np.linalg.solve(hessian, -constants[1 : 1 + n]) + centre if np.all(np.linalg.eigvalsh(hessian) > 0) else None
    for column, name, best in zip(x.T, names, at if at is not None else [np.nan] * n, strict=True):
        if not column.min() <= best <= column.max():
            way, end = ("larger", column.max()) if np.polyfit(column, loss, 1)[0] < 0 else ("smaller", column.min())
            raise UsageError(f"The best of the {name} lies beyond those tried: try {way} ones than {np.exp(end):.3g}.")
    return np.exp(at).tolist()
