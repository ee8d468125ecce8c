"""Autoencoders in the layout of others, against what diffusers computes with the same weights."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.autoencoders import published
from tests.tasks.experiments import ROOT
from vidflow import autoencoders, train
from vidflow import config as configs
from vidflow.autoencoders import pretrained
from vidflow.autoencoders.latents import Compression
from vidflow.autoencoders.tiling import Tiles
from vidflow.errors import UsageError
from vidflow.tasks import frozen_autoencoder


@pytest.fixture(params=["wan", "hunyuan_video"])
def name(request):
    return request.param


def test_encode_and_decode_are_those_of_diffusers(name, tmp_path):
    model, golden = autoencoders.load(published.write(name, tmp_path)), published.golden(name)
    posterior = model.encode(published.video(9))
    np.testing.assert_allclose(posterior.mean, golden["mean"], atol=2e-5)
    np.testing.assert_allclose(posterior.logvar, golden["logvar"], atol=2e-5)
    np.testing.assert_allclose(model.decode(published.latents(3, 4), 9), golden["decoded"], atol=2e-5)
    assert model.compression == Compression(4, 8, 8, 4, first_alone=True)


def test_latents_are_normalised_as_the_config_says(tmp_path):
    z = published.latents(3, 4)
    wan = autoencoders.load(published.write("wan", tmp_path / "wan")).statistics
    np.testing.assert_allclose(wan.normalise(jnp.asarray(z))[..., 1], (z[..., 1] + 0.2) / 2.0, rtol=1e-6)
    hunyuan = autoencoders.load(published.write("hunyuan_video", tmp_path / "hunyuan")).statistics
    np.testing.assert_allclose(hunyuan.normalise(jnp.asarray(z)), z * 0.476986, rtol=1e-5)


def test_weights_of_another_layout_name_the_first_tensor(name, tmp_path):
    folder = published.write(name, tmp_path)
    tensors = published.tensors(name)
    first = "encoder.mid_block.resnets.1.norm1." + ("gamma" if name == "wan" else "weight")
    for change, message in (
        (lambda t: t.pop(first), f"have no tensor '{first}'"),
        (
            lambda t: t.update({first: np.zeros(5, np.float32)}),
            f"another layout: '{first}' is \\(5,\\), and encoder/mid",
        ),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "hold 'extra'"),
    ):
        changed = dict(tensors)
        change(changed)
        save_file(changed, folder / published.FILE)
        with pytest.raises(UsageError, match=message):
            autoencoders.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "AutoencoderKLCogVideoX"}, "describes a model AutoencoderKLCogVideoX: vidflow reads Auto"),
        ({"_class_name": None}, "is no model that diffusers saved: .* with --run"),
        ({"is_residual": True}, "sets is_residual, as Wan 2.2"),
        ({"z_dim": None}, "has no 'z_dim'"),
    ],
)
def test_another_kind_of_model_is_refused(change, message, tmp_path):
    folder = published.write("wan", tmp_path)
    config = json.loads((folder / "config.json").read_text()) | change
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=message):
        autoencoders.load(folder)


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(UsageError, match="config.json cannot be read"):
        autoencoders.load(tmp_path)
    folder = published.write("wan", tmp_path)
    (folder / published.FILE).write_bytes((folder / published.FILE).read_bytes()[:-100])
    with pytest.raises(UsageError, match="is not a whole safetensors file"):
        autoencoders.load(folder)


def test_sizes_that_strides_do_not_divide_are_filled_up_and_cut(tmp_path):
    model, video = autoencoders.load(published.write("wan", tmp_path)), published.video(5)[:, :, :11, :14]
    filled = np.pad(video, ((0, 0), (0, 0), (0, 5), (0, 2), (0, 0)), mode="edge")
    z, expected = model.encode(video).mean, model.encode(filled).mean
    assert jnp.array_equal(z, expected) and z.shape[2:4] == (2, 2)
    assert jnp.array_equal(model.decode(z, 5, (11, 14)), model.decode(z, 5)[:, :, :11, :14])
    assert model.decode(model.encode(video[:, :1, :1, :1]).mean, 1, (1, 1)).shape == (1, 1, 1, 1, 3)


def test_weights_lie_on_the_device(tmp_path):
    """Those that lie in the memory of the host would go to the device with every batch."""
    model = autoencoders.load(published.write("wan", tmp_path))
    config = configs.load(f"{ROOT}/experiments/moviegen/autoencoder.py:like=wan,smoke").model
    weights = jax.tree.map(np.asarray, model.params)
    for one in (model, frozen_autoencoder.FrozenAutoencoder(config, weights, model.statistics, "digest")):
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(one.params))


def test_encode_and_decode_go_in_tiles(tmp_path):
    """Those that a causal model refuses are refused, so they are asked for."""
    model = autoencoders.load(published.write("wan", tmp_path), Tiles((1, 1, 1), (0, 0, 0)))
    with pytest.raises(UsageError, match="must overlap by at least 1 latent"):
        model.encode(published.video(9))
    with pytest.raises(UsageError, match="must overlap by at least 1 latent"):
        model.decode(published.latents(3, 4), 9)


@pytest.mark.parametrize(
    ("video", "reach"),
    [
        (np.full((1, 1, 8, 8, 3), 255.0, np.float32), "255 to 255"),
        (np.full((1, 1, 8, 8, 3), -1.1, np.float32), "-1.1 to -1.1"),
        (np.full((1, 1, 8, 8, 3), np.nan, np.float32), "nan to nan"),
    ],
)
def test_pixels_of_another_range_are_refused(video, reach, tmp_path):
    with pytest.raises(UsageError, match=f"go from {reach}: of bytes, give video / 127.5 - 1"):
        autoencoders.load(published.write("wan", tmp_path)).encode(video)


# Images


@pytest.fixture(params=["image", "image_without_quant_conv"])
def image(request, tmp_path):
    return request.param, autoencoders.load(published.write(request.param, tmp_path))


def test_an_inflated_model_is_the_image_model_on_an_image(image):
    name, model = image
    golden = published.golden(name)
    posterior = model.encode(published.video(1))
    np.testing.assert_allclose(posterior.mean, golden["mean"], atol=2e-5)
    np.testing.assert_allclose(posterior.logvar, golden["logvar"], atol=2e-5)
    np.testing.assert_allclose(model.decode(published.latents(1, 4), 1), golden["decoded"], atol=2e-5)
    assert model.compression == Compression(8, 8, 8, 4)


def test_an_inflated_model_is_the_image_model_frame_by_frame(image):
    """A stride along time takes every second frame, and decoding shows each of them twice."""
    _, model = image
    video, z = published.video(17), published.latents(2, 4)
    frames = np.concatenate([model.encode(video[:, place : place + 1]).mean for place in (0, 8, 16)], axis=1)
    np.testing.assert_allclose(model.encode(video).mean, frames, atol=2e-5)
    pictures = np.concatenate([model.decode(z[:, place : place + 1], 1) for place in (0, 1)], axis=1)
    np.testing.assert_allclose(model.decode(z, 16), np.repeat(pictures, 8, axis=1), atol=2e-5)


def test_image_latents_are_shifted_and_scaled(tmp_path):
    z = published.latents(1, 4)
    statistics = autoencoders.load(published.write("image", tmp_path)).statistics
    np.testing.assert_allclose(statistics.normalise(jnp.asarray(z)), (z - 0.1) * 0.5, rtol=1e-5, atol=1e-6)


def test_an_image_autoencoder_of_the_first_years_is_read_too(tmp_path):
    """As Stable Diffusion 1's: attention has its old names, and the config no factor."""
    new, old = (published.write("image", tmp_path / name) for name in ("new", "old"))
    config = json.loads((old / "config.json").read_text())
    module = pretrained.FORMATS["AutoencoderKL"].module(config)
    like = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3))))["params"]
    del config["scaling_factor"]
    (old / "config.json").write_text(json.dumps(config))
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = published.tensors("image")
    for name in list(tensors):
        for word, before in names.items():
            if f".attentions.0.{word}." in name:
                tensors[name.replace(word, before)] = tensors.pop(name)
    assert tensors.keys() != published.tensors("image").keys()
    save_file(tensors, old / published.FILE)
    found, wanted = pretrained.read(old, like), pretrained.read(new, like)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(value, wanted[name]) for name, value in found.items())
    assert pretrained.FORMATS["AutoencoderKL"].statistics(config).std[0] == pytest.approx(1 / 0.18215)


@pytest.mark.slow
def test_a_run_starts_from_an_image_autoencoder(tmp_path):
    """At a learning rate of nothing its average is the image model, inflated."""
    folder = published.write("image_without_quant_conv", tmp_path / "image")
    flags = [f"--config={ROOT}/experiments/moviegen/autoencoder.py:smoke", f"--config.init_from={folder}"]
    flags += ["--config.model.widths=8,8,16,16", "--config.model.blocks=1", "--config.model.attention=true"]
    flags += ["--config.model.hinted=true"]
    flags += ["--config.model.groups=4", "--config.model.channels=4", "--config.optimizer.learning_rate=0"]
    train.main([*flags, "--config.steps=1", f"--workdir={tmp_path / 'run'}", "--config.data.frames=1"])
    trained = frozen_autoencoder.load(tmp_path / "run" / "autoencoder")
    image, video = autoencoders.load(folder), published.video(1)
    posterior = trained.statistics.denormalise(
        jnp.asarray(trained.encode(np.rint((video + 1) * 127.5).astype(np.uint8)))
    )
    rounded = np.rint((video + 1) * 127.5).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(posterior, image.encode(rounded).mean, atol=1e-4)
    with pytest.raises(UsageError, match="of another layout|no tensor"):
        train.main([*flags, "--config.model.widths=8,8,8,8", f"--workdir={tmp_path / 'other'}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wan", "hunyuan_video"])
def test_a_run_starts_from_a_causal_autoencoder(name, tmp_path):
    """At a learning rate of nothing its average is the published model."""
    folder, video = published.write(name, tmp_path / "published"), published.video(5)
    model = autoencoders.load(folder)
    flags = [f"--config={ROOT}/experiments/moviegen/autoencoder.py:like={name},smoke", f"--config.init_from={folder}"]
    for field in ("widths", "blocks", "channels", "groups", "attention"):
        value = getattr(model.module.layout, field)
        flags.append(f"--config.model.{field}={','.join(map(str, value)) if isinstance(value, tuple) else value}")
    flags += ["--config.optimizer.learning_rate=0", "--config.steps=1", "--config.data.frames=5"]
    train.main([*flags, f"--workdir={tmp_path / 'run'}"])
    trained = frozen_autoencoder.load(tmp_path / "run" / "autoencoder")
    latents = trained.encode(np.rint((video + 1) * 127.5).astype(np.uint8))
    rounded = np.rint((video + 1) * 127.5).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(
        trained.statistics.denormalise(jnp.asarray(latents)), model.encode(rounded).mean, atol=1e-5
    )
