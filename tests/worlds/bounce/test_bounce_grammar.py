"""Captions: round trip, wording by level and style, tolerance, refusal."""

import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.worlds.bounce import clip
from vidflow.worlds.bounce.grammar import (
    Description,
    ObjectDescription,
    caption,
    describe,
    name,
    parse,
)
from vidflow.worlds.bounce.scene import TOP_LEVEL, scene


def one(shape, colour, size, direction, speed, background=None):
    return Description((ObjectDescription(shape, colour, size, direction, speed),), background)


@pytest.mark.parametrize("style", ["short", "long", "mixed"])
@pytest.mark.parametrize("level", range(TOP_LEVEL + 1))
def test_parse_inverts_describe(level, style):
    rng = np.random.default_rng(level)
    for index in range(250):
        drawn = scene(1, index, level, "train")
        description = name(drawn, level, rng, "short" if style == "short" else "long")
        text = describe(description, rng, style)
        assert text.isascii()
        assert parse(text) == description, text
        assert parse(text.upper().replace(".", "!").replace("GREY", "GRAY")) == description


def test_captions_say_what_happens():
    for index in range(300):
        drawn = scene(2, index, TOP_LEVEL, "train")
        text = caption(drawn, TOP_LEVEL, np.random.default_rng(index), "mixed")
        read = parse(text)
        assert len(read.objects) == len(drawn.objects)
        assert read.background in (None, drawn.background)
        for said, true in zip(read.objects, drawn.objects, strict=True):
            assert said.size in (None, true.size) and said.speed in (None, true.speed)
            assert (said.shape, said.colour, said.direction) == (
                true.shape, true.colour, true.direction,
            )  # fmt: skip


def test_long_captions_name_everything_that_varies_and_short_ones_most_of_it():
    rng = np.random.default_rng(0)
    drawn = [scene(0, index, 3, "train") for index in range(1500)]
    for what in drawn[:200]:
        full = name(what, 3, rng, "long")
        assert full.background == what.background
        assert [thing.size for thing in full.objects] == [thing.size for thing in what.objects]
        assert [thing.speed for thing in full.objects] == [thing.speed for thing in what.objects]
    short = [name(what, 3, rng, "short") for what in drawn]
    things = [thing for description in short for thing in description.objects]
    moving = [thing for thing in things if thing.direction != "still"]
    assert np.mean([t.size is None for t in things]) == pytest.approx(0.1, abs=0.03)
    assert np.mean([t.speed is None for t in moving]) == pytest.approx(0.1, abs=0.03)
    assert np.mean([d.background is None for d in short]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("style", ["short", "long"])
def test_what_does_not_vary_is_not_named(style):
    rng = np.random.default_rng(0)
    for index in range(50):
        plain = name(scene(0, index, 0, "train"), 0, rng, style)
        assert plain.objects[0].size is plain.objects[0].speed is plain.background is None
        assert name(scene(0, index, 1, "train"), 1, rng, style).background is None


def test_long_captions_have_two_to_four_sentences_and_state_the_number():
    for index in range(200):
        drawn = scene(0, index, 3, "train")
        text = caption(drawn, 3, np.random.default_rng(index), "long")
        assert 2 <= text.count(".") <= 4
        number = ("one object", "two objects", "three objects")[len(drawn.objects) - 1]
        assert number in text.lower()


def test_mixed_captions_are_short_or_long_and_worded_in_several_ways():
    frame = {"level": 0, "split": "train", "frames": 1, "height": 8, "width": 8}
    texts = [clip(0, index, captions="mixed", **frame)[1] for index in range(200)]
    assert 0.35 < np.mean(["." in text for text in texts]) < 0.65
    description = one("star", "red", "small", "up", "slow", "white")
    rng = np.random.default_rng(0)
    assert len({describe(description, rng, "long") for _ in range(200)}) > 10


STAR = one("star", "red", "small", "up and to the left", "slow")
PAIR = Description(
    (
        ObjectDescription("star", "red", None, "up", None),
        ObjectDescription("circle", "blue", None, "left", "fast"),
    ),
    None,
)


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("a small red star moves slowly up and to the left", STAR),
        ("A small, red STAR moving slowly up and left!", STAR),
        ("the small slow red star moves up and to the left", STAR),
        ("small slowly moving red star, to the left and upwards", STAR),
        ("a blue circle stays still", one("circle", "blue", None, "still", None)),
        ("A blue circle does not move.", one("circle", "blue", None, "still", None)),
        ("a red square moves right on a gray background",
         one("square", "red", None, "right", None, "grey")),
        ("On a checkered background, a cyan triangle goes down fast.",
         one("triangle", "cyan", None, "down", "fast", "checkered")),
        ("a red star moves up and a blue circle moves quickly to the left", PAIR),
        ("a red star moves up and a fast blue circle moves to the left", PAIR),
        ("Two objects: a red star moves up, a blue circle moves fast to the left.", PAIR),
    ],
)  # fmt: skip
def test_examples_are_understood(text, description):
    assert parse(text) == description


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat sits on a mat",
        "a red star",  # no motion
        "a star moves up",  # no colour
        "a red thing moves up",
        "a red star and a blue moves up",
        "a pink star moves up",
        "a red red star moves up",
        "a red star moves up and down",
        "a red star moves left and right",
        "a red star stays still and moves up",
        "a red star stays still quickly",
        "a red star moves slowly and quickly up",
        "three objects: a red star moves up",
        "a red star moves up on a black background and on a white background",
        "not a red star moves up",
        "a red star moves up и синий круг",  # words of any script are words
        "a red star moves up, 和一个蓝色的圆",
    ],
)
def test_what_is_unclear_is_refused(text):
    assert parse(text) is None


def test_bad_style_and_bad_number_of_objects_are_usage_errors():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError):
        describe(STAR, rng, "medium")
    with pytest.raises(UsageError):
        caption(scene(0, 0, 0, "train"), 0, rng, "medium")
    with pytest.raises(UsageError):
        describe(Description((), None), rng, "short")
    with pytest.raises(UsageError):
        describe(Description(STAR.objects * 4, None), rng, "long")
