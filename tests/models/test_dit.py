"""The transformer: shapes, identities at the start, what each input may and may not change."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.modules import apply, init, random_params
from vidflow.errors import UsageError
from vidflow.models import rematerialisation
from vidflow.models.blocks import Block, Told
from vidflow.models.conditioning import Conditioning
from vidflow.models.dit import VideoTransformer
from vidflow.models.positions import FactorisedPositions
from vidflow.models.sizes import SIZES, Size, size
from vidflow.models.tokens import grid_of, patchify, unpatchify

SMALL = Size(layers=3, width=16, heads=4, feed_forward=24)


def model(**options):
    return VideoTransformer(SMALL, patch=(1, 2, 2), positions=(4, 4, 4), **options)


def inputs(batch=2):
    latents = jax.random.normal(jax.random.key(1), (batch, 2, 4, 6, 3))
    text = jax.random.normal(jax.random.key(2), (batch, 5, 7))
    segment = jnp.array([[1, 1, 1, 0, 0]] * batch)
    return latents, jnp.linspace(0.2, 0.8, batch), Conditioning(text, segment)


def parameters(module):
    return init(module, *inputs())


def test_patches_come_back_and_know_their_place():
    latents = jnp.arange(2 * 2 * 4 * 6 * 3.0).reshape(2, 2, 4, 6, 3)
    tokens = patchify(latents, (1, 2, 2))
    assert tokens.x.shape == (2, 12, 12)
    np.testing.assert_array_equal(unpatchify(tokens.x, grid_of(latents.shape, (1, 2, 2)), (1, 2, 2)), latents)
    time, height, width = np.asarray(tokens.position[0, 8])
    patch = latents[0, time, 2 * height : 2 * height + 2, 2 * width : 2 * width + 2].reshape(-1)
    np.testing.assert_array_equal(tokens.x[0, 8], patch)


def test_latents_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="do not divide"):
        grid_of((1, 2, 5, 4, 3), (1, 2, 2))


def test_a_new_model_predicts_zero_and_its_stack_is_the_identity():
    module = model()
    params = parameters(module)
    latents, t, conditioning = inputs()
    assert not np.asarray(apply(module, params, latents, t, conditioning).prediction).any()
    # Open the head only: the prediction must then depend on patches and positions, not on time or text.
    params["params"]["head"]["kernel"] = jnp.ones_like(params["params"]["head"]["kernel"])
    out = apply(module, params, latents, t, conditioning).prediction
    other = apply(module, params, latents, 1 - t, conditioning.replace(text=-conditioning.text)).prediction
    np.testing.assert_array_equal(out, other)
    assert np.asarray(out).any()


def test_positions_are_the_sum_of_three_tables_at_the_entry_of_every_layer():
    module = FactorisedPositions((2, 3, 4), 8)
    position = jnp.array([[[1, 2, 3], [0, 0, 0]]])
    params = init(module, position)
    tables = params["params"]
    expected = tables["time"][1] + tables["height"][2] + tables["width"][3]
    np.testing.assert_allclose(apply(module, params, position)[0, 0], expected, rtol=1e-6)

    # With identity blocks, L layers add the positions L times: doubling the tables must equal twice the layers.
    latents, t, conditioning = inputs()
    deep = VideoTransformer(SMALL._replace(layers=6), patch=(1, 2, 2), positions=(4, 4, 4))
    shallow_params, deep_params = parameters(model()), parameters(deep)
    for params in (shallow_params, deep_params):
        params["params"]["head"]["kernel"] = jnp.ones_like(params["params"]["head"]["kernel"])
        params["params"]["patch"]["kernel"] = jnp.full_like(params["params"]["patch"]["kernel"], 0.1)
    deep_params["params"]["positions"] = jax.tree.map(lambda a: a / 2, shallow_params["params"]["positions"])
    np.testing.assert_allclose(
        apply(model(), shallow_params, latents, t, conditioning).prediction,
        apply(deep, deep_params, latents, t, conditioning).prediction,
        atol=1e-5,
    )


def test_padding_text_changes_nothing_and_real_text_does():
    module = model()
    params = random_params(module, *inputs())
    latents, t, conditioning = inputs()
    out = apply(module, params, latents, t, conditioning).prediction
    padded = conditioning.replace(text=conditioning.text.at[:, 3:].set(99.0))
    np.testing.assert_array_equal(out, apply(module, params, latents, t, padded).prediction)
    changed = conditioning.replace(text=conditioning.text.at[:, 2].add(1.0))
    assert np.abs(np.asarray(out - apply(module, params, latents, t, changed).prediction)).max() > 1e-3


def test_a_time_per_frame_equals_a_time_per_video_when_all_frames_agree():
    module = model()
    params = random_params(module, *inputs())
    latents, t, conditioning = inputs()
    one = apply(module, params, latents, t, conditioning).prediction
    same = apply(module, params, latents, jnp.stack([t, t], axis=1), conditioning).prediction
    np.testing.assert_allclose(one, same, atol=1e-5)
    different = apply(module, params, latents, jnp.stack([t, t + 0.1], axis=1), conditioning).prediction
    assert np.abs(np.asarray(different - same)).max() > 1e-3


def test_rows_of_a_batch_do_not_see_each_other():
    module = model()
    params = random_params(module, *inputs())
    latents, t, conditioning = inputs()
    whole = apply(module, params, latents, t, conditioning).prediction
    first = apply(module, params, latents[:1], t[:1], jax.tree.map(lambda a: a[:1], conditioning)).prediction
    np.testing.assert_allclose(whole[:1], first, atol=1e-5)


def gradient(module, params):
    return jax.jit(jax.grad(lambda p: jnp.square(module.apply(p, *inputs()).prediction).mean())).lower(params).compile()


@pytest.mark.parametrize("unrolled", [False, True])
@pytest.mark.parametrize("remat", sorted(rematerialisation.TABLE))
def test_neither_rematerialisation_nor_unrolled_layers_change_a_gradient(remat, unrolled):
    params = random_params(model(), *inputs())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6),
        gradient(model(), params)(params),
        gradient(model(remat=remat, unrolled=unrolled), params)(params),
    )


def test_names_of_tensors_are_those_that_layers_have():
    text = str(jax.make_jaxpr(lambda p: model().apply(p, *inputs()).prediction)(parameters(model())))
    given = set(re.findall(r"name\[name=(\w+)\]", text)) - {"patch", "head"}  # these two stand outside of the layers
    kernels_own = {"self_attention", "cross_attention"}  # XLA's has none while it is dense
    assert given == set(rematerialisation.NAMES) - kernels_own


def test_unrolled_layers_are_rematerialised():
    params = random_params(model(), *inputs())
    once, again = (
        gradient(model(remat=remat, unrolled=True), params).cost_analysis()["flops"] for remat in ("none", "full")
    )
    assert again > 1.15 * once  # a forward pass is a third of a step, and the compiler may drop the end of the last one


def test_videos_packed_into_a_row_do_not_see_each_other():
    block = Block(heads=4, feed_forward=24, packed=True)
    x, position = (jax.random.normal(jax.random.key(i), (1, 8, 16)) for i in (1, 2))
    text = jax.random.normal(jax.random.key(3), (1, 4, 7))
    modulation = jax.random.normal(jax.random.key(4), (1, 1, 6, 16))

    def run(part, texts):
        segment = jnp.array([[1] * 5 + [2] * 3])[:, part]
        return apply(block, params, x[:, part], segment, told(part, texts))[0]

    def told(part, texts):
        context = {"context": text[:, texts], "context_segment": jnp.array([[1, 1, 1, 2]])[:, texts]}
        return Told(position=position[:, part], modulation=modulation, **context)

    everything = (x, jnp.ones((1, 8), jnp.int32), told(slice(None), slice(None)))
    params = random_params(block, *everything)
    whole = run(slice(None), slice(None))
    np.testing.assert_allclose(whole[:, :5], run(slice(0, 5), slice(0, 3)), atol=1e-5)
    np.testing.assert_allclose(whole[:, 5:], run(slice(5, 8), slice(3, 4)), atol=1e-5)


def test_every_parameter_matters():
    params = random_params(model(), *inputs())
    gradient = jax.jit(jax.grad(lambda p: jnp.square(model().apply(p, *inputs()).prediction).mean()))(params)
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    assert [jax.tree_util.keystr(path) for path, leaf in leaves if not leaf.any()] == []


def test_compute_dtype_is_bfloat16_and_parameters_stay_float32():
    module = model(dtype=jnp.bfloat16)
    params = parameters(module)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert apply(module, params, *inputs()).prediction.dtype == jnp.bfloat16


def test_the_30b_row_has_29_to_31_billion_parameters():
    module = VideoTransformer(size("30b"), patch=(1, 2, 2), positions=(32, 48, 48))

    def init(key):
        conditioning = Conditioning(jnp.zeros((1, 8, 6144)), jnp.zeros((1, 8), jnp.int32))
        return module.init(key, jnp.zeros((1, 2, 4, 4, 16)), jnp.zeros(1), conditioning)

    params = jax.eval_shape(init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert 29e9 < count < 31e9


def test_an_unknown_size_lists_the_known_ones():
    with pytest.raises(UsageError, match="30b"):
        size("31b")
    assert all(row.width % row.heads == 0 for row in SIZES.values())
