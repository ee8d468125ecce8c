"""Results of sweeps whose laws are known."""

import numpy as np

from vidflow.scaling.isoflop import Points

# Coefficient and exponent of the best parameters as published (vidflow/assets/laws/published.json); Liang's loss is
# published too, the others' are made up.
LIANG = (0.0009, 0.5681, lambda flops: 2.3943 * flops**-0.0273)
YIN = (1.1943, 0.4146, lambda flops: 3.0 * flops**-0.03)
HUNYUAN_VIDEO = (70.707, 0.3618, lambda flops: 2.0 * flops**-0.02)
PAPERS = {"liang": LIANG, "yin": YIN, "hunyuan": HUNYUAN_VIDEO}


def isoflop(paper, seed, noise=5e-4, budgets=6, sizes=7, decades=2.0):
    """A parabola a budget: at e^1.4 times the best size, or a part of it, the loss is 2% higher.

    `noise` is the deviation of a loss, in parts of it.
    """
    coefficient, exponent, loss = paper
    rng = np.random.default_rng(seed)
    rows = []
    for flops in np.geomspace(1e17, 1e17 * 10**decades, budgets):
        best = coefficient * flops**exponent
        for n in best * np.exp(np.linspace(-1.4, 1.4, sizes) + rng.uniform(-0.1, 0.1)):
            value = loss(flops) * (1 + 0.01 * np.log(n / best) ** 2) * (1 + noise * rng.normal())
            rows.append((n, flops / (6 * n), flops, value))
    return Points(*np.array(rows).T)
