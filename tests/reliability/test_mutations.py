"""Damaged files: refused with a reason, or read as what they still are; no crash, no hang, nothing half-true."""

import gc
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.real_clips import REAL_CLIPS, real_clip
from tests.reliability.mutations import mutated
from vidflow.data import captions
from vidflow.data.decoders import Decoders
from vidflow.data.folder import FolderSource
from vidflow.data.latents_cache import LatentsSource
from vidflow.errors import UsageError
from vidflow.tasks import frozen_autoencoder
from vidflow.training import run_folder, weights
from vidflow.training.checkpoint import Checkpoints
from vidflow.training.state import fresh

SOME = pytest.mark.parametrize("part", [0.1, pytest.param(1.0, marks=pytest.mark.slow)])


# Orbax leaves readers behind that were cut short. They complain when they are collected: here, not in other tests.
QUIET = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def collected():
    yield
    gc.collect()


def attempt(action, *arguments, **more):
    """What `action` gives, or the sentence with which it refuses; anything else fails the test."""
    try:
        return action(*arguments, **more)
    except UsageError as error:
        assert str(error)
        return str(error)


@SOME
def test_videos(part, tmp_path):
    """Read, the same way every time, or refused with a reason, at the latest when pixels are asked for."""
    pool, outcomes = Decoders(), {"read": 0, "refused": 0, "refused late": 0}
    for seed in range(int(1000 * part)):
        path = tmp_path / f"{seed}.mp4"
        path.write_bytes(mutated(real_clip(REAL_CLIPS[seed % len(REAL_CLIPS)].name).read_bytes(), seed))
        info = attempt(pool.probe, path)
        if isinstance(info, str):
            outcomes["refused"] += 1
            assert attempt(pool.read, path, frames=1, height=16, width=16, fps=None) == info
        else:
            last = {"frames": 1, "height": 16, "width": 16, "fps": None, "skip": info.frames - 1}
            one, again = (attempt(pool.read, path, **last) for _ in range(2))
            np.testing.assert_array_equal(one, again)
            outcomes["refused late" if isinstance(one, str) else "read"] += 1
        path.unlink()
    assert len(pool._idle) == 1  # one process served them all
    assert min(outcomes["read"], outcomes["refused"]) > 0 and outcomes["refused late"] <= 0.01 * sum(outcomes.values())


@SOME
def test_captions(part, tmp_path):
    """Before a run nobody knows what a caption was; once a run has listed them a changed one is refused."""
    for name in "ab":
        shutil.copy(real_clip("carphone_distorted.mp4"), tmp_path / f"{name}.mp4")
    videos = {f"{name}.mp4": tmp_path / f"{name}.mp4" for name in "ab"}
    listed = tmp_path / "captions.jsonl"
    whole = b'{"file": "a.mp4", "caption": "a man talks"}\n{"file": "b.mp4", "caption": "ein Mann h\xc3\xb6rt zu"}\n'
    for seed in range(int(150 * part)):
        listed.write_bytes(mutated(whole, seed))
        found = attempt(captions.read, tmp_path, videos)
        assert isinstance(found, str) or set(found) <= set(videos)
    listed.write_bytes(whole)
    clip = {"frames": 16, "height": 8, "width": 8, "fps": None, "manifest": tmp_path / "data.json"}
    right = captions.read(tmp_path, videos)
    FolderSource(tmp_path, **clip)
    for seed in range(int(50 * part)):
        listed.write_bytes(mutated(whole, seed))
        source = attempt(FolderSource, tmp_path, **clip)
        if not isinstance(source, str):
            assert captions.read(tmp_path, videos, others=True) == right


def check_each(part, number, paths, read, same):
    """Damages the files one at a time: reading refuses, or gives what it gave before."""
    originals, right, refused = {path: path.read_bytes() for path in paths}, read(), 0
    for seed in range(max(int(number * part), 5)):
        path = paths[seed % len(paths)]
        path.write_bytes(mutated(originals[path], seed))
        found = attempt(read)
        refused += isinstance(found, str)
        assert isinstance(found, str) or same(found, right), (path, seed)
        path.write_bytes(originals[path])
    assert refused


@SOME
def test_configs(part, smoke_run, tmp_path):
    shutil.copy(smoke_run / "config.json", tmp_path)
    check_each(part, 150, [tmp_path / "config.json"], lambda: run_folder.read_config(tmp_path), lambda a, b: a == b)


@SOME
def test_caches(part, smoke_run, tmp_path):
    folder = shutil.copytree(smoke_run / "latents", tmp_path / "latents")

    def read():
        source = LatentsSource(folder)
        clips = [(source[index]["latents"].tobytes(), source.captions[index]) for index in range(len(source))]
        return source.recipe, clips

    check_each(part, 200, sorted(folder.iterdir()), read, lambda a, b: a == b)


@SOME
def test_autoencoders(part, smoke_run, tmp_path):
    folder = shutil.copytree(smoke_run / "autoencoder", tmp_path / "autoencoder")

    def read():
        loaded = frozen_autoencoder.load(folder)
        return loaded.params, loaded.statistics

    check_each(part, 100, sorted(folder.iterdir()), read, same_trees)


@SOME
def test_weights(part, smoke_run, tmp_path):
    path = tmp_path / "weights.safetensors"
    shutil.copy(smoke_run / path.name, path)
    check_each(part, 100, [path], lambda: weights.load(path)[0], same_trees)


@SOME
@QUIET
def test_checkpoints(part, tmp_path, collected):
    """Of two checkpoints the newer one is damaged: it is as it was, or it is set aside and the older one is taken."""
    optimizer = optax.adam(1e-3)

    def state(step):
        params = {"a": {"kernel": jax.random.normal(jax.random.key(step), (40, 40))}, "b": jnp.arange(3.0) + step}
        return fresh(params, optimizer).replace(step=jnp.asarray(step, jnp.int32))

    whole = tmp_path / "whole"
    checkpoints = Checkpoints(whole)
    for step in (3, 6):
        checkpoints.save(state(step), step)
    checkpoints.close()
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(6))
    names = sorted(path.relative_to(whole) for path in (whole / "6").rglob("*") if path.is_file())
    older = 0
    for seed in range(max(int(300 * part), len(names))):
        folder = shutil.copytree(whole, tmp_path / "damaged")
        path = folder / names[seed % len(names)]
        path.write_bytes(mutated(path.read_bytes() or b" ", seed))
        checkpoints = Checkpoints(folder)
        found = checkpoints.restore(like)
        step = int(found.step)
        assert step in (3, 6) and same_trees(found, state(step)), (path, seed)
        if step == 3:
            older += 1
            assert checkpoints.latest() == 3 and (folder / "6.damaged").is_dir()
            checkpoints.save(state(6), 6)  # the run comes here again
        checkpoints.close()
        if step == 3 and older <= 3:
            again = Checkpoints(folder)
            assert same_trees(again.restore(like), state(6))
            again.close()
        shutil.rmtree(folder)
    assert older


@QUIET
def test_a_checkpoint_of_which_nothing_is_left_is_refused(tmp_path, collected):
    optimizer = optax.adam(1e-3)
    state = fresh({"a": jnp.ones((40, 40))}, optimizer)
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(state, 3)
    checkpoints.close()
    for path in (tmp_path / "c" / "3").rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(mutated(path.read_bytes(), 1))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(UsageError, match=r"No checkpoint in .* is undamaged \(step 3: .+\): restore the folder"):
        checkpoints.restore(like)
    checkpoints.close()


def same_trees(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_damage_is_a_function_of_the_seed_and_never_nothing():
    data = random.Random(0).randbytes(5000)
    for seed in range(200):
        assert mutated(data, seed) == mutated(data, seed) != data
    assert len({mutated(data, seed) for seed in range(200)}) > 190
