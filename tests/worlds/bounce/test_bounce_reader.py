"""The reader against ground truth, clean and degraded; on junk; and the meaning of a score."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.worlds.bounce.grammar import Description, ObjectDescription
from vidflow.worlds.bounce.reader import ObjectReading, Reading, read, score
from vidflow.worlds.bounce.render import render, visibility
from vidflow.worlds.bounce.scene import BACKGROUNDS, Object, Scene, scene, trajectory

ATTRIBUTES = ("shape", "size", "direction", "speed")
VISIBLE_ENOUGH = 0.6


def degrade(video, rng, sigma=0.7, noise=8.0):
    """Blur and noise like those of an autoencoder's reconstruction."""
    kernel = np.exp(-np.arange(-3, 4) ** 2 / (2 * sigma**2))
    kernel /= kernel.sum()
    blurred = video.astype(np.float32)
    for axis in (1, 2):
        pad = [(3, 3) if i == axis else (0, 0) for i in range(4)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(blurred, pad, mode="edge"), 7, axis=axis
        )
        blurred = windows @ kernel
    return np.clip(blurred + rng.normal(0, noise, video.shape) + 0.5, 0, 255).astype(np.uint8)


def accuracy(levels, clips, frames=8, height=32, width=32, degraded=False):
    """Per attribute the fraction read right, of objects that are visible enough."""
    right = defaultdict(list)
    for index in range(clips):
        level = levels[index % len(levels)]
        true = scene(11, index, level, "train", width / height)
        video = render(true, frames, height, width)
        if degraded:
            video = degrade(video, np.random.default_rng(index))
        reading = read(video)
        seen = visibility(true, frames, height, width) >= VISIBLE_ENOUGH
        right["background"].append(reading.background == true.background)
        if seen.all():
            right["count"].append(len(reading.objects) == len(true.objects))
        found = {thing.colour: thing for thing in reading.objects}
        for thing, enough in zip(true.objects, seen, strict=True):
            if enough:
                match = found.get(thing.colour)
                right["colour"].append(match is not None)
                for name in ATTRIBUTES:
                    same = match is not None and getattr(match, name) == getattr(thing, name)
                    right[name].append(same)
    return {name: float(np.mean(values)) for name, values in right.items()}


@pytest.mark.parametrize(
    ("levels", "clips", "frames", "height", "width"),
    [((0, 1, 2), 150, 8, 32, 32), ((3,), 100, 8, 32, 32), ((2, 3), 20, 16, 48, 48),
     ((2, 3), 20, 8, 64, 96), ((2, 3), 10, 8, 70, 40)],
)  # fmt: skip
def test_clean_renders_are_read_right(levels, clips, frames, height, width):
    result = accuracy(levels, clips, frames, height, width)
    assert min(result.values()) >= 0.99, result


@pytest.mark.parametrize(("levels", "clips"), [((0, 1, 2), 120), ((3,), 80)])
def test_blurred_and_noisy_renders_are_read_right(levels, clips):
    result = accuracy(levels, clips, degraded=True)
    assert min(result.values()) >= 0.95, result


def test_positions_follow_the_object_beyond_its_bounces():
    thing = Object("star", "green", "small", "right", "fast", 0.3, 0.5)
    reading = read(render(Scene((thing,), "striped"), 24, 32, 48))
    assert np.abs(reading.objects[0].positions - trajectory(thing, 24, 1.5)).max() < 0.3 / 32


def test_positions_are_nan_where_an_object_is_hidden():
    front = Object("square", "red", "large", "still", None, 0.6, 0.5)
    back = Object("circle", "blue", "small", "right", "fast", 0.17, 0.5)
    reading = read(render(Scene((back, front), "black"), 8, 32, 32))
    blue = next(thing for thing in reading.objects if thing.colour == "blue")
    hidden = np.isnan(blue.positions[:, 0])
    assert hidden[6:].all() and not hidden[:3].any()
    assert (blue.direction, blue.speed) == ("right", "fast")


def test_objects_are_sorted_by_area_and_areas_are_in_units_of_the_side():
    small = Object("square", "red", "small", "still", None, 0.2, 0.2)
    large = Object("square", "blue", "large", "still", None, 0.7, 0.7)
    reading = read(render(Scene((small, large), "white"), 4, 32, 32))
    assert [thing.colour for thing in reading.objects] == ["blue", "red"]
    np.testing.assert_allclose([t.area for t in reading.objects], [0.281, 0.098], rtol=0.1)
    assert all(thing.residual < 0.02 for thing in reading.objects)


def test_two_objects_of_one_colour_are_both_counted():
    one = Object("circle", "red", "small", "right", "slow", 0.2, 0.2)
    other = Object("star", "red", "medium", "up", "fast", 0.7, 0.7)
    reading = read(render(Scene((one, other), "black"), 8, 32, 32))
    assert {(t.shape, t.direction) for t in reading.objects} == {("circle", "right"),
                                                                 ("star", "up")}  # fmt: skip


def test_a_thin_shape_in_front_of_a_large_one_is_seen():
    back = Object("square", "red", "large", "still", None, 0.5, 0.5)
    front = Object("star", "cyan", "small", "right", "slow", 0.4, 0.5)
    reading = read(render(Scene((back, front), "black"), 8, 32, 32))
    star = next(thing for thing in reading.objects if thing.colour == "cyan")
    assert (star.shape, star.size, star.direction, star.speed) == ("star", "small", "right", "slow")
    assert len(reading.objects) == 2


def test_all_frames_decide_on_the_shape_together():
    """Under noise in which one frame in seven or so is misread, eight frames are read right."""
    for index in range(40):
        true = scene(3, index, 1, "train")
        video = degrade(render(true, 8, 32, 32), np.random.default_rng(index), 0.9, 60.0)
        colour = true.objects[0].colour
        found = next(thing for thing in read(video).objects if thing.colour == colour)
        assert (found.shape, found.size) == (true.objects[0].shape, true.objects[0].size)


def test_a_shape_is_not_taken_to_reach_out_of_the_frame():
    """A small triangle that, blurred, would be a large one if part of it could be outside."""
    true = scene(11, 161, 3, "train")
    video = degrade(render(true, 8, 32, 32), np.random.default_rng((11, 161)))
    sizes = {thing.colour: thing.size for thing in read(video).objects}
    assert sizes == {thing.colour: thing.size for thing in true.objects}


def test_pale_objects_match_their_shape():
    thing = Object("star", "blue", "medium", "left", "fast", 0.7, 0.5)
    video = render(Scene((thing,), "black"), 8, 32, 32)
    found = read((30 + 0.7 * video).astype(np.uint8)).objects[0]
    assert (found.shape, found.size, found.direction) == ("star", "medium", "left")
    assert found.residual < 0.02


def test_the_background_is_read_between_large_objects():
    places = {"yellow": (0.27, 0.27), "cyan": (0.73, 0.27), "purple": (0.27, 0.73)}
    things = tuple(
        Object("square", colour, "large", "still", None, x, y) for colour, (x, y) in places.items()
    )
    for name in BACKGROUNDS:
        assert read(render(Scene(things, name), 2, 32, 32)).background == name


def test_pale_textures_keep_their_name():
    video = render(Scene((), "checkered"), 2, 32, 32)
    assert read((96 + video.astype(int) // 3).astype(np.uint8)).background == "checkered"


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_video_has_no_objects(value):
    reading = read(np.full((4, 32, 32, 3), value, np.uint8))
    assert reading == Reading({0: "black", 128: "grey", 255: "white"}[value], ())


def test_a_frame_full_of_colour_has_no_objects():
    assert read(np.full((4, 32, 32, 3), (230, 20, 20), np.uint8)).objects == ()


def test_pure_noise_has_no_objects():
    """Otherwise a model that makes noise would score high for colour."""
    rng = np.random.default_rng(0)
    for frames in (1, 8):
        assert read(rng.integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)).objects == ()
    assert read(rng.choice(np.array([0, 255], np.uint8), (8, 32, 32, 3))).objects == ()
    soft = np.clip(rng.normal(128, 70, (8, 32, 32, 3)), 0, 255).astype(np.uint8)
    assert read(soft).objects == ()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 1, 40), (1, 32, 32), (2, 5, 5), (3, 33, 70)])
def test_junk_is_read_without_failing(shape):
    rng = np.random.default_rng(0)
    for video in (
        rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        np.full((*shape, 3), (230, 20, 20), np.uint8),
        np.repeat(np.repeat(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), 4, 1), 4, 2),
        rng.choice(np.array([0, 255], np.uint8), (*shape, 3)),
    ):
        assert len(read(video).objects) <= 18


def test_a_video_without_pixels_is_a_usage_error():
    for shape in ((0, 32, 32, 3), (4, 0, 32, 3)):
        with pytest.raises(UsageError):
            read(np.zeros(shape, np.uint8))


def test_one_frame_is_read_as_still_and_two_suffice_for_motion():
    thing = Object("triangle", "purple", "large", "up and to the left", "slow", 0.6, 0.6)
    video = render(Scene((thing,), "white"), 2, 32, 32)
    first, both = (read(video[:n]).objects[0] for n in (1, 2))
    assert (first.shape, first.size, first.direction) == ("triangle", "large", "still")
    assert (both.direction, both.speed) == ("up and to the left", "slow")


def seen(colour="red", shape="star", size="small", direction="up", speed="slow", area=0.1):
    return ObjectReading(colour, shape, size, direction, speed, np.zeros((2, 2)), area, 0.0)


def said(shape="star", colour="red", size="small", direction="up", speed="slow"):
    return ObjectDescription(shape, colour, size, direction, speed)


def test_score_of_one_object_has_a_boolean_per_named_attribute():
    reading = Reading("white", (seen(),))
    full = score(reading, Description((said(),), "white"))
    assert full == dict.fromkeys(
        ("colour", "shape", "size", "direction", "speed", "background", "count"), True
    )
    assert all(type(value) is bool for value in full.values())
    brief = score(reading, Description((said(size=None, speed=None),), None))
    assert set(brief) == {"colour", "shape", "direction", "count"}


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("shape", "circle"), ("colour", "blue"), ("size", "large"), ("direction", "down"),
     ("speed", "fast")],
)  # fmt: skip
def test_score_is_wrong_exactly_where_the_video_is_wrong(attribute, value):
    wanted = Description((replace(said(), **{attribute: value}),), "white")
    result = score(Reading("white", (seen(),)), wanted)
    assert [name for name, right in result.items() if not right] == [attribute]
    assert not score(Reading("black", (seen(),)), wanted)["background"]


def test_a_small_object_of_the_right_colour_beside_a_large_wrong_one_earns_nothing():
    reading = Reading("black", (seen("blue", "circle", area=0.3), seen(area=0.1)))
    result = score(reading, Description((said(),), None))
    assert not result["shape"] and not result["colour"] and not result["count"]


def test_nothing_found_gives_no_credit_even_for_still():
    result = score(
        Reading("black", ()), Description((said(direction="still", speed=None),), "black")
    )
    assert result == {"colour": False, "shape": False, "size": False, "direction": False,
                      "count": False, "background": True}  # fmt: skip


def test_score_of_several_objects_is_a_fraction_matched_by_colour():
    wanted = Description((said(), said("circle", "blue", None, "down", "fast")), None)
    reading = Reading("black", (seen("blue", "circle", "large", "up", "fast"), seen()))
    assert score(reading, wanted) == {"colour": 1.0, "shape": 1.0, "size": 1.0, "direction": 0.5,
                                      "speed": 1.0, "count": True}  # fmt: skip
    green = seen("green", "circle", "small", "down", "fast")  # no stand-in for the blue one
    missing = score(Reading("black", (green, seen())), wanted)
    assert missing["colour"] == missing["direction"] == missing["shape"] == 0.5
