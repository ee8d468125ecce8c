"""Attention against its definition, written out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.attention.attend import attend
from vidflow.attention.kernels import splash, xla
from vidflow.attention.mask import ORDERS, Mask
from vidflow.errors import UsageError
from vidflow.parallel.hlo import Program


def reference(q, k, v, mask):
    """Row by row, in float64."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    out = np.zeros(q.shape)
    for b in range(q.shape[0]):
        for n in range(q.shape[1]):
            if mask is None:
                seen = np.arange(k.shape[1])
            else:
                segment = int(mask.q_segment[b, n])
                seen = np.flatnonzero((np.asarray(mask.kv_segment[b]) == segment) & (segment != 0))
            if not len(seen):
                continue
            for head in range(q.shape[2]):
                logits = k[b, seen, head] @ q[b, n, head] / np.sqrt(q.shape[3])
                weights = np.exp(logits - logits.max())
                out[b, n, head] = weights @ v[b, seen, head] / weights.sum()
    return out


def inputs(queries=7, keys=5):
    shapes = [(2, queries, 3, 4), (2, keys, 3, 4), (2, keys, 3, 4)]
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


MASK = Mask(
    q_segment=jnp.array([[1, 1, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1]]),
    kv_segment=jnp.array([[1, 2, 2, 2, 0], [1, 1, 0, 0, 0]]),
)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "segments"])
def test_attend_is_the_definition(mask):
    q, k, v = inputs()
    np.testing.assert_allclose(attend(q, k, v, mask), reference(q, k, v, mask), atol=2e-6)


def test_a_query_that_may_see_nothing_gets_zeros_and_finite_gradients():
    q, k, v = inputs()
    out = attend(q, k, v, MASK)
    assert not np.asarray(out[0, 4:]).any()  # segment 3 has no keys, segment 0 is padding
    gradient = jax.grad(lambda q: attend(q, k, v, MASK).sum())(q)
    assert np.isfinite(np.asarray(gradient)).all()


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "segments"])
def test_blocks_of_queries_change_neither_values_nor_gradients(monkeypatch, mask):
    q, k, v = inputs()

    def run():
        loss = lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v, mask)))  # noqa: E731
        return jax.value_and_grad(loss, argnums=(0, 1, 2))(q, k, v)

    dense = run()
    monkeypatch.setattr(xla, "DENSE_LOGITS", 1)
    monkeypatch.setattr(xla, "BLOCK", 3)  # 7 queries: the last block is padded
    blocks = run()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), dense, blocks)


def test_no_array_of_queries_by_keys_exists_at_length():
    length = 16384
    q = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
    gradient = jax.jit(jax.grad(lambda q, k, v: attend(q, k, v).sum(), argnums=(0, 1, 2)))
    memory = gradient.lower(q, q, q).compile().memory_analysis()
    assert memory.temp_size_in_bytes < length * length * 4 / 4


def test_an_unknown_kernel_is_named_with_the_known_ones():
    q, k, v = inputs()
    with pytest.raises(UsageError, match=r"'flash'.*xla"):
        attend(q, k, v, kernel="flash")


def test_an_unknown_strategy_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match=r"'spiral'.*ulysses"):
        attend(*inputs(), strategy="spiral")


def test_a_kernel_refuses_what_it_cannot_do_and_names_one_that_can():
    with pytest.raises(UsageError, match=r"'splash'.*'earlier'.*xla"):
        attend(*inputs(), MASK.replace(relation="earlier"), kernel="splash")
    with pytest.raises(UsageError, match=r"'ring'.*'splash'.*xla"):
        attend(*inputs(), kernel="splash", strategy="ring")


@pytest.mark.parametrize("relation", ["all", "real"])
def test_cudnn_is_told_what_the_mask_says(monkeypatch, relation):
    """Without a GPU: JAX's own attention gets the same arguments."""
    fused = jax.nn.dot_product_attention
    told = []

    def plain(*arrays, implementation, **masked):
        told.append((implementation, *masked))
        return fused(*arrays, **masked, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", plain)
    q, k, v = (x.astype(jnp.bfloat16) for x in inputs(queries=7, keys=5))
    q_segment = jnp.array([[1, 1, 1, 1, 1, 0, 0], [1] * 7])
    real = {"all": [[1, 1, 1, 0, 0], [0] * 5], "real": [[0, 1, 0, 1, 1], [0] * 5]}[relation]
    mask = Mask(q_segment, jnp.array(real), relation)
    got, want = (attend(q, k, v, mask, kernel=kernel).astype(jnp.float32) for kernel in ("cudnn", "xla"))
    np.testing.assert_allclose(got, want, atol=0.02)
    assert not np.asarray(got[0, 5:]).any() and not np.asarray(got[1]).any()
    lengths = ("query_seq_lengths", "key_value_seq_lengths")
    assert told == [("cudnn", *(lengths if relation == "all" else ("mask",)))]


def test_cudnn_refuses_float32():
    with pytest.raises(UsageError, match="'cudnn' does not compute in float32"):
        attend(*inputs(), kernel="cudnn")


@pytest.mark.parametrize("together", [1, 2**30], ids=["a head at a time", "all heads"])
def test_splash_groups_of_heads_and_filled_blocks_change_nothing(monkeypatch, together):
    monkeypatch.setattr(splash, "PARTIAL_BYTES", together)
    q, k, v = (jax.random.normal(jax.random.key(i), (1, n, 2, 128)) for i, n in enumerate((200, 150, 150)))
    mask = Mask(jnp.ones((1, 200), jnp.int32), (jnp.arange(150) < 140).astype(jnp.int32)[None], relation="all")

    def loss(kernel, *inputs):
        return jnp.square(kernel(*inputs, mask, "attention")).sum()

    def gradients(kernel):
        return jax.value_and_grad(partial(loss, kernel), argnums=(0, 1, 2))(q, k, v)

    ours, plain = gradients(partial(splash.attend, interpret=True)), gradients(xla.attend)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, plain)


def test_relations_are_their_definitions():
    orders = jnp.array([1, 1, 2, 2, 3, 3, 0]) + jnp.where(jnp.arange(7) < 6, ORDERS, 0)
    segment = jnp.stack([orders, orders.at[4:6].add(ORDERS)])
    q, k, v = inputs(queries=7, keys=7)
    for relation, sees in (
        ("same", lambda a, b: a == b),
        ("earlier", lambda a, b: a // ORDERS == b // ORDERS and b <= a),
        ("real", lambda a, b: a != 0),
        ("all", lambda a, b: a != 0),
    ):
        out = attend(q, k, v, Mask(segment, segment, relation))
        for row in range(2):
            for n in range(7):
                numbers = segment[row].tolist()
                seen = [m for m in range(7) if numbers[m] and sees(numbers[n], numbers[m])]
                if not seen:
                    assert not np.asarray(out[row, n]).any()
                    continue
                alone = attend(q[row : row + 1, n : n + 1], k[row : row + 1, seen], v[row : row + 1, seen])
                np.testing.assert_allclose(out[row, n], alone[0, 0], atol=2e-6)


def test_no_array_has_an_element_for_every_pair_of_tokens():
    length = 8192
    inputs = [jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)] * 3
    step = jax.jit(jax.grad(lambda q, k, v: attend(q, k, v).sum(), argnums=(0, 1, 2)))
    program = Program(step.lower(*inputs).compile().as_text())
    assert max(array.size for instruction, _ in program.instructions() for array in instruction.results) < length**2 / 8
