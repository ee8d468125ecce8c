"""The least time a compiled step can take: each resource alone, at its full speed.

Links are counted as a torus gives them. A gather, scatter or sum over a group of devices uses the links along every
side of the torus that the group covers: two of a side that is closed to a ring, one of an open one. An all-to-all is
bounded by the links across the middle of the group's longest side. What leaves a slice goes over the data-centre
network, and the compiler says so.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from vidflow.axes import TENSOR
from vidflow.parallel.hlo import SLICES, Collective
from vidflow.parallel.topologies import Slice


class Seconds(NamedTuple):
    """Of one call, each resource alone; `dcn` is None where the network's speed is not published."""

    compute: float
    hbm: float
    ici: float
    dcn: float | None


class Bounds(NamedTuple):
    """What follows from the work of a program.

    Attributes:
      seconds: of each resource.
      exchange: the part of the communication that waits for activations and is waited for: heads for tokens, keys,
        tokens over `tensor`. The rest gathers kernels and sums gradients, which compute of other layers can hide.
    """

    seconds: Seconds
    exchange: float

    @property
    def bound(self) -> str:
        """The resource that takes longest."""
        return max(Seconds._fields, key=lambda name: getattr(self.seconds, name) or 0.0)

    @property
    def longest(self) -> float:
        return getattr(self.seconds, self.bound)

    @property
    def communication(self) -> float:
        return self.seconds.ici + (self.seconds.dcn or 0.0)

    @property
    def exposed(self) -> float:
        """Communication that compute cannot hide."""
        return self.exchange + max(self.communication - self.exchange - self.seconds.compute, 0.0)


def bounds(slice_: Slice, mesh: Mesh, flops: float, hbm_bytes: float, collectives: Sequence[Collective]) -> Bounds:
    """The bounds of a program.

    Args:
      slice_: what it runs on.
      mesh: of compile-only devices, whose coordinates tell the links.
      flops, hbm_bytes: of one device in one call.
      collectives: of one call.
    """
    chip = slice_.generation
    ici = dcn = exchange = 0.0
    for collective in collectives:
        if collective.axes == (SLICES,):
            dcn += collective.bytes / (chip.dcn_bandwidth or math.nan)
            continue
        group = _group(mesh, collective.axes)
        near = _ici_seconds(slice_, group, collective)
        ici += near
        # Heads stand apart in what attention exchanges, so it has four dimensions; kernels have two, or three stacked.
        if collective.dimensions >= 4 or TENSOR in collective.axes:
            exchange += near
    times = Seconds(flops / chip.flops, hbm_bytes / chip.hbm_bandwidth, ici, None if math.isnan(dcn) else dcn)
    return Bounds(times, exchange)


def _group(mesh: Mesh, axes: Sequence[str]) -> list[tuple[int, ...]]:
    """Places in the torus of the devices that take part together, those of the mesh's first corner."""
    corner = tuple(slice(None) if axis in axes else 0 for axis in mesh.axis_names)
    return [tuple(device.coords) for device in np.asarray(mesh.devices[corner]).ravel()]


def _ici_seconds(slice_: Slice, group: Sequence[tuple[int, ...]], collective: Collective) -> float:
    extents = [len({place[side] for place in group}) for side in range(len(slice_.chips))]
    spanned = [
        (extent, 2 if extent == side and ring else 1)
        for extent, side, ring in zip(extents, slice_.chips, slice_.rings, strict=True)
        if extent > 1
    ]
    link = slice_.generation.link_bandwidth
    if not spanned:  # two devices of one chip
        return collective.bytes / slice_.generation.ici_bandwidth
    if collective.operation == "all-to-all":
        size = len(group)
        across = max(extent / (4 * links) for extent, links in spanned)
        return collective.bytes * across * size / (size - 1) / link
    if collective.operation == "collective-permute":
        return collective.bytes / link
    return collective.bytes / (link * sum(links for _, links in spanned))
