"""Signs are drawn, quoted, read back and kept apart from the world they stand under."""

import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.tasks.evaluation import score
from vidflow.worlds import bounce
from vidflow.worlds.bounce import grammar, scene, signs
from vidflow.worlds.bounce.glyphs import GLYPHS, SCRIPTS

CLIP = {"level": 3, "frames": 8, "height": 48, "width": 32, "with_signs": True}


def test_every_glyph_is_another():
    dots = [np.pad(glyph, ((0, 0), (0, 7 - glyph.shape[1]))) for glyph in GLYPHS.values()]
    differ = [(a != b).sum() for n, a in enumerate(dots) for b in dots[:n]]
    assert all(glyph.shape == (7, 5) for glyph in SCRIPTS["latin"].values())
    assert all(glyph.shape == (7, 7) for glyph in SCRIPTS["characters"].values())
    assert min(differ) >= 2


@pytest.mark.parametrize("height", [16, 40])
@pytest.mark.parametrize("glyph", GLYPHS)
def test_every_glyph_is_read(glyph, height):
    board = signs.draw(glyph, height, 2 * height).astype(np.uint8)
    assert signs.read(np.repeat(board[None, ..., None], 3, axis=-1)) == glyph


@pytest.mark.parametrize("width", [22, 23, 24])
def test_a_word_that_a_narrow_frame_cuts_at_its_edges_is_read(width):
    for word in ("ABC", "M2K", "ZWE", "H9R"):
        strip = signs.draw(word, 16, width).astype(np.uint8)
        assert signs.read(np.repeat(strip[None, ..., None], 3, axis=-1)) == word


def test_the_reader_is_right_about_true_clips():
    found = [score(*bounce.clip(0, index, split="test", captions="mixed", **CLIP)) for index in range(100)]
    assert np.mean([row["word"] for row in found]) == 1.0
    assert np.mean([row["shape"] for row in found]) > 0.98


def test_it_reads_through_noise_and_a_shift_and_says_nothing_of_nothing():
    rng = np.random.default_rng(0)
    strip = np.roll(signs.draw("K7", 16, 32), (1, -1), axis=(0, 1))
    noisy = np.clip(strip[None, ..., None] + rng.normal(0, 40, (8, 16, 32, 3)), 0, 255).astype(np.uint8)
    assert signs.read(noisy) == "K7"
    assert signs.read(rng.integers(0, 255, (8, 16, 32, 3)).astype(np.uint8)) == ""
    assert signs.read(np.zeros((8, 16, 32, 3), np.uint8)) == ""


@pytest.mark.parametrize("captions", ["short", "long"])
def test_captions_come_apart_into_world_and_word(captions):
    for index in range(60):
        _, caption = bounce.clip(1, index, split="train", captions=captions, **CLIP)
        world, word = signs.apart(caption)
        _, plain = bounce.told(1, index, level=3, split="train", height=32, width=32, captions=captions)
        assert word == signs.word(1, index, "train") and world == plain
        assert grammar.parse(world) is not None


@pytest.mark.parametrize(
    ("prompt", "world", "word"),
    [
        ('a red circle moves up, a sign says "CAT"', "a red circle moves up", "CAT"),
        ('A red circle moves up. The sign which reads “口”.', "A red circle moves up.", "口"),
        ("a red circle moves up", "a red circle moves up", None),
        ('a sign says ""', 'a sign says ""', None),  # so that it is refused as what the reader cannot check
    ],
)
def test_prompts_of_users_come_apart(prompt, world, word):
    assert signs.apart(prompt) == (world, word)


def test_words_of_the_test_split_are_new_and_their_glyphs_are_not():
    train, test = ({signs.word(0, index, split) for index in range(3000)} for split in scene.SPLITS)
    assert not train & test and {glyph for word in train for glyph in word} == set(GLYPHS)
    assert all(len(word) > 1 for word in test)
    assert {glyph for word in test for glyph in word} == set(GLYPHS)


def test_a_sign_changes_nothing_of_the_world_above_it():
    without = {**CLIP, "height": 32, "with_signs": False}
    above, _ = bounce.clip(0, 3, split="train", captions="short", **CLIP)
    alone, _ = bounce.clip(0, 3, split="train", captions="short", **without)
    np.testing.assert_array_equal(above[:, :32], alone)


def test_glyphs_count_by_their_place():
    assert signs.score("K7", "K7") == {"glyphs": 1.0, "word": True}
    assert signs.score("7K", "K7") == {"glyphs": 0.0, "word": False}
    assert signs.score("K", "K7")["glyphs"] == 0.5 and signs.score("K77", "K7")["glyphs"] == 2 / 3
    assert signs.score("", "K7")["glyphs"] == 0.0


def test_what_the_font_has_not_is_refused():
    for text in ("q", ""):
        with pytest.raises(UsageError, match="font of signs"):
            signs.draw(text, 16, 32)
    with pytest.raises(UsageError, match="height of 3 or more"):
        bounce.clip(0, 0, split="train", **{**CLIP, "height": 2})
