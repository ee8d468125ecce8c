"""The cache of latents: written in parts, whole or not at all, each clip checked as it is read."""

import tracemalloc

import numpy as np
import pytest

from vidflow import files
from vidflow.data import latents_cache, parts
from vidflow.data.latents_cache import LatentsSource, Layout
from vidflow.errors import UsageError

RECIPE = {"autoencoder": "abc", "data": {"level": 0}}


def encode(indices):
    latents = np.stack([np.full((1, 2, 2, 3), i, np.float32) for i in indices])
    return latents, [f"clip {i}" for i in indices]


def interrupted(at):
    def dies(indices):
        if indices.start == at:
            raise RuntimeError
        return encode(indices)

    return dies


def write(folder, clips=10, encode=encode, recipe=RECIPE, share=latents_cache.ALL, clips_per_part=4):
    latents_cache.begin(folder, recipe, Layout(clips, clips_per_part))
    return list(latents_cache.write(folder, encode, share))


def test_what_is_written_is_read_at_random(tmp_path):
    assert write(tmp_path) == [4, 4, 2]
    source = LatentsSource(tmp_path)
    assert len(source) == 10 and source.latent_shape == (1, 2, 2, 3)
    for index in (9, 0, 5):
        example = source[index]
        assert example["caption"] == f"clip {index}" and example["latents"].dtype == np.float32
        np.testing.assert_array_equal(example["latents"], index)
    assert latents_cache.is_whole(tmp_path, RECIPE)


def test_an_interrupted_write_is_not_whole_and_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(RuntimeError):
        write(tmp_path, encode=interrupted(8))
    assert not latents_cache.is_whole(tmp_path, RECIPE)
    with pytest.raises(UsageError, match="no whole cache"):
        LatentsSource(tmp_path)
    made = []
    write(tmp_path, encode=lambda indices: made.append(indices) or encode(indices))
    assert made == [range(8, 10)]
    assert len(LatentsSource(tmp_path)) == 10


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_shares_of_a_cache_are_whole_together(order, tmp_path):
    """The last of them says so; what they wrote is what one process writes."""
    shares = [latents_cache.parse_share(f"{number}/2") for number in order]
    assert sorted([*Layout(10, 4).parts(shares[0]), *Layout(10, 4).parts(shares[1])]) == [0, 1, 2]
    write(tmp_path / "shared", share=shares[0])
    assert not latents_cache.is_whole(tmp_path / "shared", RECIPE)
    write(tmp_path / "shared", share=shares[1])
    write(tmp_path / "one")
    assert latents_cache.is_whole(tmp_path / "shared", RECIPE)
    for ours, theirs in zip(LatentsSource(tmp_path / "shared"), LatentsSource(tmp_path / "one"), strict=True):
        assert ours["caption"] == theirs["caption"] and (ours["latents"] == theirs["latents"]).all()


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/2/3", "a/b", "1/0"])
def test_no_such_share(text):
    with pytest.raises(UsageError, match=f"'{text}' is no share: the second of eight is --share=2/8"):
        latents_cache.parse_share(text)


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_part_that_is_not_whole_is_refused_and_made_again(tmp_path, damage):
    write(tmp_path)
    part = tmp_path / "part-00001.safetensors"
    if damage == "truncate":
        part.write_bytes(part.read_bytes()[:-7])
    else:
        part.unlink()
    assert not latents_cache.is_whole(tmp_path, RECIPE)
    with pytest.raises(UsageError, match="Part 1"):
        LatentsSource(tmp_path)
    made = []
    write(tmp_path, encode=lambda indices: made.append(indices) or encode(indices))
    assert made == [range(4, 8)] and latents_cache.is_whole(tmp_path, RECIPE)
    np.testing.assert_array_equal(LatentsSource(tmp_path)[5]["latents"], 5)


@pytest.mark.parametrize("byte", [-1, 20])
def test_an_altered_clip_is_refused_when_it_is_read(tmp_path, byte):
    """Of the last clip of a part, or of what a part says of itself."""
    write(tmp_path)
    part = tmp_path / "part-00001.safetensors"
    data = bytearray(part.read_bytes())
    data[byte] ^= 1
    part.write_bytes(data)
    source = LatentsSource(tmp_path)
    for index in (0, 8) if byte == 20 else (0, 4, 8):
        np.testing.assert_array_equal(source[index]["latents"], index)
    with pytest.raises(UsageError, match="part-00001.safetensors is damaged: delete it"):
        source[7]
    part.unlink()
    write(tmp_path)
    np.testing.assert_array_equal(LatentsSource(tmp_path)[7]["latents"], 7)


def test_a_cache_is_read_a_clip_at_a_time(tmp_path):
    """Of 64 MiB, memory takes one clip."""
    clip = np.zeros((4, 64, 64, 16), np.float16)

    def large(indices):
        return np.broadcast_to(clip, (len(indices), *clip.shape)), [f"clip {i}" for i in indices]

    write(tmp_path, clips=128, encode=large, clips_per_part=32)
    tracemalloc.start()
    source = LatentsSource(tmp_path)
    for index in range(0, 128, 9):
        source[index]
    assert tracemalloc.get_traced_memory()[1] < 8 * clip.nbytes
    tracemalloc.stop()


def test_large_latents_are_few_to_a_part_and_one_that_was_begun_goes_on_as_it_is(tmp_path):
    assert Layout.of(10, (8, 8, 8, 16)) == (10, 1024)
    assert Layout.of(10**6, (32, 96, 96, 16)) == (10**6, 113)
    assert Layout.of(10, (1, 10**5, 10**5, 16)) == (10, 1)
    with pytest.raises(RuntimeError):
        write(tmp_path, encode=interrupted(8), clips_per_part=4)
    assert write(tmp_path, clips_per_part=5) == [4, 4, 2]
    assert len(LatentsSource(tmp_path)) == 10


def test_another_recipe_is_refused_also_over_a_cache_that_was_only_begun(tmp_path):
    write(tmp_path)
    (tmp_path / "latents.json").unlink()
    with pytest.raises(UsageError, match="other data or another autoencoder"):
        write(tmp_path, recipe={**RECIPE, "autoencoder": "xyz"})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"recipe": 1}', "nonsense"])
def test_a_broken_index_is_refused_in_a_sentence(tmp_path, text):
    write(tmp_path)
    (tmp_path / "latents.json").write_text(text)
    with pytest.raises(UsageError, match=r"latents\.json is not what was written there"):
        LatentsSource(tmp_path)
    (tmp_path / "latents.json").unlink()
    with pytest.raises(UsageError, match="no whole cache"):
        LatentsSource(tmp_path)


def test_captions_that_were_altered_are_refused_and_made_again(tmp_path):
    write(tmp_path)
    card = tmp_path / "part-00001.json"
    card.write_text(card.read_text().replace("clip 5", "clip 6"))
    with pytest.raises(UsageError, match="Part 1"):
        LatentsSource(tmp_path)
    write(tmp_path)
    assert LatentsSource(tmp_path).captions[5] == "clip 5"


def test_an_index_that_declares_too_much_is_refused(tmp_path):
    write(tmp_path)
    index = files.read_record(tmp_path / "latents.json")
    files.write_record(tmp_path / "latents.json", {**index, "clips": 11})
    with pytest.raises(UsageError, match="11 clips"):
        LatentsSource(tmp_path)


def test_a_cache_of_an_earlier_version_is_refused(tmp_path):
    write(tmp_path)
    files.write_record(tmp_path / "latents.json", {"recipe": RECIPE, "clips": 10, "parts": 3})
    assert not latents_cache.is_whole(tmp_path, RECIPE)
    with pytest.raises(UsageError, match="encode into another folder"):
        LatentsSource(tmp_path)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (7e4, "70000"), (-np.inf, "inf")])
def test_latents_that_float16_cannot_hold_are_refused_and_not_written(tmp_path, value, said):
    def spoilt(indices):
        latents, captions = encode(indices)
        latents[3, 0, 0, 0, 0] = value
        return latents, captions

    with pytest.raises(UsageError, match=rf"1 of clips 0 to 7 have latents .* first clip 3 \(up to {said}\)"):
        write(tmp_path, encode=spoilt, clips=8, clips_per_part=8)
    assert not list(tmp_path.glob("part*"))


def test_storage_that_fails_is_no_damage(tmp_path, monkeypatch):
    write(tmp_path)
    source = LatentsSource(tmp_path)

    def refuse(*_, **__):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(parts, "safe_open", refuse)
        with pytest.raises(UsageError, match="cannot be read .*Too many open files"):
            source[0]
    assert source[0]["caption"] == LatentsSource(tmp_path)[0]["caption"]
