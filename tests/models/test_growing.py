"""Growing weights: what was learnt stays, what is new is as new or silent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.modules import randomised
from vidflow.models import growing
from vidflow.models.conditioning import Conditioning
from vidflow.models.dit import VideoTransformer
from vidflow.models.sizes import Size
from vidflow.parallel import rules

PATCH = (1, 2, 2)
KEY = jax.random.key(0)
TEXT = Conditioning(jnp.ones((1, 5, 8)), jnp.ones((1, 5), jnp.int32))


def init(positions, channels=3, seed=0):
    module = VideoTransformer(Size(2, 16, 4, 24), patch=PATCH, positions=positions)
    params = jax.eval_shape(lambda: module.init(KEY, jnp.zeros((1, 1, 2, 2, channels)), jnp.zeros(1), TEXT))
    return randomised(rules.unbox(params), scale=1.0, seed=seed)  # zero gates would hide everything


def positions(params):
    return jax.tree.map(np.asarray, params["params"]["positions"])


def test_the_same_model_stays_as_it_is():
    params = init((4, 4, 4))
    jax.tree.map(np.testing.assert_array_equal, growing.grow(params, init((4, 4, 4), seed=1), 4), params)


def test_a_whole_stretch_puts_the_old_rows_between_the_new_ones():
    table = np.asarray([[0.0], [1.0], [2.0], [3.0]], np.float32)
    np.testing.assert_allclose(growing.stretch(table, 8)[:, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    np.testing.assert_allclose(growing.stretch(table, 12)[1::3], table, atol=1e-6)  # centres meet at odd factors
    np.testing.assert_allclose(growing.stretch(table, 4), table)


def test_frames_are_stretched_and_time_goes_on():
    old, new = init((4, 4, 4)), init((6, 8, 12), seed=1)
    grown = positions(growing.grow(old, new, 4))
    np.testing.assert_array_equal(grown["time"][:4], positions(old)["time"])
    np.testing.assert_array_equal(grown["time"][4:], positions(new)["time"][4:])
    np.testing.assert_allclose(grown["height"], growing.stretch(positions(old)["height"], 8))
    assert grown["width"].shape == (12, 16)


def test_the_time_table_of_an_image_model_is_made_anew():
    old, new = init((1, 4, 4)), init((6, 4, 4), seed=1)
    np.testing.assert_array_equal(positions(growing.grow(old, new, 4))["time"], positions(new)["time"])


def test_a_model_with_more_channels_starts_out_blind_to_them():
    old, new = init((4, 4, 4)), init((4, 4, 4), channels=5, seed=1)
    new["params"]["head"] = old["params"]["head"]  # a head of three channels: that of an image-to-video model
    grown = growing.grow(old, new, 4)
    kernel, before = (np.asarray(tree["params"]["patch"]["kernel"]) for tree in (grown, old))
    rng = np.random.default_rng(0)
    video = rng.normal(size=(4, 5)).astype(np.float32)  # the latents of a patch, channels last
    np.testing.assert_allclose(video.reshape(-1) @ kernel, video[:, :3].reshape(-1) @ before, rtol=1e-5)
    assert kernel.shape == (20, 16) and (kernel.reshape(4, 5, 16)[:, 3:] == 0).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: p["params"].pop("head"), r"'params/head/kernel' is \(16, 12\) there and absent"),
        (lambda p: p["params"]["head"].update(bias=jnp.zeros(3)), r"'params/head/bias' is absent there and \(3,\)"),
        (lambda p: p["params"]["positions"].update(time=jnp.zeros((2, 16))), r"'params/positions/time' is \(4, 16\)"),
        (lambda p: p["params"]["patch"].update(kernel=jnp.zeros((14, 16))), r"'params/patch/kernel' is \(12, 16\)"),
        (lambda p: p["params"]["head"].update(kernel=jnp.zeros((20, 12))), r"'params/head/kernel' is \(16, 12\)"),
    ],
)
def test_what_growing_does_not_explain_is_an_error_that_names_it(change, sentence):
    old, new = init((4, 4, 4)), init((4, 4, 4), seed=1)
    change(new)
    with pytest.raises(ValueError, match=sentence):
        growing.grow(old, new, 4)
