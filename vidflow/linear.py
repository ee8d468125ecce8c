"""The projection that every transformer here is made of."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

linear_init = nn.initializers.lecun_normal()


def linear(features: int, names: tuple[str, str], dtype: Any, name: str, init: Any = linear_init) -> nn.Dense:
    """A bias-free projection of the last axis, whose kernel carries the logical axis names (input, output)."""
    kernel_init = nn.with_logical_partitioning(init, names)
    return nn.Dense(
        features, use_bias=False, dtype=dtype, kernel_init=kernel_init, dot_general=_dot_general, name=name
    )


@jax.custom_vjp
def project(x: Float[Array, "... i"], kernel: Float[Array, "i o"]) -> Float[Array, "... o"]:
    """x @ kernel. Reverse mode only: `jax.jvp` of it is an error.

    JAX derives the kernel's gradient as dot(g, x) and transposes it; XLA then writes g out transposed, which on CPU
    took three times as long for a whole SwiGLU layer as the same contraction with x first.
    """
    return x @ kernel


def _project_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return project(x, kernel), (x, kernel)


def _project_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return jnp.einsum("...o,io->...i", g, kernel), jnp.einsum("...i,...o->io", x, g)


project.defvjp(_project_forward, _project_backward)


def _dot_general(x: Array, kernel: Array, dimensions: Any, **_: Any) -> Array:
    assert dimensions == (((x.ndim - 1,), (0,)), ((), ())), "nn.Dense contracts the last axis with the first."
    return project(x, kernel)
