"""The projection: its hand-written backward pass against the one that JAX derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.linear import linear, project
from vidflow.parallel import rules


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_gradients_are_those_of_a_matrix_product(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (5, 4))
    loss = lambda product: lambda x, kernel: jnp.sin(product(x, kernel)).sum()  # noqa: E731
    ours = jax.value_and_grad(loss(project), (0, 1))(x, kernel)
    derived = jax.value_and_grad(loss(jnp.matmul), (0, 1))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), ours, derived)


def test_half_precision_stays_half_and_parameters_stay_single():
    layer = linear(4, ("embed", "mlp"), jnp.bfloat16, "layer")
    x = jnp.ones((2, 3, 5), jnp.bfloat16)
    params = rules.unbox(layer.init(jax.random.key(0), x))
    out, gradient = jax.value_and_grad(lambda p: layer.apply(p, x).astype(jnp.float32).sum())(params)
    assert layer.apply(params, x).dtype == jnp.bfloat16
    assert gradient["params"]["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(gradient["params"]["kernel"], np.full((5, 4), 6.0), rtol=1e-2)
    assert np.isfinite(out)
