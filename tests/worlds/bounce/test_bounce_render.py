"""Pixels: purity, prefix property, geometry, occlusion."""

import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.worlds.bounce import clip
from vidflow.worlds.bounce.render import (
    CHROMA,
    GREYS,
    RGB,
    background,
    coverage,
    render,
    visibility,
)
from vidflow.worlds.bounce.scene import COLOURS, SHAPES, SIZES, Object, Scene, scene, trajectory

SQUARE = {"level": 3, "split": "train", "frames": 8, "height": 32, "width": 32}


def still(shape="circle", colour="red", size="medium", x=0.5, y=0.5):
    return Object(shape, colour, size, "still", None, x, y)


def test_same_arguments_give_the_same_bytes_and_another_index_gives_others():
    video, caption = clip(0, 7, **SQUARE)
    again, caption_again = clip(0, 7, **SQUARE)
    assert video.tobytes() == again.tobytes() and caption == caption_again
    assert video.shape == (8, 32, 32, 3) and video.dtype == np.uint8
    other, _ = clip(0, 8, **SQUARE)
    assert video.tobytes() != other.tobytes()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 48), (40, 24)])
def test_fewer_frames_are_a_prefix_of_more(height, width):
    for index in range(20):
        what = scene(0, index, 3, "train", width / height)
        long = render(what, 16, height, width)
        np.testing.assert_array_equal(render(what, 8, height, width), long[:8])
        np.testing.assert_array_equal(render(what, 1, height, width), long[:1])


def test_clip_draws_the_scene_for_the_shape_of_its_frames():
    frame = {"level": 3, "split": "test", "frames": 4, "height": 32, "width": 64}
    for index in range(5):
        expected = render(scene(0, index, 3, "test", aspect=2.0), 4, 32, 64)
        np.testing.assert_array_equal(clip(0, index, **frame)[0], expected)


def test_the_caption_style_does_not_change_the_pixels():
    videos = [clip(0, 3, captions=style, **SQUARE)[0] for style in ("short", "long", "mixed")]
    assert videos[0].tobytes() == videos[1].tobytes() == videos[2].tobytes()


def test_palette_has_equal_chroma_60_degrees_apart():
    rgb = np.array([RGB[colour] for colour in COLOURS], float)
    np.testing.assert_array_equal(np.ptp(rgb, axis=1), CHROMA)
    alpha = rgb @ [1, -0.5, -0.5]
    beta = rgb @ [0, 3**0.5 / 2, -(3**0.5) / 2]
    angles = np.degrees(np.arctan2(beta, alpha)) % 360
    np.testing.assert_allclose(angles, [0, 60, 120, 180, 240, 300], atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_a_size_span_the_same_width(shape, size):
    covered = coverage(still(shape, size=size), 1, 128, 128)[0] > 0.5
    across, down = covered.any(axis=0).sum(), covered.any(axis=1).sum()
    # A thin tip of the star covers less than half of the pixel it ends in.
    atol = 4 if shape == "star" else 2
    assert across == pytest.approx(SIZES[size] * 128, abs=atol)
    assert down == pytest.approx((0.951 if shape == "star" else 1) * SIZES[size] * 128, abs=atol)
    centre = [np.flatnonzero(covered.any(axis=axis)).mean() + 0.5 for axis in (0, 1)]
    np.testing.assert_allclose(centre, 64, atol=1.5)


@pytest.mark.parametrize(
    ("shape", "area"), [("circle", np.pi / 4), ("square", 1.0), ("triangle", 0.5), ("star", 0.310)]
)
def test_covered_area_is_the_area_of_the_shape(shape, area):
    """The star is the regular pentagram of width 1: 10 triangles, 5 R r sin 36 degrees."""
    covered = coverage(still(shape, size="large"), 1, 200, 200).sum()
    assert covered == pytest.approx(area * (SIZES["large"] * 200) ** 2, rel=0.01)


def test_the_star_has_five_tips():
    covered = coverage(still("star", size="large"), 1, 256, 256)[0]
    radius = SIZES["large"] / 2 / np.sin(2 * np.pi / 5) * 256
    y = 128 + radius * (1 - np.cos(np.pi / 5)) / 2  # centre of the circumscribed circle
    angle = np.linspace(0, 2 * np.pi, 721)[:-1]
    ring = covered[(y - 0.8 * radius * np.cos(angle)).astype(int),
                   (128 + 0.8 * radius * np.sin(angle)).astype(int)] > 0.5  # fmt: skip
    assert (np.diff(ring.astype(int), append=ring[0]) == 1).sum() == 5
    assert ring[0] and not ring[360]  # a tip is up, none is down


def test_objects_are_drawn_where_the_trajectory_says():
    thing = Object("circle", "blue", "small", "down and to the right", "fast", 0.25, 0.2)
    video = render(Scene((thing,), "black"), 12, 32, 64).astype(float)[..., 2]
    for frame, (x, y) in zip(video, trajectory(thing, 12, 2.0) * 32, strict=True):
        assert (frame.sum(0) @ (np.arange(64) + 0.5)) / frame.sum() == pytest.approx(x, abs=0.1)
        assert (frame.sum(1) @ (np.arange(32) + 0.5)) / frame.sum() == pytest.approx(y, abs=0.1)


def test_later_objects_cover_earlier_ones():
    back, front = still("square", "red", "large"), still("square", "green", "small")
    video = render(Scene((back, front), "white"), 1, 32, 32)
    assert tuple(video[0, 16, 16]) == RGB["green"]
    assert tuple(video[0, 16, 9]) == RGB["red"]
    assert tuple(video[0, 0, 0]) == (255, 255, 255)
    hidden = (SIZES["small"] / SIZES["large"]) ** 2
    np.testing.assert_allclose(
        visibility(Scene((back, front), "white"), 8, 32, 32), [1 - hidden, 1], atol=0.02
    )


def test_visibility_counts_the_heading_frames_only():
    back = Object("square", "red", "small", "right", "fast", 0.16, 0.5)
    front = still("square", "green", "small", 0.84, 0.5)
    np.testing.assert_allclose(visibility(Scene((back, front), "black"), 16, 32, 32), 1, atol=0.01)


@pytest.mark.parametrize("name", GREYS)
def test_backgrounds_are_achromatic_and_have_their_two_greys(name):
    grey = background(name, 32, 48)
    assert set(np.unique(grey)) == set(map(float, GREYS[name]))
    video = render(Scene((), name), 2, 32, 48)
    np.testing.assert_array_equal(video, np.broadcast_to(grey[..., None], video.shape))


def test_stripes_are_vertical_and_checks_alternate_both_ways():
    striped, checkered = background("striped", 32, 32), background("checkered", 32, 32)
    assert (striped == striped[:1]).all() and (striped[:, 0] != striped[:, 4]).all()
    assert (checkered[:, :28] != checkered[:, 4:]).all()
    assert (checkered[:28] != checkered[4:]).all()


def test_a_video_without_pixels_is_a_usage_error():
    with pytest.raises(UsageError):
        clip(0, 0, **{**SQUARE, "height": 0})
