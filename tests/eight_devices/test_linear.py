"""Projections over a mesh: values, gradients, and what they send."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.linear import _stages, project
from vidflow.parallel import rules
from vidflow.parallel.mesh import make_mesh

NAMES = [("embed", "mlp"), ("heads", "embed"), ("latent", "embed"), ("embed", "latent")]
MESHES = [(8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 8, 1), (1, 1, 1, 8), (1, 2, 2, 2), (2, 1, 2, 2)]


def inputs():
    keys = jax.random.split(jax.random.key(0), 3)
    kernels = tuple(jax.random.normal(key, (16, 24)) / 4 for key in keys[1:])
    return jax.random.normal(keys[0], (8, 32, 16)), kernels


def run(names, spread):
    def loss(x, kernels):
        ys = project(x, kernels, names, spread)
        return sum(jnp.sin(y).sum() for y in ys), ys

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))


@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("shape", MESHES, ids=str)
@pytest.mark.parametrize("names", NAMES, ids="-".join)
def test_values_and_gradients_are_those_of_one_device(names, shape, spread):
    alone = run(names, spread)(*inputs())
    with jax.set_mesh(make_mesh(*shape)), rules.in_force():
        together = run(names, spread)(*inputs())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), together, alone)


@pytest.mark.parametrize("size", [1, 2, 6, 8, 12, 16, 24])
def test_stages_leave_every_part_at_its_place(size):
    """Followed by hand: what starts as all parts everywhere ends as part p at place p."""
    parts = [list(range(size)) for _ in range(size)]
    for groups in _stages(size):
        for group in groups:
            for digit, place in enumerate(group):
                share = len(parts[place]) // len(group)
                parts[place] = parts[place][digit * share : (digit + 1) * share]
    assert parts == [[place] for place in range(size)]


def test_a_kernel_is_gathered_twice_at_most_and_its_gradient_scattered_by_stages():
    with jax.set_mesh(make_mesh(fsdp=4, sequence=2)), rules.in_force():
        x, kernels = inputs()
        text = run(("embed", "mlp"), True).lower(x, kernels[:1]).compile().as_text()
    sent = re.findall(r"= f32\[(\d+),24\]\S* (all-gather|reduce-scatter|all-reduce)\(", text)
    assert 1 <= sent.count(("16", "all-gather")) <= 2
    assert [rows for rows, name in sent if name == "reduce-scatter"] == ["4", "2"]  # fsdp, then sequence
    assert ("16", "all-reduce") not in sent
