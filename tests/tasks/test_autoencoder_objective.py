"""What an autoencoder learns by, as its config says it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.autoencoders import published
from tests.tasks.experiments import AUTOENCODER, ROOT
from vidflow import config as configs
from vidflow import train
from vidflow.errors import UsageError
from vidflow.parallel import rules
from vidflow.tasks import autoencoder, frozen_autoencoder
from vidflow.training.telemetry import read_metrics

ADVERSARIAL = ("losses.adversarial=0.1", "discriminator.width=8", "discriminator.layers=2", "discriminator.start=3")


def learner(*overrides):
    pairs = [tuple(text.split("=", 1)) for text in ("data.frames=4", "data.height=16", "data.width=16", *overrides)]
    return autoencoder.outline(configs.override(configs.load(AUTOENCODER), pairs))


def batch(rows=2, step=0):
    video = jax.random.randint(jax.random.key(1), (rows, 4, 16, 16, 3), 0, 256).astype(jnp.uint8)
    return {"video": video, "step": jnp.full(rows, step)}


def gradient(learner, step=0):
    params = rules.unbox(jax.jit(learner.init)(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(2), 2)
    return jax.jit(jax.value_and_grad(learner.objective, has_aux=True))(params, keys, batch(step=step))


def largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_every_loss_with_a_weight_is_told_and_adds_up(tmp_path):
    save_file(published.tensors("lpips_alex"), tmp_path / "alex.safetensors")
    names = ("l1", "l2", "kl", "wavelet", "random_features", "outliers", "consistency")
    weights = {name: 0.5 + place for place, name in enumerate(names)}
    (loss, metrics), _ = gradient(learner(*(f"losses.{name}={weight}" for name, weight in weights.items())))
    np.testing.assert_allclose(loss, sum(weights[name] * metrics[name] for name in names), rtol=1e-5)
    assert set(metrics) == {*names, "psnr"}
    big = ("data.height=48", "data.width=48", "losses.perceptual=2.0", f"lpips={tmp_path / 'alex.safetensors'}")
    assert (
        "perceptual"
        in jax.eval_shape(
            learner(*big).objective,
            jax.eval_shape(learner(*big).init, jax.random.key(0)),
            jax.random.split(jax.random.key(0), 2),
            {"video": jnp.zeros((2, 4, 48, 48, 3), jnp.uint8), "step": jnp.zeros(2, jnp.int32)},
        )[1]
    )


def test_neither_side_of_the_game_moves_the_other():
    calm, _ = learner(), None
    before, _ = gradient(learner(*ADVERSARIAL), step=2)
    (_, alone) = gradient(calm)
    (_, metrics), grads = gradient(learner(*ADVERSARIAL, "discriminator.adaptive=false"), step=3)
    assert largest(grads["discriminator"]) > 0 and metrics["adversarial_weight"] == np.float32(0.1)
    # The discriminator's gradient is that of its hinge alone: with no weight on the other side it is the same.
    (_, _), weaker = gradient(learner(*ADVERSARIAL, "discriminator.adaptive=false", "losses.adversarial=1e-9"), step=3)
    for one, other in zip(
        jax.tree.leaves(grads["discriminator"]), jax.tree.leaves(weaker["discriminator"]), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)
    # And that of the autoencoder has nothing of the hinge: with no weight it is as without a discriminator.
    for one, other in zip(jax.tree.leaves(weaker["params"]), jax.tree.leaves(alone["params"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert before[1]["psnr"] > 0


def test_they_play_from_the_start_step_on():
    game = learner(*ADVERSARIAL)
    for step in (0, 2):
        _, grads = gradient(game, step)
        assert largest(grads["discriminator"]) == 0
    (_, metrics), grads = gradient(game, 3)
    assert largest(grads["discriminator"]) > 0 and metrics["adversarial_weight"] > 0


def test_batches_of_images_have_no_time():
    """With temporal weights that mix frames, every fourth batch is still one of frames by themselves."""
    mixed = learner("data.image_every=4")
    (loss, _), grads = gradient(mixed, step=4)
    kernel = grads["params"]["encoder"]["in"]["temporal"]["kernel"]
    # Of one frame, the neighbours are copies of itself: the three taps learn the same.
    np.testing.assert_allclose(kernel[0], kernel[1], rtol=1e-4, atol=1e-7)
    (_, _), grads = gradient(mixed, step=5)
    kernel = grads["params"]["encoder"]["in"]["temporal"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1], rtol=1e-2)
    assert np.isfinite(loss)


@pytest.mark.slow
def test_a_share_of_the_steps_learns_in_tiles():
    """A decoder that sees its neighbours gives something else in tiles, at some steps and not at others."""
    tiles = ("tiles.size=2,2,2", "tiles.overlap=1,1,1")
    whole, in_tiles, some = (
        [float(gradient(learner(*tiles, f"tile_share={share}"), step)[0][0]) for step in range(5)]
        for share in (0.0, 1.0, 0.5)
    )
    assert all(one != other for one, other in zip(whole, in_tiles, strict=True))
    drawn = [one == other for one, other in zip(some, in_tiles, strict=True)]
    assert 0 < sum(drawn) < 5
    for found, used, tiled, plain in zip(some, drawn, in_tiles, whole, strict=True):
        assert found == (tiled if used else plain)


def test_a_share_of_the_clips_shows_its_first_frame():
    """All of them or none; and some by the key of the row."""
    losses = []
    for share in ("0.0", "1.0", "0.5"):
        shown = learner("model.hinted=true", f"hint_share={share}")
        params = rules.unbox(jax.jit(shown.init)(jax.random.key(0)))
        decoder = params["params"]["decoder"]
        for name in ("hint_0", "hint_1"):
            decoder[name]["kernel"] = decoder[name]["kernel"] + 0.3
        keys = jax.random.split(jax.random.key(2), 8)
        losses.append(float(jax.jit(shown.objective)(params, keys, batch(8))[0]))
    assert losses[0] != losses[1] and min(losses[:2]) < losses[2] < max(losses[:2])


def test_groups_that_no_layer_has_may_be_any():
    config = configs.load(f"{ROOT}/experiments/moviegen/autoencoder.py:like=wan,smoke")
    model = configs.override(config, [("model.groups", "32")]).model
    assert model.norm == "rms" and any(width % 32 for width in model.widths)
    assert frozen_autoencoder.make_model(model).compression.channels == model.channels


def test_an_image_is_not_shown_to_its_decoder():
    found = []
    for share in ("0.0", "1.0"):
        of_images = learner("model.hinted=true", f"hint_share={share}", "data.image_every=1")
        params = rules.unbox(jax.jit(of_images.init)(jax.random.key(0)))
        for name in ("hint_0", "hint_1"):
            params["params"]["decoder"][name]["kernel"] += 0.3
        keys = jax.random.split(jax.random.key(2), 2)
        found.append(float(jax.jit(of_images.objective)(params, keys, batch())[0]))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hint_share=0.5", "config.model.hinted is false"),
        ("tile_share=1.0", "config.tiles.size is empty"),
        ("losses.perceptual=1", "needs config.lpips=FILE"),
        ("model.family=vq", "'vq': use tae"),
        ("model.family=causal", "has no up_strides, norm, edge, jointly: .*like=wan"),
        ("model.kind=3D", "config.model.kind is '3D': use '2.5d' or '3d'"),
        ("model.groups=5", "does not divide the 16 features of a level"),
        ("model.widths=16,16,16", "strides has 1 strides and config.model.widths 3 levels"),
        ("model.strides=((2,1),(2,2))", "strides has 2 strides and config.model.widths 2 levels"),
        ("model.strides=((2,),)", "are not pairs"),
        ("model.strides=((0,2),)", "each number must be 1 or more"),
        ("tiles.size=2.5,2,2 tiles.overlap=1,1,1", "give whole numbers"),
        ("losses.l1=0 losses.l2=0 losses.kl=0", "Every weight in config.losses is 0"),
        ("losses.l1=0 losses.l2=0 losses.adversarial=1", "config.losses has none: set one, or adaptive to false"),
        ("losses.adversarial=1 discriminator.start=9 stability.loss_spike=4", "takes all steps from there for spikes"),
    ],
)
def test_what_cannot_be_is_a_sentence(override, message):
    with pytest.raises(UsageError, match=message):
        learner(*override.split())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.norm=frames model.groups=3", "config.model.groups=3 does not divide the 8 features"),
        ("model.norm=layer", "config.model.norm is 'layer': use 'rms' or 'frames' or 'clip'"),
        ("model.attention=frames", "config.model.attention is 'frames': use '' or 'frame' or 'earlier'"),
        ("model.up_strides=(2,2,2)", r"up_strides=\(2, 2, 2\) do not undo config.model.strides=\(1, 2, 2\)"),
        ("model.strides=(1,1,4) model.up_strides=(1,1,4)", "give 1 or 2 instead of 4"),
        ("model.up_strides=(2,2)", "up_strides has 2 strides and config.model.widths 4 levels"),
        ("tiles.size=2,2,2 tiles.overlap=0,0,0", "must overlap by at least 1 latent"),
    ],
)
def test_what_cannot_be_of_a_causal_one_is_a_sentence(override, message):
    config = configs.load(f"{ROOT}/experiments/moviegen/autoencoder.py:like=wan,smoke")
    with pytest.raises(UsageError, match=message):
        autoencoder.outline(configs.override(config, [tuple(text.split("=", 1)) for text in override.split()]))


@pytest.mark.slow
@pytest.mark.parametrize("time", [1, 3])
def test_a_game_in_bfloat16_stays_finite(tmp_path, time):
    """Open-Sora-Plan #265: their discriminator gave NaN in half precision."""
    flags = [f"--config.{text}" for text in (*ADVERSARIAL, "data.frames=4", "data.height=16", "data.width=16")]
    flags += ["--config.model.dtype=bfloat16", f"--config.discriminator.time={time}", "--config.discriminator.r1=0.1"]
    train.main([f"--config={AUTOENCODER}", f"--workdir={tmp_path}", *flags, "--config.steps=150"])
    lines = read_metrics(tmp_path)
    assert lines[-1]["skipped"] == 0 and all(np.isfinite(line["loss"]) for line in lines)
    assert lines[-1]["psnr"] > lines[3]["psnr"] + 3
    assert any(line["discriminator"] < 0.98 for line in lines[20:])  # it tells them apart
