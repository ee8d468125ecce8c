"""The models in PyTorch that training steps are compared with: the peer is our model, and FLOPs are what is counted."""

import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.models import sizes
from vidflow.models.conditioning import Conditioning
from vidflow.models.dit import VideoTransformer
from vidflow.models.sizes import Size

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # as for a script there

import step_torch  # noqa: E402
import step_vidflow  # noqa: E402
import torch_peer  # noqa: E402

SIZE = Size(layers=2, width=32, heads=4, feed_forward=48)
PATCH, GRID = (1, 2, 2), (2, 4, 4)


@pytest.fixture(scope="module")
def peer():
    """PyTorch's model and ours with the same random weights, and ours' parameters."""
    ours = VideoTransformer(SIZE, PATCH, GRID)
    params = nn.unbox(jax.jit(step_vidflow.make_init(ours))(jax.random.key(0)))["params"]
    theirs = torch_peer.VideoTransformer(SIZE, PATCH, GRID, channels=16, text_width=32)
    with torch.no_grad():
        for name, value in weights(params).items():
            theirs.get_parameter(name).copy_(torch.tensor(np.asarray(value)))
    assert set(weights(params)) == {name for name, _ in theirs.named_parameters()}
    return theirs, ours, {"params": params}


def weights(params):
    """Our parameters by their names there: kernels transposed, projections of one input side by side."""

    def kernels(tree, *names):
        return jnp.concatenate([tree[name]["kernel"] for name in names], axis=1).T

    def dense(name, tree):
        return {f"{name}.weight": tree["kernel"].T, f"{name}.bias": tree["bias"]}

    named = {"patch.weight": params["patch"]["kernel"].T, "head.weight": params["head"]["kernel"].T}
    named |= {"head_norm.weight": params["head_norm"]["scale"]}
    named |= {f"positions.{i}": params["positions"][axis] for i, axis in enumerate(("time", "height", "width"))}
    named |= dense("time.first", params["time"]["in"]) | dense("time.second", params["time"]["out"])
    named |= dense("modulation", params["modulation"]) | dense("head_modulation", params["head_modulation"])
    for layer in range(SIZE.layers):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["blocks"])
        self_, cross, feed_forward = (block[name] for name in ("attention", "cross_attention", "feed_forward"))
        there = {"modulation": block["modulation"], "query_key_value.weight": kernels(self_, "query", "key", "value")}
        there |= {f"{name}.weight": block[name]["scale"] for name in block if name.endswith("_norm")}
        there |= {"out.weight": kernels(self_, "out"), "cross_out.weight": kernels(cross, "out")}
        there |= {"cross_query.weight": kernels(cross, "query")}
        there |= {"cross_key_value.weight": kernels(cross, "key", "value")}
        there |= {"gate_up.weight": kernels(feed_forward, "gate", "up"), "down.weight": kernels(feed_forward, "down")}
        named |= {f"blocks.{layer}.{name}": value for name, value in there.items()}
    return named


def test_the_torch_peer_has_our_parameters(peer):
    theirs, _, params = peer
    ours = sum(leaf.size for leaf in jax.tree.leaves(params["params"]["blocks"]))
    assert sum(p.numel() for p in theirs.blocks.parameters()) == ours
    assert sum(p.numel() for p in theirs.parameters()) == sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("remat", [False, True])
def test_the_torch_peer_computes_what_we_do(peer, remat):
    theirs, ours, params = peer
    theirs.remat = remat
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(2, 2, 8, 8, 16)).astype(np.float32)
    t, text = np.array([0.2, 0.9], np.float32), rng.normal(size=(2, 7, 32)).astype(np.float32)
    conditioning = Conditioning(jnp.asarray(text), jnp.ones((2, 7), jnp.int32))
    want = np.asarray(ours.apply(params, jnp.asarray(latents), jnp.asarray(t), conditioning).prediction)
    got = theirs(*map(torch.tensor, (latents, t, text)))
    assert want.std() > 0.1
    np.testing.assert_allclose(got.detach().numpy(), want, atol=1e-4)


@pytest.mark.parametrize("tokens", [4096, 16384, 32768, 73728])
@pytest.mark.parametrize("size", ["1b", "5b"])
def test_the_wan_transformer_has_our_flops_within_a_percent(size, tokens):
    case = {"size": size, "tokens": tokens, "batch": 1}
    assert step_torch.wan_flops(case) == pytest.approx(step_torch.peer_flops(case), rel=0.01)


@pytest.mark.slow
def test_the_flops_of_pytorchs_models_are_what_pytorch_counts(monkeypatch):
    pytest.importorskip("diffusers")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setitem(sizes.SIZES, "tiny", SIZE)
    case = {"size": "tiny", "tokens": 32, "grid": GRID, "batch": 2, "remat": "none"}
    latents, text = step_torch.make_batch(case, SIZE.width, torch.float32)
    models = [
        (step_torch.make_peer(SIZE, case), torch.nn.Module.__call__, step_torch.peer_flops),
        (step_torch.make_wan(SIZE, False), step_torch.velocity_of_wan, step_torch.wan_flops),
    ]
    for model, velocity, formula in models:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            velocity(model, latents, torch.rand(2), text)
        assert 3 * counter.get_total_flops() == formula(case)
