"""The scene is a pure function; motion follows the mirror law; the held-out split is balanced."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.worlds.bounce.scene import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    HEADING_INTERVALS,
    MAX_OBJECTS,
    SHAPES,
    SIZES,
    SPEEDS,
    TOP_LEVEL,
    TRIPLES,
    Object,
    extent,
    generator,
    held_out,
    scene,
    trajectory,
    velocity,
)


@pytest.mark.parametrize("level", range(TOP_LEVEL + 1))
@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.5])
def test_scene_is_pure_and_does_not_touch_global_random_state(level, aspect):
    first = [scene(3, index, level, "train", aspect) for index in range(20)]
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    assert [scene(3, index, level, "train", aspect) for index in range(20)] == first
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_seed_split_and_index_all_matter():
    reference = scene(0, 0, TOP_LEVEL, "train")
    assert scene(1, 0, TOP_LEVEL, "train") != reference
    assert scene(0, 1, TOP_LEVEL, "train") != reference
    assert scene(0, 0, TOP_LEVEL, "test") != reference


def test_splits_and_purposes_have_independent_random_streams():
    streams = [("train", "scene"), ("train", "caption"), ("test", "scene"), ("test", "caption")]
    assert len({generator(0, 0, *stream).random() for stream in streams}) == 4


def test_each_level_adds_its_attributes():
    drawn = {level: [scene(0, i, level, "train") for i in range(200)] for level in range(4)}

    def values(level, attribute):
        return {getattr(thing, attribute) for s in drawn[level] for thing in s.objects}

    assert values(0, "size") == {"medium"} and values(0, "speed") == {"fast", None}
    assert values(1, "size") == set(SIZES) and values(1, "speed") == {*SPEEDS, None}
    assert {s.background for s in drawn[1]} == {"black"}
    assert {s.background for s in drawn[2]} == set(BACKGROUNDS)
    assert {len(s.objects) for s in drawn[2]} == {1}
    assert {len(s.objects) for s in drawn[3]} == {1, 2, 3}
    for level in range(4):
        assert values(level, "shape") == set(SHAPES)
        assert values(level, "colour") == set(COLOURS)
        assert values(level, "direction") == set(DIRECTIONS)


def test_objects_of_a_scene_have_distinct_colours_and_only_still_ones_have_no_speed():
    for index in range(300):
        things = scene(0, index, 3, "train").objects
        assert len({thing.colour for thing in things}) == len(things) <= MAX_OBJECTS
        assert all((thing.speed is None) == (thing.direction == "still") for thing in things)


@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.5])
def test_no_bounce_in_the_heading_frames(aspect):
    time = np.arange(HEADING_INTERVALS + 1)[:, None]
    for index in range(300):
        for thing in scene(0, index, 3, "train", aspect).objects:
            straight = np.array([thing.x, thing.y]) + time * np.array(velocity(thing))
            folded = trajectory(thing, HEADING_INTERVALS + 1, aspect)
            np.testing.assert_allclose(folded, straight, atol=1e-9)


@pytest.mark.parametrize("aspect", [1.0, 1.5])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_reflection_agrees_with_a_simulation_in_small_steps(direction, aspect):
    thing = Object("circle", "red", "small", direction, "fast", 0.3, 0.6)
    steps, frames = 1000, 60
    radius = SIZES["small"] / 2
    low, high = np.full(2, radius), np.array(extent(aspect)) - radius
    position, v = np.array([thing.x, thing.y]), np.array(velocity(thing)) / steps
    simulated = [position]
    for _ in range(frames - 1):
        for _ in range(steps):
            position = position + v
            v = np.where((position < low) | (position > high), -v, v)
        simulated.append(position)
    # The simulation turns round up to one small step behind the wall, at each of the bounces.
    atol = 20 * SPEEDS["fast"] / steps
    np.testing.assert_allclose(trajectory(thing, frames, aspect), np.array(simulated), atol=atol)
    assert trajectory(thing, frames, aspect).min() >= radius - 1e-9


def test_least_overlapping_placement_is_kept():
    """Centres of two objects come much less close than they would by chance."""
    gaps, reach = [], []
    for index in range(400):
        things = scene(0, index, 3, "train").objects
        for one, other in combinations(things, 2):
            paths = [trajectory(thing, HEADING_INTERVALS + 1) for thing in (one, other)]
            gaps.append(np.linalg.norm(paths[0] - paths[1], axis=1).min())
            reach.append((SIZES[one.size] + SIZES[other.size]) / 2)
    assert (np.array(gaps) > 0.75 * np.array(reach)).mean() > 0.45  # one draw: 0.19


def test_held_out_triples_are_a_balanced_sixth():
    test = TRIPLES["test"]
    assert len(test) == 36 and len(TRIPLES["train"]) == 180
    for position, vocabulary in enumerate((SHAPES, COLOURS, DIRECTIONS)):
        counts = Counter(triple[position] for triple in test)
        assert set(counts.values()) == {36 // len(vocabulary)}


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_every_pair_of_values_occurs_in_training(pair):
    vocabularies = (SHAPES, COLOURS, tuple(DIRECTIONS))
    seen = {tuple(triple[i] for i in pair) for triple in TRIPLES["train"]}
    assert seen == set(product(*(vocabularies[i] for i in pair)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_objects_respect_the_split(split):
    for level, index in product(range(TOP_LEVEL + 1), range(200)):
        for thing in scene(5, index, level, split).objects:
            assert held_out(thing.shape, thing.colour, thing.direction) == (split == "test")


@pytest.mark.parametrize(
    "arguments", [(0, 0, 4, "train"), (0, 0, -1, "train"), (0, 0, 0, "dev"), (-1, 0, 0, "train"),
                  (0, -1, 0, "train")]
)  # fmt: skip
def test_bad_arguments_are_usage_errors(arguments):
    with pytest.raises(UsageError):
        scene(*arguments)
