"""How fast attention is on this device, by length: ours, and PyTorch's beside it.

  python benchmarks/attention.py
  python benchmarks/attention.py --lengths=4096,73728 --kernels=cudnn --against=torch --json=attention.json

Queries, keys and values are random, on the device, in bfloat16 (on a CPU float32), every token sees every token. A row
is one kernel at one length, forward or both ways: milliseconds (median and interquartile range of repetitions),
TFLOP/s, percent of the device's bf16 peak where that is known, and peak memory. FLOPs are those of the model, 4 N^2
times the size of a head for every head, and three times that both ways; what a kernel computes again is not counted.

PyTorch's kernels are the backends of torch.nn.functional.scaled_dot_product_attention, and "compile", its own choice
under torch.compile. A ratio is our TFLOP/s over those of PyTorch's fastest kernel at the same length.
"""

from collections.abc import Sequence
from typing import Any

import arguments
import children
import timing

KERNELS_OF = {"cpu": ["xla"], "gpu": ["xla", "cudnn"], "tpu": ["xla", "splash"]}
TORCH_KERNELS_OF = {"cpu": ["sdpa"], "gpu": ["flash", "cudnn", "efficient", "compile"]}
LENGTHS = [1024, 4096, 16384, 32768, 73728]
CPU_LENGTHS = [512, 1024, 2048]
PASSES = ["forward", "both"]  # in this order: the peak of the first is then not the second's


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments.parser(__doc__, "attention.py")
    parser.add_argument("--lengths", metavar="N,...", help="tokens of a row; up to 73,728, on a CPU 2,048")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--heads", type=int, help="24, on a CPU 4")
    parser.add_argument("--head-size", type=int, default=128)
    parser.add_argument("--kernels", metavar="NAME,...", help="default: xla, and cudnn on a GPU, splash on a TPU")
    arguments.add_common(parser)
    args = arguments.parse(parser, argv)

    import machine
    import tables

    from vidflow.attention.attend import KERNELS

    kernels = arguments.names("--kernels", args.kernels, KERNELS) if args.kernels else None
    lengths = arguments.numbers("--lengths", args.lengths) if args.lengths else None
    document: dict[str, Any] = {"benchmark": "attention", **machine.look(args.against), "rows": [], "ratios": []}
    platform = document["platform"]
    pairs = [("vidflow", kernel) for kernel in kernels or KERNELS_OF.get(platform, ["xla"])]
    pairs += [("torch", kernel) for kernel in TORCH_KERNELS_OF.get(platform, [])] if args.against else []
    shape = {"batch": args.batch, "heads": args.heads or (4 if platform == "cpu" else 24), "head_size": args.head_size}
    machine.write(args.json, document)
    print(tables.device(document))
    print(tables.heading("attention"))
    for length in lengths or (CPU_LENGTHS if platform == "cpu" else LENGTHS):
        for framework, kernel in pairs:
            case = {"framework": framework, "kernel": kernel, "length": length, **shape, "seconds": args.seconds}
            rows = children.measure(__file__, [case | {"pass": name} for name in PASSES], args.limit)
            print(*(tables.row("attention", row) for row in rows), sep="\n", flush=True)
            document["rows"] += rows
            machine.write(args.json, document)
    document["ratios"] = ratios(document["rows"])
    print(*(tables.ratio("attention", ratio) for ratio in document["ratios"]), sep="\n")
    machine.write(args.json, document)
    children.exit_if_nothing_was_measured(document["rows"])


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our TFLOP/s over PyTorch's best, for each of our rows that has such a counterpart."""
    done = [row for row in rows if "ms" in row]
    result = []
    for ours in (row for row in done if row["framework"] == "vidflow"):
        case = (ours["length"], ours["pass"])
        theirs = [row for row in done if row["framework"] == "torch" and (row["length"], row["pass"]) == case]
        if theirs:
            best = min(theirs, key=lambda row: row["ms"])
            keys = {key: ours[key] for key in ("kernel", "length", "pass")}
            result.append({**keys, "against": f"torch {best['kernel']}", "ratio": best["ms"] / ours["ms"]})
    return result


def flops(case: dict[str, Any]) -> int:
    """Model FLOPs of a case: two products forwards, two for each of them backwards."""
    forward = 4 * case["batch"] * case["heads"] * case["length"] ** 2 * case["head_size"]
    return forward * (1 if case["pass"] == "forward" else 3)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """The row of one case, in a process of its own."""
    result = _measure_torch(case) if case["framework"] == "torch" else _measure_vidflow(case)
    return result | timing.rates(flops(case), result["ms"], result["device"])


def _measure_vidflow(case: dict[str, Any]) -> dict[str, Any]:
    from functools import partial

    import jax
    import jax.numpy as jnp

    from vidflow.attention.attend import attend

    device = jax.devices()[0]
    dtype = jnp.float32 if device.platform == "cpu" else jnp.bfloat16
    shape = (case["batch"], case["length"], case["heads"], case["head_size"])
    q, k, v, g = (jax.random.normal(key, shape, dtype) for key in jax.random.split(jax.random.key(0), 4))
    kernel = partial(attend, kernel=case["kernel"])

    def both(q: jax.Array, k: jax.Array, v: jax.Array, g: jax.Array) -> Any:
        out, backward = jax.vjp(kernel, q, k, v)
        return out, backward(g)

    program, inputs = (kernel, (q, k, v)) if case["pass"] == "forward" else (both, (q, k, v, g))
    compiled = jax.jit(program).lower(*inputs).compile()

    def run(calls: int) -> None:
        for _ in range(calls):
            out = compiled(*inputs)
        jax.block_until_ready(out)

    times = timing.repeat(run, case["seconds"])
    return {"device": device.device_kind, "dtype": dtype.__name__, **times, **timing.jax_memory(compiled)}


def _measure_torch(case: dict[str, Any]) -> dict[str, Any]:
    from contextlib import nullcontext

    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
    }
    gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    shape = (case["batch"], case["length"], case["heads"], case["head_size"])
    # Views with the heads in front, as a model has them after its projections.
    q, k, v, g = (torch.randn(shape, dtype=dtype, device=device).transpose(1, 2) for _ in range(4))
    kernel = torch.nn.functional.scaled_dot_product_attention
    kernel = torch.compile(kernel) if case["kernel"] == "compile" else kernel
    backward = case["pass"] == "both"
    for x in (q, k, v):
        x.requires_grad_(backward)

    def run(calls: int) -> None:
        with sdpa_kernel(backends[case["kernel"]]) if case["kernel"] in backends else nullcontext():
            for _ in range(calls):
                out = kernel(q, k, v)
                if backward:
                    torch.autograd.grad(out, (q, k, v), g)
        if gpu:
            torch.cuda.synchronize()

    times = timing.repeat(run, case["seconds"])
    name = torch.cuda.get_device_name() if gpu else "cpu"
    return {"device": name, "dtype": str(dtype).removeprefix("torch."), **times, **timing.torch_memory()}


if __name__ == "__main__":
    children.run(main, measure)
