"""Choosing the mesh of a plan, trying several, and what to change when a step does not fit."""

import json
import math
from typing import Any

from ml_collections import ConfigDict

from vidflow import axes
from vidflow import config as configs
from vidflow.errors import UsageError
from vidflow.parallel.mesh import parse_sizes
from vidflow.parallel.topologies import GIB, Slice
from vidflow.tasks import layouts, planning
from vidflow.tasks.layouts import Candidate, Layout

TRIES = 3  # layouts that a search compiles
Plan = dict[str, Any]


def parse_mesh(text: str, slice_: Slice) -> dict[str, int]:
    """The sizes of `parallel.mesh.parse_sizes`, of all devices of a slice.

    Raises:
      UsageError: as there, or sizes whose product is not the number of devices.
    """
    sizes = parse_sizes(text)
    if math.prod(sizes.values()) != slice_.devices:
        raise UsageError(
            f"--mesh={text} has {math.prod(sizes.values())} devices and {slice_.slices} x {slice_.name} has "
            f"{slice_.devices}: make the product of the axes {slice_.devices}."
        )
    return sizes


def choose_mesh(config: ConfigDict, step: str, slice_: Slice) -> dict[str, int]:
    """The mesh with which a training step is quickest by the formulas among those that fit, or else the one that needs
    least memory; for other steps all devices share one clip's tokens, have clips of their own, or share the weights of
    a text encoder.

    Raises:
      UsageError: no mesh divides the sizes of this config.
    """
    mesh = dict.fromkeys(axes.MESH, 1)
    if step == "sample":
        return mesh | {"sequence": slice_.devices}
    if step.startswith(planning.TEXT):
        return mesh | {"fsdp": slice_.devices}
    if step != "train" or "sampling" not in config:
        return mesh | {"data": slice_.devices}
    found = layouts.candidates(config, slice_, free=False)
    if not found:
        raise UsageError(
            f"No mesh of {slice_.devices} devices divides batch {config.batch_size} in {config.microbatches} parts, "
            "tokens, width and heads of this config: change --config.batch_size, or name a mesh with --mesh."
        )
    fitting = [candidate for candidate in found if candidate.bytes <= slice_.generation.hbm_bytes]
    return (fitting[0] if fitting else min(found, key=lambda candidate: candidate.bytes)).layout.mesh


def plan(config: ConfigDict, step: str, slice_: Slice, mesh: dict[str, int] | None) -> Plan:
    """`planning.plan`, with a mesh chosen if none is given, and `advice` where the step does not fit."""
    mesh = choose_mesh(config, step, slice_) if mesh is None else mesh
    result = planning.plan(config, step, slice_, mesh)
    if not result["fits"]:
        result["advice"] = advise(config, step, slice_, mesh, result["hbm_gib"]["total"] * GIB)
    return result


def advise(config: ConfigDict, step: str, slice_: Slice, mesh: dict[str, int], wanted: float) -> str:
    """How much is missing, and the layout nearest to this one that fits by the formulas, scaled to what the compiler
    said of this one."""
    limit = slice_.generation.hbm_bytes
    missing = f"It wants {wanted / GIB:.1f} GiB of a device's {limit / GIB:.1f}, {(wanted - limit) / GIB:.1f} too many"
    if step.startswith(planning.TEXT):
        return f"{missing}: use a larger slice, and fsdp or tensor in --mesh, over which the weights are spread."
    if step != "train" or "sampling" not in config:
        return f"{missing}: use a smaller clip, or a generation with more memory."
    present = layouts.of(config, mesh)
    work = layouts.workload(config)
    scale = max(wanted / layouts.estimate(config, work, present, slice_).bytes, 1.0)
    fitting = [c for c in layouts.candidates(config, slice_, free=True) if c.bytes * scale <= limit]
    if fitting:
        nearest = min(fitting, key=lambda c: (_distance(c.layout, present), c.seconds))
        return f"{missing}. Nearest layout that should fit: {_flags(nearest.layout, present)}."
    for larger, candidate in layouts.smallest_slices(config, slice_.name.partition(":")[0], scale):
        if larger.devices > slice_.devices:
            flags = _flags(candidate.layout, None)
            return f"{missing}. Smallest slice that should fit: --topology={larger.name} {flags}."
    return f"{missing}, and no slice of this generation should do: use a smaller model or clip."


def search(config: ConfigDict, step: str, slice_: Slice, mesh: dict[str, int] | None) -> Plan:
    """The best of the quickest layouts by the formulas, compiled; with `tried`, a row for each, and `smallest`, the
    plan of the smallest slice of this generation that fits, None if none does. Those that do not fit have `advice`.

    Raises:
      UsageError: no layout of this slice fits by the formulas, a step other than train, or a mesh given.
    """
    if step != "train" or "sampling" not in config or mesh is not None:
        raise UsageError("--search chooses the mesh of a text-to-video training step: drop --mesh and --step.")
    limit = slice_.generation.hbm_bytes
    fitting = [c for c in layouts.candidates(config, slice_, free=True) if c.bytes <= limit]
    plans = [_compile(config, slice_, candidate) for candidate in fitting[:TRIES]]
    if not plans:
        raise UsageError(f"No layout of {slice_.name} should hold this step: try a larger slice or a smaller batch.")
    best = max(plans, key=lambda tried: (tried["fits"], tried.get("mfu_without_overlap", 0.0)))
    slices = layouts.smallest_slices(config, slice_.name.partition(":")[0])
    compiled = (_compile(config, smaller, candidate) for smaller, candidate in slices)
    return {**best, "tried": plans, "smallest": next((one for one in compiled if one["fits"]), None)}


def _compile(config: ConfigDict, slice_: Slice, candidate: Candidate) -> Plan:
    changed = configs.from_json(json.dumps(config.to_dict()))
    changed.model.remat, changed.microbatches = candidate.layout.remat, candidate.layout.microbatches
    return plan(changed, "train", slice_, candidate.layout.mesh)


def _distance(layout: Layout, present: Layout) -> int:
    return sum(a != b for a, b in zip(layout, present, strict=True))


def _flags(layout: Layout, present: Layout | None) -> str:
    """The command line that asks for it, where it differs."""
    sizes = ",".join(f"{axis}={size}" for axis, size in layout.mesh.items() if size > 1)
    flags = [f"--mesh {sizes or 'data=1'}"] if present is None or layout.mesh != present.mesh else []
    if present is None or layout.remat != present.remat:
        flags.append(f"--config.model.remat={layout.remat}")
    if present is None or layout.microbatches != present.microbatches:
        flags.append(f"--config.microbatches={layout.microbatches}")
    return " ".join(flags)
