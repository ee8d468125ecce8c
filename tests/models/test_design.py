"""The family of transformers: every design counts, hears what it is told, and learns with all its parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.modules import apply, init, random_params
from vidflow import settings
from vidflow.errors import UsageError
from vidflow.models import design as designs
from vidflow.models import positions
from vidflow.models.blocks import Block
from vidflow.models.conditioning import Conditioning
from vidflow.models.design import DIT, MOVIE_GEN
from vidflow.models.dit import VideoTransformer
from vidflow.models.sizes import Size, size
from vidflow.scaling import parameters

SMALL = Size(layers=2, width=16, heads=2, feed_forward=24)
PATCH, TABLES = (1, 2, 2), (4, 4, 4)
DESIGNS = {
    "movie_gen": MOVIE_GEN,
    "dit": DIT._replace(text="cross_attention"),
    "adaln": MOVIE_GEN._replace(time="adaln"),
    "time_in_context": DIT._replace(time="in_context", text="cross_attention"),
    "time_across": MOVIE_GEN._replace(time="cross_attention"),
    "text_in_context": MOVIE_GEN._replace(text="in_context"),
    "all_in_context": DIT._replace(text="in_context", time="in_context"),
    "per_block": MOVIE_GEN._replace(shared=False),
    "layer_gelu": MOVIE_GEN._replace(norm="layer", mlp="gelu"),
    "first": MOVIE_GEN._replace(positions="first"),
    "rotary": MOVIE_GEN._replace(positions="rotary", qk_norm=True),
}


def build(design, **options):
    return VideoTransformer(SMALL, patch=PATCH, positions=TABLES, design=design, **options)


def inputs():
    latents = jax.random.normal(jax.random.key(1), (2, 2, 4, 6, 3))
    text = jax.random.normal(jax.random.key(2), (2, 5, 7))
    conditioning = Conditioning(text, jnp.array([[1, 1, 1, 0, 0]] * 2), jnp.array([0, 3]))
    return latents, jnp.array([0.2, 0.8]), conditioning


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("name", DESIGNS)
def test_the_formula_counts_the_parameters(name, classes):
    module = build(DESIGNS[name], classes=classes, variance=bool(classes))
    params = jax.eval_shape(lambda: init(module, *inputs()))
    options = {"positions": TABLES, "text_width": 7, "features": 12, "design": DESIGNS[name]}
    assert count(params) == parameters.transformer(SMALL, **options, classes=classes, variance=bool(classes))


# What DiT's code prints for 256 x 256: 32 x 32 latents of 4 channels, 1,000 classes, a learnt variance. Its fixed table
# of 16 x 16 positions is among them.
@pytest.mark.parametrize(
    ("name", "published"), [("dit-s", 33.0e6), ("dit-b", 130.5e6), ("dit-l", 458.1e6), ("dit-xl", 675_129_632)]
)
def test_dit_has_its_published_parameters(name, published):
    module = VideoTransformer(size(name), (1, 2, 2), (1, 16, 16), DIT, classes=1000, variance=True)
    told = Conditioning(label=jnp.zeros(1, jnp.int32))
    params = jax.eval_shape(lambda: init(module, jnp.zeros((1, 1, 32, 32, 4)), jnp.zeros(1), told))
    found = count(params) + 256 * size(name).width
    assert found == published if name == "dit-xl" else abs(found / published - 1) < 2e-3


@pytest.mark.parametrize("name", DESIGNS)
def test_a_design_hears_all_it_is_told_and_no_padding_and_learns_with_all_it_has(name):
    module = build(DESIGNS[name], classes=4)
    params = random_params(module, *inputs())
    latents, t, told = inputs()

    @jax.jit
    def out_and_gradient(latents, t, told):
        def loss(params):
            out = module.apply(params, latents, t, told).prediction
            return jnp.square(out).mean(), out

        gradient, out = jax.grad(loss, has_aux=True)(params)
        return out, gradient

    out, gradient = out_and_gradient(latents, t, told)
    assert out.shape == latents.shape

    def moved(latents=latents, t=t, **fields):
        return float(jnp.abs(out_and_gradient(latents, t, told.replace(**fields))[0] - out).max())

    assert moved(text=told.text.at[:, 3:].set(99.0)) == 0.0
    assert moved(text=told.text.at[:, 2].add(1.0)) > 1e-4
    assert moved(label=jnp.array([1, 3])) > 1e-4 and moved(t=t + 0.1) > 1e-4
    assert moved(latents=jnp.flip(latents, axis=1)) > 1e-3  # and knows where and when its patches are
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    silent = [jax.tree_util.keystr(path) for path, leaf in leaves if not leaf.any()]
    # A softmax does not see a shift of all its logits, so biases of keys have no gradient.
    assert [name for name in silent if "key']['bias" not in name] == []


@pytest.mark.parametrize("name", ["movie_gen", "per_block", "adaln", "text_in_context"])
def test_frames_may_have_times_of_their_own(name):
    module = build(DESIGNS[name])
    params = random_params(module, *inputs())
    latents, t, told = inputs()
    one = apply(module, params, latents, t, told).prediction
    same = apply(module, params, latents, jnp.stack([t, t], axis=1), told).prediction
    np.testing.assert_allclose(one, same, atol=2e-5)


def test_a_learnt_variance_stands_beside_the_prediction():
    module = build(MOVIE_GEN, variance=True)
    latents, t, told = inputs()
    out = apply(module, random_params(module, *inputs()), latents, t, told)
    assert out.prediction.shape == out.extras["variance"].shape == latents.shape
    assert not np.allclose(out.prediction, out.extras["variance"])


def test_rotated_products_depend_on_the_difference_of_places():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
    place = lambda *at: jnp.array([[at]])  # noqa: E731

    def product(one, other):
        turned = [positions.rotate(x, positions.angles(at, 16)) for x, at in ((q, one), (k, other))]
        return float((turned[0] * turned[1]).sum())

    same = product(place(1, 2, 3), place(4, 0, 1))
    assert product(place(11, 7, 5), place(14, 5, 3)) == pytest.approx(same, abs=1e-4)
    for other in (place(5, 0, 1), place(4, 1, 1), place(4, 0, 2)):
        assert abs(product(place(1, 2, 3), other) - same) > 1e-3
    np.testing.assert_array_equal(positions.rotate(q, positions.angles(place(0, 0, 0), 16)), q)


def test_waves_tell_every_place_from_every_other():
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, (3, 4, 5)), indexing="ij"), axis=-1).reshape(1, -1, 3)
    x = np.asarray(positions.waves(places, 16))[0]
    assert min(np.abs(a - b).max() for i, a in enumerate(x) for b in x[:i]) > 0.05


def test_configs_name_the_designs():
    assert designs.of(settings.movie_gen_design()) == designs.of(ConfigDict({"norm": "rms"})) == MOVIE_GEN
    assert designs.of(settings.dit_design()) == DIT._replace(text="cross_attention")
    wrong = ConfigDict(settings.movie_gen_design().to_dict() | {"norm": "rsm"})
    with pytest.raises(UsageError, match="config.model.design.norm 'rsm'; did you mean 'rms'"):
        designs.of(wrong)
    with pytest.raises(UsageError, match="config.model.design.qknorm; did you mean 'qk_norm'"):
        designs.of(ConfigDict({"qknorm": True}))


@pytest.mark.parametrize(("design", "padded"), [({"text": "in_context"}, True), ({"time": "in_context"}, False)])
def test_only_a_text_brings_padding_into_the_videos_sequence(design, padded):
    found = set()

    def note(following, args, kwargs, context):
        if isinstance(context.module, Block):
            found.add(context.module.padded)
        return following(*args, **kwargs)

    module = build(MOVIE_GEN._replace(**design))
    with nn.intercept_methods(note):
        jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs()))
    assert found == {padded}
