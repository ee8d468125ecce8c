"""The transformer against its definition, written out for one row in NumPy and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.modules import apply, random_params
from vidflow.models.conditioning import Conditioning
from vidflow.models.design import DIT, MOVIE_GEN
from vidflow.models.dit import VideoTransformer
from vidflow.models.sizes import Size

SIZE = Size(layers=2, width=16, heads=2, feed_forward=24)
GRID = (2, 2, 3)
DESIGNS = {
    "movie_gen": MOVIE_GEN,
    "dit": DIT._replace(text="cross_attention"),
    "rotary": MOVIE_GEN._replace(positions="rotary", qk_norm=True, shared=False, time="adaln"),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_the_transformer_is_its_definition(name):
    module = VideoTransformer(SIZE, patch=(1, 2, 2), positions=(4, 4, 4), design=DESIGNS[name])
    latents = jax.random.normal(jax.random.key(1), (1, 2, 4, 6, 3))
    text, t = jax.random.normal(jax.random.key(2), (1, 5, 7)), jnp.array([0.3])
    inputs = latents, t, Conditioning(text, jnp.array([[1, 1, 0, 1, 0]]))
    params = random_params(module, *inputs)
    found = apply(module, params, *inputs).prediction[0]
    tree = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    patches = np.asarray(latents[0], np.float64).reshape(2, 2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(12, 12)
    said = written_out(DESIGNS[name], tree, patches, 0.3, np.asarray(text[0, [0, 1, 3]], np.float64))
    said = said.reshape(2, 2, 3, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 6, 3)
    np.testing.assert_allclose(found, said, atol=1e-5 * np.abs(said).max())


def written_out(design, tree, patches, t, text):
    """Patches [N, features] at time t, told the real tokens of a text [L, E]."""
    places = np.stack(np.meshgrid(*map(np.arange, GRID), indexing="ij"), axis=-1).reshape(-1, 3)
    angle = 1000.0 * t * 10_000.0 ** (-np.arange(128) / 128)
    time = affine(tree["time"]["in"], np.concatenate([np.cos(angle), np.sin(angle)]))
    time = silu(affine(tree["time"]["out"], silu(time)))
    x, position = affine(tree["patch"], patches), position_of(design, tree, places)
    x = x + position if design.positions == "waves" else x
    for number in range(SIZE.layers):
        layer = jax.tree.map(lambda leaf, number=number: leaf[number], tree["blocks"])
        if design.shared:
            vectors = affine(tree["modulation"], time).reshape(design.vectors, -1) + layer["modulation"]
        else:
            vectors = affine(layer["modulation"], time).reshape(design.vectors, -1)
        one, other = np.split(vectors, 2)
        x = x + position if design.positions == "every" else x
        h = norm(design, layer, "attention_norm", x) * (1 + one[1]) + one[0]
        h = attention(design, layer["attention"], h, h, places if design.positions == "rotary" else None)
        x = x + (one[2] * h if len(one) == 3 else h)
        x = x + attention(design, layer["cross_attention"], norm(design, layer, "cross_norm", x), text, None)
        h = norm(design, layer, "feed_forward_norm", x) * (1 + other[1]) + other[0]
        h = feed_forward(design, layer["feed_forward"], h)
        x = x + (other[2] * h if len(other) == 3 else h)
    shift, scale = affine(tree["head_modulation"], time).reshape(2, -1)
    return affine(tree["head"], norm(design, tree, "head_norm", x) * (1 + scale) + shift)


def position_of(design, tree, places):
    if design.positions == "every":
        return sum(tree["positions"][name][places[:, i]] for i, name in enumerate(("time", "height", "width")))
    if design.positions == "waves":
        of = lambda i, width: waves(places[:, i], width)  # noqa: E731
        half = SIZE.width // 2
        return np.concatenate([of(1, half), of(2, half)], axis=1) + of(0, SIZE.width)
    return None


def waves(place, width):
    angle = place[:, None] * 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def attention(design, tree, x, context, places):
    split = lambda name, x: affine(tree[name], x).reshape(len(x), SIZE.heads, -1)  # noqa: E731
    q, k, v = split("query", x), split("key", context), split("value", context)
    if design.qk_norm:
        q, k = (rms(y) * tree[f"{name}_norm"]["scale"] for y, name in ((q, "query"), (k, "key")))
    if places is not None:
        q, k = rotated(q, places), rotated(k, places)
    logits = np.einsum("nkh,mkh->knm", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return affine(tree["out"], np.einsum("knm,mkh->nkh", weights, v).reshape(x.shape))


def rotated(x, places):
    """Heads of 8 features: two pairs (i, i + 4) turn with time, one with height, one with width."""
    angle = (places[:, [0, 0, 1, 2]] * np.array([1.0, 10_000.0**-0.5, 1.0, 1.0]))[:, None]
    turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def feed_forward(design, tree, x):
    if design.mlp == "swiglu":
        return affine(tree["down"], silu(affine(tree["gate"], x)) * affine(tree["up"], x))
    up = affine(tree["up"], x)
    return affine(tree["down"], 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3))))


def norm(design, tree, name, x):
    if design.norm == "rms":
        return rms(x) * tree[name]["scale"]
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
    return x * tree[name]["scale"] + tree[name]["bias"] if name in tree else x


def rms(x):
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6)


def affine(tree, x):
    return x @ tree["kernel"] + tree.get("bias", 0.0)


def silu(x):
    return x / (1 + np.exp(-x))
