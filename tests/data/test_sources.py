"""`config.data.source`: which function it names, and the worked example of docs/extending.md."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tasks.experiments import AUTOENCODER
from vidflow import config as configs
from vidflow import evaluate, train
from vidflow.data.sources import is_held_out, make_source, to_bytes, to_float
from vidflow.errors import UsageError

DOCUMENT = Path(__file__).parents[2] / "docs" / "extending.md"
WRONG = """
import numpy as np

class Clips(list):
    pass

def floats(data):
    return Clips([{"video": np.zeros((data.frames, data.height, data.width, 3)), "caption": ""}])

def small(data):
    return Clips([{"video": np.zeros((data.frames, 8, 8, 3), np.uint8), "caption": ""}])

def silent(data):
    return Clips([{"video": np.zeros((data.frames, data.height, data.width, 3), np.uint8)}])

def bare(data):
    return Clips([np.zeros((data.frames, data.height, data.width, 3), np.uint8)])

def none():
    return Clips()

def later(data):
    good = {"video": np.zeros((data.frames, data.height, data.width, 3), np.uint8), "caption": ""}
    return Clips([good, {**good, "video": good["video"][1:]}])
"""


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """The settings of the document's command, with its module and a file of the same form in a folder of its own."""
    text = DOCUMENT.read_text()
    (tmp_path / "my_data.py").write_text(re.search(r"## A data set.*?```python\n(.*?)```", text, re.DOTALL)[1])
    (tmp_path / "wrong.py").write_text(WRONG)
    np.save(tmp_path / "mnist_test_seq.npy", np.random.default_rng(0).integers(0, 256, (20, 40, 64, 64), np.uint8))
    monkeypatch.syspath_prepend(tmp_path)
    flags = re.findall(r"--config\.data\.\S+", text)
    assert [flag.partition("=")[0].rpartition(".")[2] for flag in flags] == ["source", "path", "height", "width"]
    settings = dict(flag.removeprefix("--config.").split("=") for flag in flags)
    settings["data.path"] = str(tmp_path / "mnist_test_seq.npy")
    settings["data.source"] += ":held_out=8"
    yield settings
    for name in ("my_data", "wrong"):
        sys.modules.pop(name, None)


def test_a_function_of_your_own_gives_the_clips_of_both_splits(digits):
    data = configs.override(configs.load(AUTOENCODER), list(digits.items())).data
    raw = np.load(data.path)
    splits = {split: make_source(data, seed=0, split=split) for split in ("train", "test")}
    assert [len(source) for source in splits.values()] == [32, 8] and is_held_out(data)
    assert (splits["test"][1]["video"][..., 2] == raw[: data.frames, 33]).all()


def test_a_run_learns_from_them_and_is_scored_on_those_held_out(digits, tmp_path):
    flags = [f"--config.{key}={value}" for key, value in digits.items()]
    train.main([f"--config={AUTOENCODER}", f"--workdir={tmp_path / 'run'}", *flags])
    evaluate.main([f"--run={tmp_path / 'run'}"])
    said = json.loads((tmp_path / "run" / "protocol.json").read_text())
    assert (said["split"], said["clips"]) == ("held out", 8)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("bonce", "'bonce'; did you mean 'bounce'? There are bounce, folder, and"),
        ("my_data.moving", "cannot be imported"),
        ("my_data.moving_mnist:held=3", "'held' is unknown; did you mean 'held_out'"),
        ("my_data.Digits", "is no function"),
        *((f"wrong.{name}", "is not {'video': uint8") for name in ("floats", "small", "silent", "bare", "none")),
    ],
)
def test_what_is_no_source_of_clips_is_refused(digits, source, said):
    data = configs.override(configs.load(AUTOENCODER), [*digits.items(), ("data.source", source)]).data
    with pytest.raises(UsageError) as refusal:
        make_source(data, seed=0)
    assert said in str(refusal.value)


def test_a_later_clip_of_another_size_is_named(digits):
    data = configs.override(configs.load(AUTOENCODER), [*digits.items(), ("data.source", "wrong.later")]).data
    source = make_source(data, seed=0)
    with pytest.raises(UsageError, match=r"Clip 1 of config.data.source=wrong.later is not \{'video': uint8"):
        source[1]


@pytest.mark.parametrize("inside", ["", "/test", "/a/../test"])
def test_videos_to_test_with_are_not_among_those_to_learn_from(tmp_path, inside):
    data = configs.load(AUTOENCODER).data
    data.source, data.path, data.test_path = "folder", str(tmp_path), f"{tmp_path}{inside}"
    for split in ("train", "test"):
        with pytest.raises(UsageError, match="so that its videos are learnt from: move it beside"):
            make_source(data, seed=0, split=split)


def test_bytes_are_the_nearest_levels_and_what_is_no_number_is_refused():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1).repeat(3, axis=-1)
    np.testing.assert_array_equal(to_bytes(to_float(levels)), levels)
    np.testing.assert_array_equal(to_bytes(np.float32([[[[-9.0, 0.001, np.inf]]]])), [[[[0, 128, 255]]]])
    with pytest.raises(UsageError, match="pixels that are not numbers"):
        to_bytes(np.float32([[[[0.0, np.nan, 0.0]]]]))
