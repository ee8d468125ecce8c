"""Reading a compiled program: what it sends and multiplies in one call, loops counted.

XLA's own cost analysis counts the body of a loop once. Here the text of the optimised program is read as a graph of
computations; a computation runs as often as its callers do, times the trip count where the caller is a loop. Of the
branches of a conditional the dearest runs, as often as the conditional does: a call is planned for at its worst.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

BYTES = {"token": 0, "pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
SLICES = "slices"

# A fusion of an all-reduce with a slice of its result. It runs as a reduce-scatter: a profile of one on a TPU shows the
# time of its bytes (jax-ml.github.io/scaling-book, part 9). So it is counted as one, under its own name.
FUSED_SCATTER = "all-reduce-scatter"

_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?(?P<name>[\w.-]+) = (?P<rest>.*)$")
_HEADER = re.compile(r"^(ENTRY )?%?(?P<name>[\w.-]+) (\(.*)?\{$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](?:\{[^}]*?(?:S\((\d+)\))?\})?")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|branch_computations|(?:true|false)_computation|called_computations)="
    r"\{?(%?[\w.-]+(?:, ?%[\w.-]+)*)"
)


class Array(NamedTuple):
    """An array: its dtype by XLA's name, its shape, and the memory it is in (0 is a device's main one)."""

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * BYTES.get(self.dtype, 1)


class Instruction(NamedTuple):
    """One line: what it is called, what it does, what comes out, what goes in, and the rest of its text."""

    name: str
    operation: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str


class Collective(NamedTuple):
    """One collective operation.

    Attributes:
      operation: one of `COLLECTIVES`, or `FUSED_SCATTER`.
      axes: names of the mesh axes it spans, or `SLICES`.
      bytes: that one device sends in a call of the program, all runs together.
      runs: how often it runs in a call.
      overlapped: whether compute runs beside it; None where the text does not show it.
      dimensions: of the largest array that it moves.
    """

    operation: str
    axes: tuple[str, ...]
    bytes: float
    runs: int
    overlapped: bool | None
    dimensions: int = 2


class Program:
    """The computations of an optimised module, by name.

    Args:
      text: of the module, as `jax.stages.Compiled.as_text` or XLA's dump gives it.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] | None = None
        for line in text.splitlines():
            header = _HEADER.match(line)
            if header:
                current = self.computations.setdefault(header["name"], [])
                if line.startswith("ENTRY"):
                    self.entry = header["name"]
            elif current is not None and (found := _INSTRUCTION.match(line)):
                current.append(_instruction(found["name"], found["rest"]))
        self.shapes = {i.name: i.results for body in self.computations.values() for i in body}
        self._costs: dict[str, tuple[float, int]] = {}
        self.runs = self._count_runs()

    def instructions(self) -> Iterator[tuple[Instruction, int]]:
        """Every instruction that runs, with how often it does in a call of the program."""
        for name, body in self.computations.items():
            if self.runs[name]:
                yield from ((instruction, self.runs[name]) for instruction in body)

    def _count_runs(self) -> dict[str, int]:
        """Calls before callees: a computation is visited once all its callers are."""
        calls = {name: list(self._calls(body)) for name, body in self.computations.items()}
        waiting = defaultdict(int)
        for body in calls.values():
            for called, _ in body:
                waiting[called] += 1
        runs: dict[str, int] = defaultdict(int)
        runs[self.entry] = 1
        ready = [name for name in self.computations if not waiting[name]]
        while ready:
            name = ready.pop()
            for called, times in calls.get(name, ()):
                runs[called] += runs[name] * times
                waiting[called] -= 1
                if not waiting[called]:
                    ready.append(called)
        return runs

    def _calls(self, body: Sequence[Instruction]) -> Iterator[tuple[str, int]]:
        for instruction in body:
            if instruction.operation in ("async-update", "async-done"):
                continue  # they name the computation that their async-start has begun
            called = _called(instruction)
            if instruction.operation == "conditional":
                called = [max(called, key=self._cost)]
            times = self.trip_count(instruction) if instruction.operation == "while" else 1
            yield from ((name, times) for name in called)

    def _cost(self, name: str) -> tuple[float, int]:
        """Of a computation and all that it calls: FLOPs, then bytes written, by which branches are compared."""
        if name not in self._costs:
            body = self.computations[name]
            flops = sum(self._flops(instruction) for instruction in body)
            written = sum(array.bytes for instruction in body for array in instruction.results)
            for called, times in self._calls(body):
                more = self._cost(called)
                flops, written = flops + times * more[0], written + times * more[1]
            self._costs[name] = flops, written
        return self._costs[name]

    def trip_count(self, loop: Instruction) -> int:
        """How often the body of a `while` runs.

        Raises:
          ValueError: neither the compiler's note nor a comparison with a constant tells.
        """
        noted = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.text)
        if noted:
            return int(noted[1])
        condition = re.search(r"condition=%?([\w.-]+)", loop.text)[1]
        asked = list(self._reached(condition))
        constants = [re.search(r"constant\((\d+)\)", i.text) for i in asked]
        values = {int(found[1]) for found in constants if found}
        if len(values) != 1 or any(i.operation in ("and", "or") for i in asked):  # data may end it before
            raise ValueError(f"The trip count of {loop.name} cannot be read from its condition {condition}.")
        return values.pop()

    def _reached(self, name: str) -> Iterator[Instruction]:
        for instruction in self.computations[name]:
            yield instruction
            for called in _called(instruction):
                yield from self._reached(called)

    def collectives(self, mesh_shape: dict[str, int], slices: int = 1) -> list[Collective]:
        """All collectives that send anything, with the mesh axes they span.

        TPU programs spread an asynchronous one over several fusions with compute in between; its text stands in each of
        them, with the same mark, and counts once. What goes to other slices leaves by way of the hosts; it is listed
        with the axis `SLICES`.
        """
        begun_apart = {
            name
            for instruction, _ in self.instructions()
            if instruction.operation == "async-start"
            for name, _ in self._calls([instruction])
        }
        found: dict[Any, Collective] = {}
        for name, body in self.computations.items():
            for instruction in body if self.runs[name] else ():
                if network := re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.text):
                    if instruction.operation == "send":
                        operation = network[1].lower().replace("_", "-")
                        sent = self._sent(instruction, operation, slices) * self.runs[name]
                        found[instruction.name] = Collective(operation, (SLICES,), sent, self.runs[name], True)
                    continue
                operation = instruction.operation.removesuffix("-start")
                if operation not in COLLECTIVES:
                    continue
                groups = _groups(instruction.text)
                if name.startswith(FUSED_SCATTER):
                    operation = FUSED_SCATTER
                sent = self._sent(instruction, operation, len(groups[0])) * self.runs[name]
                chain = _chain(instruction)
                overlapped = chain or name in begun_apart or instruction.operation.endswith("-start")
                if sent:
                    axes, shown = _axes(groups, mesh_shape), True if overlapped else None
                    dimensions = max(len(array.shape) for array in instruction.results)
                    found[chain or instruction.name] = Collective(
                        operation, axes, sent, self.runs[name], shown, dimensions
                    )
        return list(found.values())

    def _sent(self, instruction: Instruction, operation: str, size: int) -> float:
        """Bytes that one device sends in one run; a ring's share, which no algorithm beats."""
        inputs = sum(array.bytes for name in instruction.operands for array in self.shapes[name])
        if operation == "collective-permute":
            return float(inputs)
        share = (size - 1) / size
        factor = {"all-gather": size - 1, "reduce-scatter": share, "all-to-all": share, "all-reduce": 2 * share}
        return float(inputs * factor.get(operation, share))

    def matrix_flops(self) -> float:
        """Floating-point operations of all matrix products and convolutions, and of the attention kernels that this
        code base calls."""
        return sum((self._flops(instruction) * runs for instruction, runs in self.instructions()), 0.0)

    def _flops(self, instruction: Instruction) -> float:
        if instruction.operation == "custom-call":
            return _kernel_flops(instruction)
        if instruction.operation not in ("dot", "convolution"):
            return 0.0
        left, right = (self.shapes[name][0].shape for name in instruction.operands[:2])
        if instruction.operation == "dot":
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.text)[1]
            depth = math.prod(left[int(axis)] for axis in contracted.split(",") if axis)
            return 2.0 * instruction.results[0].size * depth
        return _convolution_flops(instruction, left, right)


def matrix_flops(traced: Any) -> float:
    """`Program.matrix_flops` of a traced function before any optimisation, as it is lowered for a TPU."""
    return Program(traced.lower(lowering_platforms=("tpu",)).as_text(dialect="hlo")).matrix_flops()


def _convolution_flops(instruction: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> float:
    """Of those places of the window that meet an element of the input. On TPUs products are convolutions too, and the
    batch of a batched one a dimension whose window meets a single element everywhere."""
    inputs, kernel, output = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text).groups()
    result = instruction.results[0].shape
    window = dict(re.findall(r"(\w+)=([\dx_-]+)", (re.search(r"window=\{(.*?)\}", instruction.text) or ("", ""))[1]))
    places = 1
    for place, spatial in enumerate(sorted(set(kernel) - {"i", "o"})):
        read = {name: text.split("x")[place] for name, text in window.items()}
        size, stride, left_dilation, right_dilation = (
            int(read.get(name, 1)) for name in ("size", "stride", "lhs_dilate", "rhs_dilate")
        )
        low = int(read.get("pad", "0_0").split("_")[0])
        steps = np.arange(result[output.index(spatial)])[:, None] * stride + np.arange(size) * right_dilation - low
        reach = (left[inputs.index(spatial)] - 1) * left_dilation
        places *= int(((steps >= 0) & (steps <= reach) & (steps % left_dilation == 0)).sum())
    features = right[kernel.index("i")] * right[kernel.index("o")]
    return 2.0 * result[output.index("b")] * features * places


def _chain(instruction: Instruction) -> tuple[str, ...] | None:
    """The mark of an asynchronous collective that is spread over several fusions."""
    chain, channel = (re.search(p, instruction.text) for p in (r'chain_id="(\d+)"', r"channel_id=(\d+)"))
    return (instruction.operation, channel[1], chain[1]) if chain and channel else None


def _kernel_flops(instruction: Instruction) -> float:
    """Of splash attention, whose inside XLA does not see: the forward kernel has two products of queries x keys x head
    size, the fused backward kernel five."""
    kind = re.match(r"splash_mha_(fwd|dkv)", instruction.name)
    if kind is None:
        return 0.0
    constraints = re.search(r"operand_layout_constraints=\{(.*?)\}, \w+=", instruction.text)[1]
    arrays = [tuple(map(int, sides.split(","))) for sides in re.findall(r"(?:bf16|f32)\[([\d,]+)\]", constraints)]
    (*rows_and_heads, queries, head), (*_, keys, _) = arrays[:2]
    return 2.0 * {"fwd": 2, "dkv": 5}[kind[1]] * math.prod(rows_and_heads) * queries * keys * head


def _instruction(name: str, rest: str) -> Instruction:
    """Splits `shape operation(operands), attributes`; a tuple's shape stands in parentheses."""
    shape, rest = _balanced(rest) if rest.startswith("(") else rest.split(" ", 1)
    operation, _, after = rest.strip().partition("(")
    inside, _ = _balanced("(" + after)
    named = re.findall(r"%([\w.-]+)", inside) or inside.strip("()").split(", ")  # lowered programs have no marks
    operands = tuple(named)
    results = tuple(
        Array(dtype, tuple(int(n) for n in sides.split(",") if n), int(space or 0))
        for dtype, sides, space in _SHAPE.findall(shape)
    )
    return Instruction(name, operation.strip(), results, operands, rest)


def _called(instruction: Instruction) -> list[str]:
    """Names of the computations that an instruction calls; not the condition of a loop."""
    return [name.strip().lstrip("%") for names in _CALLED.findall(instruction.text) for name in names.split(",")]


def _balanced(text: str) -> tuple[str, str]:
    """The leading parenthesis with its contents, and what follows."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: index + 1], text[index + 1 :]
    return text, ""


def _groups(text: str) -> list[list[int]]:
    """Devices that take part together, from any of the notations."""
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}", text)
    if listed:
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])]
    if along := re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(([\d,]+)\))? \{(.*?)\}", text):
        return _along(*along.groups())
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if not iota:
        if noted := re.search(r"replica_groups=[^{]\S*", text):
            raise ValueError(f"It is not known which devices {noted[0]} names.")
        return [[0]]
    shape, source = ([int(n) for n in part.split(",")] for part in iota.groups()[:2])
    order = [int(n) for n in iota[3].split(",")] if iota[3] else list(range(len(source)))
    return np.arange(math.prod(source)).reshape(source).transpose(order).reshape(shape[0], -1).tolist()


def _along(mesh: str, devices: str | None, axes: str) -> list[list[int]]:
    """Groups along axes of a mesh, as jax 0.12 writes them: 'a'=2,'b'=8 and 'a','b':(2)4, of which the last is the part
    of b that counts 4 places, each of which has 8 / (2 x 4) of b's."""
    sizes = {name: int(size) for name, size in re.findall(r"'?(\w+)'?=(\d+)", mesh)}
    places = dict(zip(sizes, np.indices(tuple(sizes.values())).reshape(len(sizes), -1), strict=True))
    for name, before, size in re.findall(r"'?(\w+)'?(?::\((\d+)\)(\d+))?", axes):
        count = int(size or sizes[name])
        width = sizes[name] // (int(before or 1) * count)
        places[name] = places[name] - places[name] // width % count * width
    order = [int(device) for device in devices.split(",")] if devices else range(math.prod(sizes.values()))
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for device, rest in zip(order, zip(*places.values(), strict=True), strict=True):
        groups[rest].append(device)
    return list(groups.values())


def _axes(groups: Sequence[Sequence[int]], mesh_shape: dict[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ."""
    places = [np.unravel_index(group, tuple(mesh_shape.values())) for group in groups]
    return tuple(name for axis, name in enumerate(mesh_shape) if any(len(set(place[axis])) > 1 for place in places))
