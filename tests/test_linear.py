"""The projection on one device: its hand-written backward pass against the one that JAX derives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidflow.linear import linears, project
from vidflow.parallel import rules


def test_gradients_are_those_of_a_matrix_product():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5))
    kernel = jax.random.normal(jax.random.key(1), (5, 4))
    loss = lambda product: lambda x, kernel: jnp.sin(product(x, kernel)).sum()  # noqa: E731
    ours = jax.value_and_grad(loss(lambda x, kernel: project(x, (kernel,), ("embed", "mlp"))[0]), (0, 1))(x, kernel)
    derived = jax.value_and_grad(loss(jnp.matmul), (0, 1))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), ours, derived)


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return linears(x, ("first", "second"), 4, ("embed", "mlp"), jnp.bfloat16)


def test_half_precision_stays_half_and_parameters_stay_single():
    x = jnp.ones((2, 3, 5), jnp.float32)
    params = rules.unbox(Pair().init(jax.random.key(0), x))
    gradient = jax.grad(lambda p: sum(y.astype(jnp.float32).sum() for y in Pair().apply(p, x)))(params)
    for child in ("first", "second"):
        assert gradient["params"][child]["kernel"].dtype == jnp.float32
        np.testing.assert_allclose(gradient["params"][child]["kernel"], np.full((5, 4), 6.0), rtol=1e-2)
    first, second = Pair().apply(params, x)
    assert first.dtype == second.dtype == jnp.bfloat16 and not np.array_equal(first, second)
