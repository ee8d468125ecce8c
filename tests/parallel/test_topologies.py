"""Names of slices, and what is known about them."""

import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.parallel.compiling import options
from vidflow.parallel.mesh import make_mesh
from vidflow.parallel.topologies import GENERATIONS, devices, parse


@pytest.mark.parametrize(
    ("name", "slices", "devices"),
    [("v5p:4x4x4", 1, 64), ("v5e:8x8", 2, 128), ("v6e:4x8", 1, 32), ("tpu7x:2x2x2", 1, 16)],
)
def test_a_slice_has_the_devices_of_its_chips(name, slices, devices):
    slice_ = parse(name, slices)
    assert slice_.devices == devices and slice_.generation is GENERATIONS[name.partition(":")[0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", r"'v9'.*v4, v5e, v5p, v6e, tpu7x"),
        ("v5p:4x4", r"v5p:AxBxC"),
        ("v5e:2x2x2", r"v5e:AxB"),
        ("v5e:0x2", r"v5e:AxB"),
        ("v5e", r"v5e:AxB"),
    ],
)
def test_a_wrong_name_is_an_error_that_says_what_is_right(name, message):
    with pytest.raises(UsageError, match=message):
        parse(name)


def test_no_slices_is_an_error():
    with pytest.raises(UsageError, match="--slices=0"):
        parse("v5e:2x2", 0)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_compiler_knows_every_generation(generation):
    chip = GENERATIONS[generation]
    slice_ = parse(f"{generation}:{'x'.join(['2', '2', '1'][: chip.dimensions])}")
    found = devices(slice_)
    assert len(found) == slice_.devices and {device.device_kind for device in found} == {chip.device_kind}
    assert options(found[0]) == chip.compiler_options


def test_a_single_chip_is_a_slice():
    assert len(devices(parse("v5e:1x1"))) == 1


def test_a_mesh_keeps_slices_apart():
    mesh = make_mesh(data=2, sequence=4, devices=devices(parse("v5e:2x2", 2)))
    assert [{device.slice_index for device in row.flat} for row in mesh.devices] == [{0}, {1}]
    with pytest.raises(UsageError, match="do not split over 2 slices"):
        make_mesh(sequence=8, devices=devices(parse("v5e:2x2", 2)))


def test_neighbours_in_a_mesh_are_neighbours_in_the_torus():
    mesh = make_mesh(fsdp=4, sequence=4, devices=devices(parse("v5p:4x4x1")))
    for row in mesh.devices[0, :, :, 0]:
        steps = np.abs(np.diff([device.coords for device in row], axis=0)).sum(axis=1)
        assert (steps == 1).all()
