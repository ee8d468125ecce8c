"""The least time of a step, against links counted by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
from jax.sharding import Mesh

from vidflow.parallel import roofline
from vidflow.parallel.hlo import SLICES, Collective
from vidflow.parallel.topologies import parse

GB = 1e9


@dataclass(frozen=True)
class Device:
    """As much of a device as a mesh asks for."""

    id: int
    coords: tuple[int, ...]
    platform: str = "tpu"
    process_index: int = 0


def mesh_of(shape, axes):
    """A mesh whose devices stand in the order of their coordinates."""
    places = list(np.ndindex(*shape))
    devices = np.empty(len(places), object)
    devices[:] = [Device(number, (*place, 0)[:3]) for number, place in enumerate(places)]
    return Mesh(devices.reshape([size for _, size in axes]), tuple(name for name, _ in axes))


def ici(topology, axes, operation, over):
    slice_ = parse(topology)
    collective = Collective(operation, over, GB, 1, None)
    return roofline.bounds(slice_, mesh_of(slice_.chips, axes), 0.0, 0.0, [collective]).seconds


def test_compute_and_memory_are_work_over_speed():
    slice_ = parse("v5p:2x2x1")
    bounds = roofline.bounds(slice_, mesh_of((2, 2, 1), [("data", 4)]), 459e12, 2 * 2765e9, [])
    assert bounds.seconds == (1.0, 2.0, 0.0, 0.0) and bounds.bound == "hbm" and bounds.longest == 2.0


def test_compute_hides_kernels_but_not_the_exchange_of_heads():
    slice_, mesh = parse("v5p:2x2x1"), mesh_of((2, 2, 1), [("sequence", 2), ("tensor", 2)])

    def exposed(compute, *collectives):
        return roofline.bounds(slice_, mesh, compute * 459e12, 0.0, collectives).exposed

    kernels = Collective("all-gather", ("sequence",), 100 * GB, 1, None, 3)
    heads = Collective("all-to-all", ("sequence",), 50 * GB, 1, None, 4)
    tokens = Collective("all-gather", ("tensor",), 50 * GB, 1, None, 3)
    assert exposed(1.5, kernels) == 0 and exposed(0.6, kernels) == pytest.approx(0.4)
    assert exposed(1.5, kernels, heads) == exposed(1.5, kernels, tokens) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("topology", "axes", "over", "links"),
    [
        ("v5p:4x4x4", [("a", 4), ("b", 16)], ("a",), 2),  # one closed ring
        ("v5p:4x4x4", [("a", 4), ("b", 16)], ("b",), 4),
        ("v5p:4x4x4", [("a", 4), ("b", 16)], ("a", "b"), 6),
        ("v5p:2x2x2", [("a", 8)], ("a",), 3),  # sides of two are open
        ("v5p:2x2x4", [("a", 16)], ("a",), 3),  # and so are those of four, where the slice is not of whole cubes
        ("v5p:2x4x4", [("a", 2), ("b", 16)], ("b",), 2),
        ("v5p:4x4x8", [("a", 16), ("b", 8)], ("b",), 2),
        ("v5e:4x8", [("a", 4), ("b", 8)], ("b",), 1),  # rings of v5e close at 16
        ("v5e:16x16", [("a", 16), ("b", 16)], ("b",), 2),
        ("v5e:8x16", [("a", 8), ("b", 16)], ("b",), 2),
    ],
)
def test_a_gather_uses_the_links_along_the_sides_it_covers(topology, axes, over, links):
    chip = parse(topology).generation
    times = ici(topology, axes, "all-gather", over)
    assert times.ici == pytest.approx(GB / (links * chip.link_bandwidth))


def test_an_all_to_all_is_bound_by_the_middle_of_its_longest_side():
    link = parse("v5p:4x4x4").generation.link_bandwidth
    # Two devices: all bytes go over their one link.
    assert ici("v5p:2x2x1", [("a", 2), ("b", 2)], "all-to-all", ("a",)).ici == pytest.approx(GB / link)
    # A ring of four: each half sends 2 GB x 2/3 to the other over two links.
    assert ici("v5p:4x4x4", [("a", 4), ("b", 16)], "all-to-all", ("a",)).ici == pytest.approx(2 * 2 / 3 * GB / 2 / link)


def test_what_leaves_a_slice_takes_the_slow_network():
    away = Collective("all-reduce", (SLICES,), GB, 1, True)
    axes, within = [("fsdp", 4)], Collective("all-reduce", ("fsdp",), GB, 1, None)
    for topology, wanted in (("v5p:2x2x1", GB / 6.25e9), ("v4:2x2x1", None)):
        slice_ = parse(topology, 2)
        times = roofline.bounds(slice_, mesh_of(slice_.chips, axes), 0.0, 0.0, [within, away]).seconds
        assert times.ici > 0 and times.dcn == wanted  # v4: nobody says how fast
