"""Every strategy and kernel on several devices against dense attention on one: values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vidflow.attention.attend import KERNELS, attend
from vidflow.attention.kernels import splash, xla
from vidflow.attention.mask import ORDERS, Mask
from vidflow.axes import BATCH, SEQUENCE, TENSOR
from vidflow.errors import UsageError
from vidflow.parallel.mesh import make_mesh

BATCH_SIZE, TOKENS, HEADS, HEAD = 2, 64, 8, 4
STRATEGIES = ("local", "allgather", "ulysses", "ring", "usp", "ulysses_allgather")
MESHES = {
    "sequence 8": {"sequence": 8},
    "sequence 4": {"sequence": 4},
    "sequence 2": {"sequence": 2},
    "sequence 4 tensor 2": {"sequence": 4, "tensor": 2},
    "data 2 sequence 4": {"data": 2, "sequence": 4},
    "fsdp 2 sequence 2 tensor 2": {"fsdp": 2, "sequence": 2, "tensor": 2},
}


def inputs(tokens=TOKENS, heads=HEADS):
    """q, k, v and a direction for the gradient; every token is different, so a misplaced one shows."""
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (BATCH_SIZE, tokens, heads, HEAD)) for key in keys]


def packed(tokens=TOKENS, relation="same"):
    """Segments of unequal lengths whose borders fall inside the devices' parts, and padding at the end."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(BATCH_SIZE):
        borders = np.sort(rng.choice(np.arange(1, tokens - 3), 3, replace=False))
        row = np.searchsorted(borders, np.arange(tokens), side="right") + 1
        row[-3:] = 0
        rows.append(row)
    segment = jnp.asarray(np.stack(rows), jnp.int32)
    if relation == "earlier":  # two packs of frames of four tokens
        order = jnp.arange(tokens) // 4
        segment = jnp.where(segment == 0, 0, ((segment + 1) // 2) * ORDERS + order)
    return Mask(segment, segment, relation)


def values_and_gradients(mask, mesh=None, **how):
    q, k, v, direction = inputs()

    def loss(q, k, v):
        out = attend(q, k, v, mask, **how)
        return (out * direction).sum(), out

    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    if mesh is None:
        return run(q, k, v)
    with jax.set_mesh(mesh):
        place = NamedSharding(mesh, P(BATCH if mesh.shape["data"] * mesh.shape["fsdp"] > 1 else None, SEQUENCE, TENSOR))
        return run(*(jax.device_put(x, place) for x in (q, k, v)))


def assert_same(ours, dense):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=0), ours, dense)


MASKS = {"unmasked": None} | {relation: packed(relation=relation) for relation in ("same", "earlier", "all")}


def cases():
    for strategy in STRATEGIES:
        for mesh in MESHES:
            for mask in MASKS:
                quick = mesh in ("sequence 8", "fsdp 2 sequence 2 tensor 2") and mask in ("unmasked", "same")
                yield pytest.param(strategy, mesh, mask, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("strategy", "mesh", "mask"), list(cases()))
def test_a_strategy_is_dense_attention(strategy, mesh, mask):
    mesh = make_mesh(**MESHES[mesh])
    assert_same(values_and_gradients(MASKS[mask], mesh, strategy=strategy), values_and_gradients(MASKS[mask]))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_blocks_of_queries_change_nothing(monkeypatch, strategy):
    dense = values_and_gradients(MASKS["same"])
    monkeypatch.setattr(xla, "DENSE_LOGITS", 1)
    monkeypatch.setattr(xla, "BLOCK", 3)
    assert_same(values_and_gradients(MASKS["same"], make_mesh(sequence=4, tensor=2), strategy=strategy), dense)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s not in ("ring", "usp")])
@pytest.mark.parametrize("mask", ["unmasked", pytest.param("same"), pytest.param("all", marks=pytest.mark.slow)])
def test_splash_in_interpret_mode(monkeypatch, strategy, mask):
    interpreted = KERNELS["splash"]._replace(attend=partial(splash.attend, interpret=True))
    monkeypatch.setitem(KERNELS, "splash", interpreted)
    mesh = make_mesh(sequence=2, tensor=2)
    ours = values_and_gradients(MASKS[mask], mesh, strategy=strategy, kernel="splash")
    assert_same(ours, values_and_gradients(MASKS[mask]))


@pytest.mark.parametrize(
    ("mesh", "strategy", "tokens", "heads", "message"),
    [
        ({"sequence": 8}, "allgather", 60, 8, r"60 tokens.*sequence of 8.*1, 2, 3, 4, 5, 6"),
        ({"sequence": 8}, "ulysses", 64, 6, r"6 heads.*sequence = 8.*1, 2, 3, 6"),
        ({"tensor": 8}, "allgather", 64, 6, r"6 heads.*tensor of 8.*1, 2, 3, 6"),
        ({"data": 8}, "allgather", 64, 8, r"2 rows.*data x fsdp of 8"),
    ],
)
def test_what_does_not_divide_is_an_error_that_says_what_does(mesh, strategy, tokens, heads, message):
    q, k, v, _ = inputs(tokens, heads)
    with jax.set_mesh(make_mesh(**mesh)), pytest.raises(UsageError, match=message):
        attend(q, k, v, strategy=strategy)
