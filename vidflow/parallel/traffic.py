"""How many bytes a compiled program moves through a device's main memory in one call, loops counted.

An instruction outside fusions reads its operands and writes its results; inside a fusion values stay in registers or
on-chip memory. A slice reads what it gives, and an update in place writes what is new. What the compiler keeps in
on-chip memory between instructions is left out. So this is close to the least that the schedule needs; kernels that
read an operand several times (attention does) move more.
"""

import re

from vidflow.parallel.hlo import Instruction, Program

_NO_TRAFFIC = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call"}
_NO_TRAFFIC |= {"partition-id", "replica-id", "after-all", "iota", "opt-barrier", "async-update"}


def memory_bytes(program: Program) -> float:
    """Bytes read and written by one device in one call."""
    inside = _fused(program)
    total = 0.0
    for name, body in program.computations.items():
        if name not in inside and program.runs[name]:
            total += program.runs[name] * sum(_moved(program, instruction) for instruction in body)
    return total


def _fused(program: Program) -> set[str]:
    """Computations that are part of an instruction: of fusions, reductions, and kernels run asynchronously."""
    names = set()
    for body in program.computations.values():
        for instruction in body:
            if instruction.operation not in ("while", "conditional"):
                names |= set(re.findall(r"(?:calls|to_apply)=%?([\w.-]+)", instruction.text))
    return names


def _moved(program: Program, instruction: Instruction) -> float:
    operation = instruction.operation
    if operation in _NO_TRAFFIC or operation.endswith("-done"):
        return 0.0
    called = re.search(r"calls=%?([\w.-]+)", instruction.text)
    if operation in ("fusion", "async-start") and called and called[1] in program.computations:
        return _moved_by_fusion(program, instruction, called[1])
    if operation == "dynamic-slice":
        return 2 * _results(instruction)
    if operation == "dynamic-update-slice":
        return 2 * _bytes(program, instruction.operands[1])
    if operation.endswith("-start"):  # its results list the operands again
        return 2 * sum(_bytes(program, name) for name in instruction.operands)
    return _results(instruction) + sum(_bytes(program, name) for name in instruction.operands)


def _moved_by_fusion(program: Program, fusion: Instruction, name: str) -> float:
    body = program.computations[name]
    users: dict[str, list[Instruction]] = {}
    for instruction in body:
        for operand in instruction.operands:
            users.setdefault(operand, []).append(instruction)

    def uses(value: str) -> list[tuple[Instruction, bool]]:
        """Who reads a value, seen through changes of shape, and whether as the first operand."""
        found = []
        for user in users.get(value, []):
            found += uses(user.name) if user.operation == "bitcast" else [(user, user.operands[0] == value)]
        return found

    read = 0.0
    for instruction in body:
        number = re.match(r".*parameter\((\d+)\)", instruction.text) if instruction.operation == "parameter" else None
        if number is None or int(number[1]) >= len(fusion.operands):
            continue
        readers = uses(instruction.name)
        if readers and all(reader.operation == "dynamic-slice" and first for reader, first in readers):
            read += sum(_results(reader) for reader, _ in readers)
        elif not (readers and all(reader.operation == "dynamic-update-slice" and first for reader, first in readers)):
            read += _bytes(program, fusion.operands[int(number[1])])
    updates = [instruction for instruction in body if instruction.operation == "dynamic-update-slice"]
    if updates:
        return read + sum(_bytes(program, update.operands[1]) for update in updates)
    return read + _results(fusion)


def _results(instruction: Instruction) -> float:
    return float(sum(array.bytes for array in instruction.results if array.space == 0))


def _bytes(program: Program, name: str) -> float:
    return float(sum(array.bytes for array in program.shapes.get(name, ()) if array.space == 0))
