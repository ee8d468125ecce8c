"""TPU generations and slices: the one table of what they can do, and devices to compile for without having any.

Figures per chip from Google Cloud's system architecture pages (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e,
tpu7x), divided by the JAX devices of a chip. Interconnect figures there are bidirectional; here they are one
direction. The memory that a program may use is what the compiler of libtpu 0.0.51 says when it refuses a program, where
that was seen, and the page's figure elsewhere.
"""

import math
import re
from typing import NamedTuple

from vidflow.errors import UsageError

GIB = 2**30


class Generation(NamedTuple):
    """One kind of TPU, per JAX device.

    Attributes:
      device_kind: as JAX names it.
      devices_per_chip: two where each TensorCore is a device.
      flops: dense bf16 FLOP/s.
      hbm_bytes: that a program may use.
      hbm_bandwidth: bytes/s.
      ici_bandwidth: bytes/s to the other chips of the slice, one direction, all links.
      dcn_bandwidth: bytes/s to other slices; None where the page does not say.
      dimensions: of the torus.
    """

    device_kind: str
    devices_per_chip: int
    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float | None
    dimensions: int


GENERATIONS = {
    "v4": Generation("TPU v4", 2, 137.5e12, 16 * GIB, 600e9, 134e9, None, 3),
    "v5e": Generation("TPU v5 lite", 1, 197e12, 15.75 * GIB, 819e9, 200e9, 3.125e9, 2),
    "v5p": Generation("TPU v5", 1, 459e12, 95.73 * GIB, 2765e9, 600e9, 6.25e9, 3),
    "v6e": Generation("TPU v6 lite", 1, 918e12, 31.2 * GIB, 1638e9, 400e9, None, 2),
}


class Slice(NamedTuple):
    """A part of a pod: its generation, the chips along each dimension of its torus, and how many such slices."""

    name: str
    generation: Generation
    chips: tuple[int, ...]
    slices: int = 1

    @property
    def devices(self) -> int:
        return math.prod(self.chips) * self.generation.devices_per_chip * self.slices


def parse(topology: str, slices: int = 1) -> Slice:
    """The slice that `GENERATION:AxB` or `GENERATION:AxBxC` names, such as v5p:4x4x4.

    Raises:
      UsageError: not of that form, an unknown generation (listing the known ones), or a torus of other dimensions.
    """
    name, _, shape = topology.partition(":")
    if name not in GENERATIONS:
        raise UsageError(
            f"Unknown TPU generation '{name}' in --topology={topology}: use one of {', '.join(GENERATIONS)}."
        )
    generation = GENERATIONS[name]
    form = "x".join("ABC"[: generation.dimensions])
    chips = tuple(int(n) for n in shape.split("x")) if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) else ()
    if len(chips) != generation.dimensions:
        raise UsageError(f"--topology={topology} is not of the form {name}:{form}, chips along each side of the slice.")
    if slices < 1:
        raise UsageError(f"--slices={slices} is not a number of slices: use 1 or more.")
    return Slice(topology, generation, chips, slices)
