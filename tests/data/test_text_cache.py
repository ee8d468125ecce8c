"""The cache of embeddings: every text once, whole or not at all, by one encoder."""

import shutil

import numpy as np
import pytest

from vidflow.data import parts
from vidflow.data.text_cache import TextCache
from vidflow.errors import UsageError


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "SLICES", 3)


class Encode:
    """A text of n characters has n tokens, all of them n; counts what it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        longest = max(map(len, texts))
        mask = np.arange(longest) < np.array([[len(text)] for text in texts])
        return mask[..., None] * np.full((1, 1, 2), 1.0) * mask.sum(axis=1)[:, None, None], mask


HOW = {"tokens": 5}


def fill(folder, texts, encode=None, digest="abc", text_bytes=1):
    cache = TextCache(folder, HOW, digest)
    return cache, list(cache.add(texts, encode or Encode(), text_bytes))


def test_every_text_is_encoded_once_and_read_at_random(tmp_path):
    encode = Encode()
    cache, parts = fill(tmp_path, ["a", "bb", "a", "cccc", "ddd", "bb"], encode)
    assert parts == [3, 1] and encode.asked == ["a", "bb", "cccc", "ddd"]
    for one in (cache, TextCache(tmp_path, HOW)):  # as it was written, and by another process
        for text in ("ddd", "a", "cccc"):
            np.testing.assert_array_equal(one[text].astype(np.float32), np.full((len(text), 2), len(text)))
        assert "bb" in one and "eeeee" not in one


def test_it_grows_with_the_data_sets_that_use_it(tmp_path):
    fill(tmp_path, ["a", "bb"])
    encode = Encode()
    cache, _ = fill(tmp_path, ["bb", "ccc"], encode)
    assert encode.asked == ["ccc"] and "a" in cache
    assert len(list(tmp_path.glob("part-*.json"))) == 2


def test_embeddings_are_those_of_the_encoder_that_is_named(tmp_path):
    fill(tmp_path / "one", ["a"], digest="abc")
    fill(tmp_path / "other", ["a", "bb"], digest="def")
    for part in (tmp_path / "other").glob("part-*"):  # of a process that began the same folder at the same moment
        shutil.copy(part, tmp_path / "one")
    assert "bb" not in TextCache(tmp_path / "one", HOW) and "a" in TextCache(tmp_path / "one", HOW)
    (tmp_path / "one" / "encoder.json").unlink()
    with pytest.raises(UsageError, match="holds embeddings, and encoder.json, which says whose, is missing: restore"):
        TextCache(tmp_path / "one", HOW, "def")


def test_embeddings_that_are_no_numbers_are_refused(tmp_path):
    def broken(texts):
        embeddings, mask = Encode()(texts)
        embeddings[texts.index("bb"), 0] = np.nan
        return embeddings, mask

    with pytest.raises(UsageError, match="The embedding of 'bb' for .* is no number"):
        fill(tmp_path, ["a", "bb"], broken)
    assert not list(tmp_path.glob("part-*"))


def test_an_interrupted_encode_goes_on_with_what_is_missing(tmp_path):
    def dies(texts):
        if "eeeee" in texts:
            raise KeyboardInterrupt
        return Encode()(texts)

    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, texts, dies)
    encode = Encode()
    cache, _ = fill(tmp_path, texts, encode)
    assert encode.asked == ["dddd", "eeeee"] and all(text in cache for text in texts)


@pytest.mark.parametrize("spoil", ["cut", "card"])
def test_a_damaged_part_is_not_read_and_is_made_again(tmp_path, spoil, caplog):
    fill(tmp_path, ["a", "bb"])
    (part,) = tmp_path.glob("part-*.safetensors" if spoil == "cut" else "part-*.json")
    part.write_bytes(part.read_bytes()[:-20])
    assert "a" not in TextCache(tmp_path, HOW) and "not what was written" in caplog.text
    cache, parts = fill(tmp_path, ["a", "bb"])
    assert parts == [2] and "a" in TextCache(tmp_path, HOW)


def test_altered_embeddings_are_refused_when_they_are_read(tmp_path):
    fill(tmp_path, ["a", "bb"])
    (part,) = tmp_path.glob("part-*.safetensors")
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    cache = TextCache(tmp_path, HOW)
    assert cache["a"].shape == (1, 2)
    with pytest.raises(UsageError, match="is damaged: delete it"):
        cache["bb"]


def test_another_encoder_is_refused(tmp_path):
    fill(tmp_path, ["a"])
    with pytest.raises(UsageError, match="another encoder"):
        TextCache(tmp_path, HOW, "def")
    with pytest.raises(UsageError, match=r"tokens=5; not tokens=6"):
        TextCache(tmp_path, {"tokens": 6})
    with pytest.raises(UsageError, match="run vidflow encode"):
        TextCache(tmp_path / "nowhere", HOW)


def test_a_part_has_no_more_texts_than_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "BYTES", 20)
    assert fill(tmp_path, ["a", "bb", "ccc"], text_bytes=10)[1] == [2, 1]
    assert fill(tmp_path / "large", ["a", "bb"], text_bytes=30)[1] == [1, 1]


def test_texts_with_the_separator_of_others_are_others(tmp_path):
    fill(tmp_path, ["a", "b"])
    fill(tmp_path, ["a\0b"])
    assert all(text in TextCache(tmp_path, HOW) for text in ("a", "b", "a\0b"))
