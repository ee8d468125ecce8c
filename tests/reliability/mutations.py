"""Damage to files: a fixed function of a seed."""

import random


def mutated(data: bytes, seed: int) -> bytes:
    """The bytes with one or two kinds of damage, never the same bytes."""
    rng, damaged = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(damaged) + 1)
        length = min(len(damaged) - at, 1 << rng.randrange(12))
        kind = rng.choice(["flip", "flip", "cut", "drop", "zero", "noise", "insert", "repeat", "empty"])
        if kind == "flip":
            for _ in range(rng.randint(1, 8)):
                if damaged:
                    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del damaged[at:]
        elif kind == "drop":
            del damaged[at : at + length]
        elif kind == "zero":
            damaged[at : at + length] = bytes(length)
        elif kind == "noise":
            damaged[at : at + length] = rng.randbytes(length)
        elif kind == "insert":
            damaged[at:at] = rng.randbytes(rng.randint(1, 64))
        elif kind == "repeat":
            damaged[at:at] = damaged[at : at + length]
        elif rng.random() < 0.1:
            damaged.clear()
    return bytes(damaged) if damaged != data else data[:-1]
