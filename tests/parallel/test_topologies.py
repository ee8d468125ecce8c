"""Names of slices, and what is known about them."""

import pytest

from vidflow.errors import UsageError
from vidflow.parallel.topologies import GENERATIONS, parse


@pytest.mark.parametrize(
    ("name", "slices", "devices"), [("v5p:4x4x4", 1, 64), ("v5e:8x8", 2, 128), ("v6e:4x8", 1, 32), ("tpu7x:2x2x2", 1, 16)]
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
