"""The least time a compiled step can take: each resource alone, at its full speed.

Links are counted as a torus gives them. A gather, scatter or sum over a group of devices uses the links along every
side of the torus that the group covers: two of a side that is closed to a ring, one of an open one. An all-to-all is
bounded by the links across the middle of the group's longest side. What leaves a slice goes over the data-centre
network.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from vidflow.parallel.hlo import Collective
from vidflow.parallel.topologies import Slice


class Seconds(NamedTuple):
    """Of one call, each resource alone; `dcn` is None where the network's speed is not published."""

    compute: float
    hbm: float
    ici: float
    dcn: float | None

    @property
    def bound(self) -> str:
        """The resource that takes longest."""
        return max(self._fields, key=lambda name: getattr(self, name) or 0.0)

    @property
    def longest(self) -> float:
        return getattr(self, self.bound)

    @property
    def communication(self) -> float:
        return self.ici + (self.dcn or 0.0)


def seconds(slice_: Slice, mesh: Mesh, flops: float, hbm_bytes: float, collectives: Sequence[Collective]) -> Seconds:
    """The bounds of a program.

    Args:
      slice_: what it runs on.
      mesh: of compile-only devices, whose coordinates tell the links.
      flops, hbm_bytes: of one device in one call.
      collectives: of one call.
    """
    chip = slice_.generation
    ici = dcn = 0.0
    for collective in collectives:
        group = _group(mesh, collective.axes)
        far = _far_share(group, collective.operation)
        ici += (1 - far) * _ici_seconds(slice_, group, collective)
        if far:
            dcn = math.nan if chip.dcn_bandwidth is None else dcn + far * collective.bytes / chip.dcn_bandwidth
    return Seconds(flops / chip.flops, hbm_bytes / chip.hbm_bandwidth, ici, None if math.isnan(dcn) else dcn)


def _group(mesh: Mesh, axes: Sequence[str]) -> list[tuple[int, ...]]:
    """(slice, x, y, z) of the devices that take part together, those of the mesh's first corner."""
    corner = tuple(slice(None) if axis in axes else 0 for axis in mesh.axis_names)
    devices = np.asarray(mesh.devices[corner]).ravel()
    return [(getattr(d, "slice_index", None) or 0, *d.coords) for d in devices]


def _far_share(group: Sequence[tuple[int, ...]], operation: str) -> float:
    """The part of the bytes that leaves the slice: a gather sends each part once to every other slice, an all-to-all
    every pair's part by itself."""
    slices, size = len({place[0] for place in group}), len(group)
    if slices == 1:
        return 0.0
    far = size - size // slices if operation == "all-to-all" else slices - 1
    return far / (size - 1)


def _ici_seconds(slice_: Slice, group: Sequence[tuple[int, ...]], collective: Collective) -> float:
    here = [place[1:] for place in group if place[0] == group[0][0]]
    extents = [len({place[side] for place in here}) for side in range(len(slice_.chips))]
    spanned = [
        (extent, 2 if extent == side and side >= slice_.generation.wraps_from else 1)
        for extent, side in zip(extents, slice_.chips, strict=True)
        if extent > 1
    ]
    link = slice_.generation.link_bandwidth
    if not spanned:  # two devices of one chip
        return collective.bytes / slice_.generation.ici_bandwidth
    if collective.operation == "all-to-all":
        size = len(here)
        across = max(extent / (4 * links) for extent, links in spanned)
        return collective.bytes * across * size / (size - 1) / link
    if collective.operation == "collective-permute":
        return collective.bytes / link
    return collective.bytes / (link * sum(links for _, links in spanned))
