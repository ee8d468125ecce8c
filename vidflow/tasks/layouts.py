"""Which mesh, rematerialisation and microbatches a text-to-video step should have on a slice, by closed formula."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from vidflow.models import design
from vidflow.models.sizes import size
from vidflow.parallel import rules
from vidflow.parallel.topologies import Slice, parse
from vidflow.scaling import memory
from vidflow.scaling.memory import Layout, Workload
from vidflow.tasks import text_to_video

# Slices that can be had, chips along each side (Google Cloud's pages on each generation), smallest first.
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
_SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SLICES = {"v4": _CUBES, "v5p": _CUBES, "tpu7x": _CUBES, "v5e": _SQUARES, "v6e": _SQUARES}
REMAT = ("none", "matmuls", "attention", "full")


class Candidate(NamedTuple):
    """A layout, the bytes of a device's memory and the seconds a step takes by the formulas, nothing overlapped."""

    layout: Layout
    bytes: float
    seconds: float


def workload(config: ConfigDict) -> Workload:
    """What the formulas need to know of a text-to-video config."""
    learner = text_to_video.outline(config)
    params = rules.unbox(jax.eval_shape(learner.init, jax.eval_shape(lambda: jax.random.key(0))))
    return Workload(
        size=size(config.model.size),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        rows=config.batch_size,
        tokens=text_to_video.check_grid(config, text_to_video.latent_shape(config)).tokens,
        text_tokens=text_to_video.prompts_of(config).tokens,
        gradient_bytes=4 if config.gradient_dtype == "float32" else 2,
        flops=learner.flops,
        spread=rules.spread(config.get("rules", rules.DEFAULT)),
        state_bytes=memory.STATE_BYTES - memory.PART_BYTES * len(config.get("host_memory", ())),
    )


def of(config: ConfigDict, mesh: dict[str, int]) -> Layout:
    """The layout that a config has on a mesh."""
    return Layout(**mesh, remat=config.model.remat, microbatches=config.microbatches)


def candidates(config: ConfigDict, slice_: Slice, *, free: bool) -> list[Candidate]:
    """Every layout whose sizes divide, quickest first.

    Args:
      free: also tries other rematerialisation and microbatches than the config's.
    """
    work = workload(config)
    found = []
    for mesh in _meshes(slice_.devices):
        rows = work.rows // (mesh[0] * mesh[1])
        remats = REMAT if free else (config.model.remat,)
        parts = [n for n in range(1, rows + 1) if rows % n == 0] if free else [config.microbatches]
        for remat, microbatches in itertools.product(remats, parts):
            layout = Layout(*mesh, remat, microbatches)
            if _divides(config, work, layout, slice_.slices):
                found.append(estimate(config, work, layout, slice_))
    return sorted(found, key=lambda candidate: candidate.seconds)


def estimate(config: ConfigDict, work: Workload, layout: Layout, slice_: Slice) -> Candidate:
    """One layout by the formulas of `scaling.memory`."""
    chip = slice_.generation
    compute = (work.model_flops + memory.recomputed(work, layout.remat)) / (slice_.devices * chip.flops)
    sent = memory.bytes_sent(work, layout) / chip.ici_bandwidth
    return Candidate(layout, memory.bytes_per_device(work, layout), compute + sent)


def smallest_slices(config: ConfigDict, generation: str, scale: float = 1.0) -> Iterator[tuple[Slice, Candidate]]:
    """Slices of that generation with their quickest layout that fits by the formulas, smallest first; what the formulas
    say of memory is taken `scale` times."""
    for shape in SLICES[generation]:
        slice_ = parse(f"{generation}:{shape}")
        limit = slice_.generation.hbm_bytes / scale
        fitting = [c for c in candidates(config, slice_, free=True) if c.bytes <= limit]
        if fitting:
            yield slice_, fitting[0]


def _meshes(devices: int) -> Iterator[tuple[int, int, int, int]]:
    for data, fsdp, sequence in itertools.product(_divisors(devices), repeat=3):
        tensor, rest = divmod(devices, data * fsdp * sequence)
        if not rest and tensor:
            yield data, fsdp, sequence, tensor


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _divides(config: ConfigDict, work: Workload, layout: Layout, slices: int) -> bool:
    groups, ways, told = layout.data * layout.fsdp, layout.sequence * layout.tensor, design.of(config.model.design)
    joined = (work.text_tokens if told.text == "in_context" else 0) + (told.time == "in_context")
    return (
        work.rows % (groups * layout.microbatches) == 0
        and work.tokens % ways == (work.tokens + joined) % ways == 0
        and work.size.heads % (ways if config.model.get("strategy") == "ulysses" else layout.tensor) == 0
        and work.size.width % layout.over(work.spread) == 0
        and groups % slices == 0
    )
