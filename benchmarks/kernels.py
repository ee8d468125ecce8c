"""Whether attention kernels compute attention on this device: results and gradients against the definition in float32.

  python benchmarks/kernels.py
  python benchmarks/kernels.py --kernels=cudnn --json=kernels.json

Each case is a shape that training meets or a corner where a kernel has been seen to go wrong: lengths that no block
divides, padded keys and queries, a row without any key, logits far below zero. An error is the largest difference over
the largest value of the definition; in bfloat16 0.02 is let through, in float32 0.0001. Exits with 1 if a case failed.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import arguments
import children

from vidflow import cli

KERNELS_OF = {"cpu": ["xla"], "gpu": ["cudnn", "xla"], "tpu": ["splash", "xla"]}
MOST = {"bfloat16": 0.02, "float32": 1e-4}


class Case(NamedTuple):
    """Two rows of attention.

    Attributes:
      queries, keys: lengths.
      head_size: of four heads.
      padded_queries, padded_keys: how many at the end of the second row are padding; None for no mask at all.
      offset: added to queries and taken from keys.
    """

    queries: int
    keys: int
    head_size: int = 128
    padded_queries: int | None = None
    padded_keys: int | None = None
    offset: float = 0.0


CASES = {
    "self-attention": Case(1024, 1024),
    "self-attention, longer": Case(2304, 2304),
    "self-attention, heads of 96": Case(1024, 1024, 96),
    "a length that 64 does not divide": Case(1000, 1000),
    "text": Case(1024, 656),
    "text, a mask without padding": Case(1024, 656, padded_queries=0, padded_keys=0),
    "text, padded": Case(1024, 656, padded_queries=0, padded_keys=600),
    "padded queries and keys": Case(1024, 1024, padded_queries=300, padded_keys=300),
    "a row without keys": Case(256, 256, padded_queries=0, padded_keys=256),
    "logits far below zero": Case(256, 656, offset=4.0),
    "logits far below zero, a mask": Case(256, 704, padded_queries=0, padded_keys=0, offset=4.0),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments.parser(__doc__, "kernels.py")
    parser.add_argument("--kernels", metavar="NAME,...", help="default: xla, and cudnn on a GPU, splash on a TPU")
    arguments.add_limit_and_json(parser)
    args, _ = cli.parse_with_overrides(parser, argv)

    import machine
    import tables

    from vidflow.attention.attend import KERNELS

    kernels = arguments.names("--kernels", args.kernels, KERNELS) if args.kernels else None
    document: dict[str, Any] = {"benchmark": "kernels", **machine.look(None), "rows": []}
    print(tables.device(document))
    print(tables.heading("kernels"))
    for kernel in kernels or KERNELS_OF.get(document["platform"], ["xla"]):
        rows = children.measure(__file__, [{"kernel": kernel, "case": name} for name in CASES], args.limit)
        print(*(tables.row("kernels", row) for row in rows), sep="\n", flush=True)
        document["rows"] += rows
        machine.write(args.json, document)
    if not all(row.get("right") for row in document["rows"]):
        sys.exit(1)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Errors of the result and of the gradients of q, k and v."""
    import jax
    import jax.numpy as jnp

    from vidflow.attention.attend import attend
    from vidflow.attention.mask import Mask

    shape = CASES[case["case"]]
    dtype = jnp.float32 if jax.devices()[0].platform == "cpu" else jnp.bfloat16
    lengths = (shape.queries, shape.keys, shape.keys, shape.queries)
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, g = (
        jax.random.normal(key, (2, length, 4, shape.head_size)) for key, length in zip(keys, lengths, strict=True)
    )
    inputs = [x.astype(dtype) for x in (q + shape.offset, k - shape.offset, v, g)]
    mask = None
    if shape.padded_queries is not None:
        mask = Mask(*(_segments(*pair) for pair in zip(lengths[:2], shape[3:5], strict=True)), relation="all")

    def both(attention: Any, q: jax.Array, k: jax.Array, v: jax.Array, g: jax.Array) -> Any:
        out, backward = jax.vjp(attention, q, k, v)
        return out, *backward(g)

    def kernel(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attend(q, k, v, mask, kernel=case["kernel"])

    got = jax.jit(lambda *x: both(kernel, *x))(*inputs)
    with jax.default_matmul_precision("highest"):
        want = jax.jit(lambda *x: both(lambda q, k, v: _definition(q, k, v, mask), *x))(
            *(x.astype(jnp.float32) for x in inputs)
        )
    errors = [_error(a, b) for a, b in zip(got, want, strict=True)]
    right = all(error is not None and error <= MOST[dtype.__name__] for error in errors)
    return {"right": right, **dict(zip(("out", "dq", "dk", "dv"), errors, strict=True))}


def _error(got: Any, want: Any) -> float | None:
    """Largest difference over largest value; None if something is not finite, which a maximum may hide."""
    import jax.numpy as jnp

    return float(jnp.abs(got - want).max() / jnp.abs(want).max()) if jnp.isfinite(got).all() else None


def _segments(length: int, padded: int) -> Any:
    """Two rows of one segment, the second with padding at its end."""
    import jax.numpy as jnp

    return jnp.ones((2, length), jnp.int32).at[1, length - padded :].set(0)


def _definition(q: Any, k: Any, v: Any, mask: Any) -> Any:
    import jax
    import jax.numpy as jnp

    from vidflow.attention.mask import allowed

    logits = jnp.einsum("bnkh,bmkh->bknm", q, k) / q.shape[-1] ** 0.5
    if mask is None:
        weights = jax.nn.softmax(logits)
    else:
        may = allowed(mask)
        weights = jax.nn.softmax(jnp.where(may, logits, -1e30)) * may
    return jnp.einsum("bknm,bmkh->bnkh", weights, v)


if __name__ == "__main__":
    children.run(main, measure)
