"""TPU generations and slices: the one table of what they can do, and devices to compile for without having any.

Figures per chip from Google Cloud's system architecture pages (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e,
tpu7x), divided by the JAX devices of a chip. Interconnect figures there are bidirectional; here they are one
direction. The memory that a program may use is what the compiler of libtpu 0.0.51 says when it refuses a program.
"""

import math
import os
import re
from typing import NamedTuple

import jax

from vidflow.errors import UsageError

GIB = 2**30
# The environment of libtpu as a compiler only.
ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


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
      wraps_from: length from which a side of the torus is closed to a ring (see `Slice.rings`).
      compiler_options: with which training steps are compiled, for a plan and for a run alike.
    """

    device_kind: str
    devices_per_chip: int
    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float | None
    dimensions: int
    wraps_from: int
    compiler_options: dict[str, str] = {}

    @property
    def link_bandwidth(self) -> float:
        """Bytes/s over one link, one direction; a device has two links along each side of the torus."""
        return self.ici_bandwidth / (2 * self.dimensions)


# An all-to-all may then run beside compute. On v5e it would take the place of gathers that do; the flags that make
# gathers asynchronous there are refused by the compiler elsewhere.
_EXCHANGE = {"xla_tpu_enable_async_all_to_all": "true"}

# By the name that the compiler knows too.
GENERATIONS = {
    "v4": Generation("TPU v4", 1, 275e12, 30.75 * GIB, 1200e9, 268e9, None, 3, 4, _EXCHANGE),
    "v5e": Generation("TPU v5 lite", 1, 197e12, 15.75 * GIB, 819e9, 200e9, 3.125e9, 2, 16),
    "v5p": Generation("TPU v5", 1, 459e12, 95.73 * GIB, 2765e9, 600e9, 6.25e9, 3, 4, _EXCHANGE),
    "v6e": Generation("TPU v6 lite", 1, 918e12, 31.24 * GIB, 1638e9, 400e9, 12.5e9, 2, 16, _EXCHANGE),
    "tpu7x": Generation("TPU7x", 2, 1153.5e12, 94.75 * GIB, 3690e9, 300e9, 6.25e9, 3, 4, _EXCHANGE),
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

    @property
    def rings(self) -> tuple[bool, ...]:
        """Which sides are closed. A torus of three dimensions is made of whole cubes, which optical switches join: a
        slice with a shorter side is no cube, and none of its sides is closed (Google's page on v5p)."""
        long = tuple(side >= self.generation.wraps_from for side in self.chips)
        return long if self.generation.dimensions == 2 else (all(long),) * len(long)


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


def devices(slice_: Slice) -> list[jax.Device]:
    """Devices of that slice for the compiler alone: nothing can run on them, and no TPU is needed.

    Raises:
      UsageError: libtpu is not installed, or refuses a slice of that shape.
    """
    # Without a TPU beside it libtpu would ask a metadata server what machine this is, complain, and take a lock.
    for name, value in ALONE.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    options = {"num_slices": slice_.slices} if slice_.slices > 1 else {}
    if slice_.generation is GENERATIONS["v4"]:
        options["chip_config_name"] = "megacore"  # the two cores of a chip as one device, as JAX runs them
    if math.prod(slice_.chips) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        description = topologies.get_topology_desc(slice_.name, platform="tpu", **options)
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if "not installed" in reason:
            raise UsageError("The TPU compiler is not installed: pip install -e '.[plan]'.") from None
        raise UsageError(f"The TPU compiler knows no slice {slice_.name}: {reason}") from None
    return list(description.devices)
