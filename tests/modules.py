"""Flax modules in tests: compiled as one program each, for operation by operation they take seconds to compile."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnums=0)
def boxed(module, *inputs):
    """Parameters with the names of their axes, from key 0."""
    return module.init(jax.random.key(0), *inputs)


def init(module, *inputs):
    """Parameters from key 0."""
    return nn.unbox(boxed(module, *inputs))


@functools.partial(jax.jit, static_argnums=0)
def apply(module, params, *inputs):
    return module.apply(params, *inputs)


def random_params(module, *inputs):
    """Random parameters, without the compilation of their initial values."""
    return randomised(jax.eval_shape(lambda: init(module, *inputs)))


def randomised(params, scale=0.3, seed=0):
    """Random values everywhere, zero-initialised gates included, so that every path carries signal."""
    leaves, tree = jax.tree.flatten(params)
    numbers = np.random.default_rng(seed)
    return tree.unflatten([jnp.asarray(scale * numbers.standard_normal(leaf.shape), leaf.dtype) for leaf in leaves])
