"""Which parameters which optimizer updates, and how fast."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from tests.modules import boxed
from vidflow.errors import UsageError
from vidflow.models.conditioning import Conditioning
from vidflow.models.dit import VideoTransformer
from vidflow.models.sizes import Size
from vidflow.parallel import rules
from vidflow.training.optimizer import learning_rate, make_optimizer, matrices_as, shared_steps


def config(**options):
    base = {"name": "muon", "learning_rate": 0.1, "warmup": 0, "decay": "constant", "weight_decay": 0.0}
    return ConfigDict({**base, "clip": 1e9, "b1": 0.9, "b2": 0.99, **options})


def boxed_params():
    module = VideoTransformer(Size(3, 16, 4, 24), patch=(1, 2, 2), positions=(4, 4, 4))
    conditioning = Conditioning(jnp.zeros((1, 5, 8)), jnp.ones((1, 5), jnp.int32))
    return boxed(module, jnp.zeros((1, 2, 4, 4, 3)), jnp.zeros(1), conditioning)


def first_update(options):
    boxed = boxed_params()
    params = rules.unbox(boxed)
    optimizer = make_optimizer(options, rules.axis_names(boxed))
    leaves, tree = jax.tree.flatten(params)
    gradient = tree.unflatten([jax.random.normal(jax.random.key(i), x.shape) for i, x in enumerate(leaves)])
    update, _ = jax.jit(optimizer.update)(gradient, jax.jit(optimizer.init)(params), params)
    flat = jax.tree_util.tree_leaves_with_path(update)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in flat}


def test_muon_orthogonalises_each_layer_of_a_scanned_stack_and_nothing_at_the_ends():
    updates = first_update(config())
    interior = {name for name in updates if "blocks" in name and "kernel" in name}
    assert len(interior) == 11  # 4 + 4 projections of attention, 3 of the feed-forward
    for name, update in updates.items():
        if name in interior:
            for layer in update:  # each layer's matrix has nearly equal singular values, by itself
                singular = np.linalg.svd(layer, compute_uv=False)
                assert singular.max() / singular.min() < 2.0, name
        else:
            # Adam's first step moves every element alike; Nesterov's look-ahead makes it 1 + 0.9 * 0.1 / 0.19 times.
            np.testing.assert_allclose(np.abs(update), 1 + 0.09 / 0.19, rtol=1e-3, err_msg=name)


def test_adamw_moves_every_element_by_one_at_first():
    for name, update in first_update(config(name="adamw")).items():
        np.testing.assert_allclose(np.abs(update), 1.0, rtol=1e-3, err_msg=name)


def test_weight_decay_spares_tables_norms_and_biases():
    free = first_update(config(name="adamw"))
    decayed = first_update(config(name="adamw", weight_decay=0.5))
    changed = {name for name in free if not np.allclose(free[name], decayed[name])}
    assert changed == {n for n in free if "blocks" in n and "kernel" in n and "cross_attention/out" not in n}


@pytest.mark.parametrize(("decay", "end"), [("constant", 0.1), ("cosine", 0.01), ("linear", 0.01), ("stable", 0.01)])
def test_the_rate_warms_up_and_decays_to_its_end(decay, end):
    rate = learning_rate(config(warmup=10, decay=decay), 100)
    assert float(rate(0)) == 0.0
    assert float(rate(5)) == pytest.approx(0.05)
    assert float(rate(10)) == pytest.approx(0.1)
    assert float(rate(100)) == pytest.approx(end)


def test_runs_of_other_lengths_share_their_rate_until_the_first_decays():
    short, long = (learning_rate(config(warmup=10, decay="stable"), steps) for steps in (100, 200))
    assert shared_steps(config(decay="stable"), 100) == 80 and shared_steps(config(decay="cosine"), 100) == 0
    assert all(float(short(s)) == float(long(s)) for s in range(81))
    assert float(short(90)) == pytest.approx(0.055) and float(long(100)) == pytest.approx(0.1)


def test_gradients_are_clipped_by_their_global_norm():
    """By the second of two unlike updates: Adam's first is the same whatever a gradient's size."""
    boxed = {name: nn.LogicallyPartitioned(jnp.zeros((2, 2)), ("embed", "mlp")) for name in ("w", "v")}
    names, params = {"params": rules.axis_names(boxed)}, {"params": rules.unbox(boxed)}

    def second(clip, *gradients):
        optimizer = make_optimizer(config(name="adamw", clip=clip), names)
        state = optimizer.init(params)
        for value in gradients:
            tree = {"params": {"w": jnp.full((2, 2), value), "v": jnp.full((2, 2), -2 * value)}}
            update, state = optimizer.update(tree, state, params)
        return update["params"]["w"]

    length = float(np.sqrt(4 * 1 + 4 * 4))  # of w and v together, for a value of 1
    np.testing.assert_allclose(second(1.0, 30.0, 0.1), second(0.0, 1 / length, 0.1), rtol=1e-5)
    assert np.abs(second(1.0, 30.0, 0.1) - second(0.0, 30.0, 0.1)).max() > 0.1 * np.abs(second(0.0, 1.0, 1.0)).max()


def test_a_clip_of_0_is_none():
    boxed = {"w": nn.LogicallyPartitioned(jnp.zeros((2, 2)), ("embed", "mlp"))}
    params = rules.unbox(boxed)
    gradient = {"w": jnp.full((2, 2), 3.0)}
    free, clipped = (make_optimizer(config(name="adamw", clip=clip), rules.axis_names(boxed)) for clip in (0.0, 1e9))
    assert jax.tree.structure(free.init(params)) == jax.tree.structure(clipped.init(params))  # one kind of checkpoint
    updates = [optimizer.update(gradient, optimizer.init(params), params)[0] for optimizer in (free, clipped)]
    np.testing.assert_array_equal(updates[0]["w"], updates[1]["w"])
    assert np.abs(updates[0]["w"]).min() > 0


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="'sgd': use"):
        make_optimizer(config(name="sgd"), {})
    with pytest.raises(UsageError, match="'step': use"):
        learning_rate(config(decay="step"), 10)


def test_a_view_rounds_the_matrices_alone_and_their_gradients_with_them():
    names = {"kernel": P("layers", "embed", "mlp"), "scale": P("features")}
    params = {"kernel": jnp.ones((2, 3, 4)), "scale": jnp.ones(4)}
    view = matrices_as("bfloat16", names)
    gradient = jax.grad(lambda p: (p["kernel"].sum(axis=(0, 1)) * p["scale"]).sum().astype(jnp.float32))(view(params))
    assert gradient["kernel"].dtype == jnp.bfloat16 and gradient["scale"].dtype == jnp.float32
    same = matrices_as("float32", names)(params)
    assert all(same[name] is params[name] for name in params)
