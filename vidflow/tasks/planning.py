"""A step compiled for devices that nobody has: what it would need and at best take."""

import math
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from vidflow import axes
from vidflow.autoencoders import tiling
from vidflow.choices import imported
from vidflow.errors import UsageError
from vidflow.parallel import compiling, roofline, rules, topologies
from vidflow.parallel.hlo import Collective, Program, matrix_flops
from vidflow.parallel.mesh import batch_sharding, make_mesh
from vidflow.parallel.topologies import GIB, Slice
from vidflow.parallel.traffic import memory_bytes
from vidflow.scaling import flops
from vidflow.tasks import frozen_autoencoder, generation, text_to_video
from vidflow.tasks.flow_parts import make_path, make_sampling_times, make_solver
from vidflow.text import pretrained, published
from vidflow.training.program import make_program

STEPS = ("train", "sample", "encode", "decode")
TEXT = "text:"  # and the name of a text encoder


class Job(NamedTuple):
    """What is to be compiled.

    Attributes:
      function: jitted.
      arguments: shapes, dtypes and shardings of what it takes.
      parameters: how many numbers are learnt, or used.
      tokens: a transformer sees in one call, all rows together; None without one.
      flops: model FLOPs of one call by part of the model, all devices together, nothing recomputed; None where their
        number depends on what is computed.
    """

    function: Any
    arguments: tuple[Any, ...]
    parameters: int
    tokens: int | None
    flops: Mapping[str, float] | None

    @property
    def model_flops(self) -> float | None:
        return None if self.flops is None else sum(self.flops.values())


class DoesNotFit(Exception):
    """The compiler refused: `wanted` bytes of a device's memory, out of `limit`."""

    def __init__(self, wanted: float, limit: float) -> None:
        super().__init__(wanted, limit)
        self.wanted, self.limit = wanted, limit


class Compiled(NamedTuple):
    """What the compiler made: bytes of a device's memory, the program, and how long it took."""

    arguments: float
    temporaries: float
    program: Program
    seconds: float


def job(config: ConfigDict, step: str, mesh: Mesh) -> Job:
    """The step of that name: `train` of any task; `sample` of a text-to-video config, `config.sampling.steps` steps of
    the solver and guidance included; `encode` and `decode` of its autoencoder, one clip for each device; `text:ul2` of
    its text encoder ul2, a batch as `vidflow encode` makes them.

    Raises:
      UsageError: a step that the config's task does not have, or sizes that do not divide over the mesh.
    """
    generates = "sampling" in config
    if step == "train":
        return _train(config, mesh)
    if step == "sample" and generates:
        return _sample(config, mesh)
    if step in ("encode", "decode"):
        return _autoencoder(config.data, config.autoencoder.train if generates else config, step, mesh)
    if step.startswith(TEXT) and "text" in config and config.text.get("encoders") is not None:
        return _text(config, step.removeprefix(TEXT), mesh)
    raise UsageError(f"--step={step} is not a step of {config.task}: use one of {', '.join(STEPS)}, {TEXT}NAME.")


def _train(config: ConfigDict, mesh: Mesh) -> Job:
    learner = imported(f"{config.task}.outline", "config.task")(config)
    program = make_program(config, learner, mesh)
    return Job(
        program.step,
        (program.state, program.batch, program.given(0)),
        parameters=_count(program.state.params),
        tokens=_tokens(config, config.batch_size),
        flops={part: value * config.batch_size for part, value in learner.flops.items()},
    )


def _sample(config: ConfigDict, mesh: Mesh) -> Job:
    rows, shape = config.sampling.batch, text_to_video.latent_shape(config)
    prompts = text_to_video.prompts_of(config)
    model = text_to_video.make_model(config)
    steps, guidance = config.sampling.steps, config.sampling.guidance
    sample = generation.make_sampler(model, config, shape, steps, guidance)
    learner = text_to_video.outline(config)
    boxed = jax.eval_shape(learner.init, jax.eval_shape(lambda: jax.random.key(0)))
    place = batch_sharding(mesh)
    text = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype, sharding=place), prompts.empty)
    arguments = (
        _placed(rules.unbox(boxed), rules.shardings(boxed, mesh)),
        text,
        text,
        jax.eval_shape(lambda: jax.random.key(0)),
        jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=place),
    )
    return Job(
        jax.jit(sample, compiler_options=compiling.options(mesh.devices.flat[0])),
        arguments,
        parameters=_count(arguments[0]),
        tokens=_tokens(config, rows),
        flops=_sampling_flops(config, learner.flops),
    )


def _sampling_flops(config: ConfigDict, training: Mapping[str, float]) -> dict[str, float] | None:
    """Of a batch, from those of training on a row; the text to lead away from is encoded in any case."""
    calls = _evaluations(config, config.sampling.steps)
    if calls is None:
        return None
    passes = calls * (1 if config.sampling.guidance == 1.0 else 2)
    rows = config.sampling.batch / (1 + flops.BACKWARD)
    return {part: value * rows * (2 if part == "text_encoder" else passes) for part, value in training.items()}


def _evaluations(config: ConfigDict, steps: int) -> int | None:
    """How often the solver calls the network: it is traced with a single multiply-add in the network's place.

    None of a solver that takes as many steps as its samples need.
    """
    solver = make_solver(config.sampling, make_path(config.flow), jax.random.split(jax.random.key(0), 1))
    times = make_sampling_times(config, steps)
    one = jnp.ones((1, 1))
    traced = jax.jit(lambda x: solver(lambda x, t: x @ one, x, times)).trace(one)
    try:
        return round(matrix_flops(traced) / 2)
    except ValueError:
        return None


def _autoencoder(data: ConfigDict, config: ConfigDict, step: str, mesh: Mesh) -> Job:
    module, tiles = frozen_autoencoder.make_model(config.model), frozen_autoencoder.make_tiles(config.tiles)
    latent = module.compression.latent_shape(data.frames, data.height, data.width)
    one_frame = jax.ShapeDtypeStruct((1, 1, module.compression.height, module.compression.width, 3), jnp.float32)
    params = rules.unbox(jax.eval_shape(module.init, jax.random.key(0), one_frame))
    everywhere = jax.tree.map(lambda _: NamedSharding(mesh, P()), params)
    rows, spread = mesh.size, NamedSharding(mesh, P(axes.MESH))

    encode, decode = tiling.encode_with(module, tiles), tiling.decode_with(module, tiles)
    shape = (data.frames, data.height, data.width, 3) if step == "encode" else latent
    clips = jax.ShapeDtypeStruct((rows, *shape), jnp.float32, sharding=spread)
    whole = encode if step == "encode" else partial(decode, frames=data.frames)
    function = jax.jit(whole, out_shardings=spread)
    one = jax.jit(whole).trace(params, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    parts = {"autoencoder": rows * matrix_flops(one)}
    return Job(function, (_placed(params, everywhere), clips), _count(params), None, parts)


def _text(config: ConfigDict, name: str, mesh: Mesh) -> Job:
    if name not in config.text.encoders:
        raise UsageError(f"--step={TEXT}{name}: this config's text encoders are {', '.join(config.text.encoders)}.")
    encoder, dtype = config.text.encoders[name], jnp.dtype(config.text.dtype)
    module = published.tower(encoder.tower, encoder.tokens, dtype)
    boxed = jax.eval_shape(module.init, jax.random.key(0), *_texts(1, encoder.tokens, None))
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), rules.unbox(boxed))
    rows = math.lcm(pretrained.ROWS, mesh.shape[axes.DATA] * mesh.shape[axes.FSDP])
    one = jax.jit(module.apply).trace(params, *_texts(1, encoder.tokens, None))
    arguments = (_placed(params, rules.shardings(boxed, mesh)), *_texts(rows, encoder.tokens, batch_sharding(mesh)))
    parts = {"text_encoder": rows * matrix_flops(one)}
    return Job(jax.jit(module.apply), arguments, _count(params), rows * encoder.tokens, parts)


def _texts(rows: int, tokens: int, place: NamedSharding | None) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Identifiers and which are real."""
    return tuple(jax.ShapeDtypeStruct((rows, tokens), dtype, sharding=place) for dtype in (jnp.int32, jnp.bool_))


def compile_job(job: Job, mesh: Mesh, limit: float) -> Compiled:
    """Lowers and compiles for the devices of the mesh; within `rules.in_force`, like `job`.

    Raises:
      DoesNotFit: the compiler says so; `limit` bytes is what a device has.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            with jax.set_mesh(mesh):
                lowered = job.function.trace(*job.arguments).lower(lowering_platforms=("tpu",))
                # Compiled.as_text fails on programs with asynchronous collectives (jax 0.10): read the dump.
                compiled = lowered.compile(compiler_options={"xla_dump_to": folder})
        except jax.errors.JaxRuntimeError as error:
            raise _refusal(error, limit) from None
        texts = Path(folder).glob("*after_optimizations.txt")
        text = max(texts, key=lambda path: path.stat().st_size).read_text()
    memory = compiled.memory_analysis()
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(
        float(memory.argument_size_in_bytes),
        float(memory.temp_size_in_bytes + fresh),
        Program(text),
        time.monotonic() - started,
    )


def _refusal(error: Exception, limit: float) -> Exception:
    """The compiler's numbers, which it gives in GiB; the error itself if it is another."""
    if "RESOURCE_EXHAUSTED" not in str(error) or "hbm" not in str(error).lower():
        return error
    sizes = [float(size) for size in re.findall(r"(\d+(?:\.\d+)?)G\b", str(error))]
    return DoesNotFit(max(sizes, default=math.nan) * GIB, limit)


def plan(config: ConfigDict, step: str, slice_: Slice, layout: dict[str, int]) -> dict[str, Any]:
    """Compiles and reads back; a tree of JSON values.

    Keys: topology, slices, devices, step, mesh, remat, microbatches, parameters, tokens, model_flops, flops (the same
    by part), fits, hbm_gib {arguments, temporaries, total, limit}, and of a program that fits hardware_flops (all
    devices), collectives (a row for each operation and axes: bytes that a device sends, runs, and how many of them
    overlap, None where the program's text does not tell), seconds {compute, hbm, ici, dcn}, exposed_seconds
    (communication that compute cannot hide), bound, mfu_bound (everything overlaps), mfu_without_overlap (nothing
    does), compile_seconds.
    """
    mesh = make_mesh(**layout, devices=topologies.devices(slice_))
    with rules.in_force(config.get("rules", rules.DEFAULT)):
        return _plan(config, step, slice_, mesh, layout)


def _plan(config: ConfigDict, step: str, slice_: Slice, mesh: Mesh, layout: dict[str, int]) -> dict[str, Any]:
    work = job(config, step, mesh)
    result: dict[str, Any] = {
        "topology": slice_.name,
        "slices": slice_.slices,
        "devices": mesh.size,
        "step": step,
        "mesh": layout,
        "remat": config.model.get("remat"),
        "microbatches": config.microbatches,
        "parameters": work.parameters,
        "tokens": work.tokens,
        "model_flops": work.model_flops,
        "flops": work.flops and dict(work.flops),
    }
    limit = slice_.generation.hbm_bytes
    try:
        compiled = compile_job(work, mesh, limit)
    except DoesNotFit as refused:
        memory = {"arguments": None, "temporaries": None, "total": refused.wanted / GIB, "limit": limit / GIB}
        return {**result, "fits": False, "hbm_gib": memory}
    return result | _read(compiled, work, slice_, mesh)


def _read(compiled: Compiled, work: Job, slice_: Slice, mesh: Mesh) -> dict[str, Any]:
    program = compiled.program
    executed = program.matrix_flops()
    collectives = program.collectives(dict(mesh.shape), slice_.slices)
    bounds = roofline.bounds(slice_, mesh, executed, memory_bytes(program), collectives)
    seconds = bounds.seconds
    at_peak = None if work.model_flops is None else work.model_flops / (mesh.size * slice_.generation.flops)
    return {
        "fits": True,
        "hbm_gib": {
            "arguments": compiled.arguments / GIB,
            "temporaries": compiled.temporaries / GIB,
            "total": (compiled.arguments + compiled.temporaries) / GIB,
            "limit": slice_.generation.hbm_bytes / GIB,
        },
        "hardware_flops": executed * mesh.size,
        "collectives": _summed(collectives),
        "seconds": seconds._asdict(),
        "exposed_seconds": bounds.exposed,
        "bound": bounds.bound,
        "mfu_bound": at_peak and at_peak / bounds.longest,
        "mfu_without_overlap": at_peak and at_peak / (max(seconds.compute, seconds.hbm) + bounds.communication),
        "compile_seconds": compiled.seconds,
    }


def _summed(collectives: list[Collective]) -> list[dict[str, Any]]:
    """A row for each operation and axes, the largest first."""
    rows: dict[tuple[str, tuple[str, ...]], list[Collective]] = defaultdict(list)
    for collective in collectives:
        rows[collective.operation, collective.axes].append(collective)
    table = [
        {
            "operation": operation,
            "axes": list(axes_),
            "bytes": sum(c.bytes for c in some),
            "runs": sum(c.runs for c in some),
            "overlapped": sum(c.runs for c in some if c.overlapped) or None,
        }
        for (operation, axes_), some in rows.items()
    ]
    return sorted(table, key=lambda row: -row["bytes"])


def _tokens(config: ConfigDict, rows: int) -> int | None:
    if "sampling" not in config:
        return None
    return rows * text_to_video.check_grid(config, text_to_video.latent_shape(config)).tokens


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, shardings)


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
