"""Couplings: which noise is drawn towards which datum of a batch.

A coupling is named in a config by its function: "independent", "optimal_transport".
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Coupling = Callable[[Float[Array, "B ..."], Float[Array, "B ..."]], Float[Array, "B ..."]]  # (x1, x0) -> x0 by row


def independent() -> Coupling:
    """Every row keeps its own noise."""
    return lambda x1, x0: x0


def optimal_transport() -> Coupling:
    """The noises of a batch are dealt to its data so that the sum of squared distances is least (Tong et al. 2024,
    section 3.2.3; Pooladian et al. 2023), by the Hungarian algorithm.

    Rows then depend on each other: another batch size, or more microbatches, is another coupling. The assignment
    ignores what a row is told, so that noise, given a prompt, is no longer normal.
    """

    def coupling(x1: Float[Array, "B ..."], x0: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        data, noise = x1.reshape(len(x1), -1), x0.reshape(len(x0), -1)
        # |x1 - x0|^2 without its parts that every assignment shares.
        rows, columns = optax.assignment.hungarian_algorithm(-data @ noise.T)
        return x0[jnp.zeros_like(columns).at[rows].set(columns)]

    return coupling
