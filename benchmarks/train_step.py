"""How fast a training step is on this device, by size of the model and length: ours, and PyTorch's beside it.

  python benchmarks/train_step.py
  python benchmarks/train_step.py --sizes=1b,5b --tokens=4096,32768 --remat=full --against=torch --json=step.json

A step is what `vidflow train` runs on one device: flow matching on latents of 16 channels in patches of 1x2x2, text of
656 tokens as wide as the model, AdamW, gradient clipping, moving average; parameters in float32, computation in
bfloat16 (on a CPU float32). Every parameter and input is random, for products of zeros run faster. A row has the time
of a step (median of repetitions, interquartile range), tokens/s, model TFLOP/s (three times the forward pass of
vidflow/scaling/flops.py), percent of the device's bf16 peak where that is known, peak memory, seconds of compilation,
and the last loss.

With --against=torch the same shapes run through two models in PyTorch under torch.compile: "torch", of the same layout
(benchmarks/torch_peer.py), and "diffusers", its WanTransformer3DModel. A ratio is our tokens/s over theirs.
"""

from collections.abc import Sequence
from typing import Any

import arguments
import children

TEXT_TOKENS = 656
CHANNELS, PATCH = 16, (1, 2, 2)
FEATURES = 64  # numbers in a patch
KERNEL_OF = {"gpu": "cudnn", "tpu": "splash"}
LONGEST_SIDE = 48  # patches


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments.parser(__doc__, "train_step.py")
    parser.add_argument("--sizes", metavar="NAME,...", help="of vidflow/models/sizes.py; 1b, on a CPU smoke")
    parser.add_argument("--tokens", metavar="N,...", help="of a video; 4096 to 73728, on a CPU 256 and 1024")
    parser.add_argument("--batch", type=int, default=1, help="videos of a step")
    parser.add_argument("--kernel", help="of attention; cudnn on a GPU, splash on a TPU, else xla")
    parser.add_argument(
        "--remat", default="none", help="as in vidflow/models/rematerialisation.py; for PyTorch all but none is full"
    )
    parser.add_argument("--gradient-dtype", default="float32", help="of ours: float32 or bfloat16")
    arguments.add_common(parser)
    args = arguments.parse(parser, argv)

    import machine
    import tables

    from vidflow.attention.attend import KERNELS
    from vidflow.models.rematerialisation import CHOICES
    from vidflow.models.sizes import SIZES

    sizes = arguments.names("--sizes", args.sizes, SIZES) if args.sizes else None
    tokens = arguments.numbers("--tokens", args.tokens) if args.tokens else None
    if args.kernel:
        arguments.names("--kernel", args.kernel, KERNELS)
    arguments.names("--remat", args.remat, [name for name in CHOICES if name != "named"])
    arguments.names("--gradient-dtype", args.gradient_dtype, ["float32", "bfloat16"])
    document: dict[str, Any] = {"benchmark": "train_step", **machine.look(args.against), "rows": [], "ratios": []}
    platform = document["platform"]
    kernel = args.kernel or KERNEL_OF.get(platform, "xla")
    frameworks = [("vidflow", kernel), *([("torch", "sdpa"), ("diffusers", "sdpa")] if args.against else [])]
    if args.against and "diffusers" not in document["versions"]:
        document["notes"] = ["diffusers is not installed: its model was not measured."]
        frameworks.pop()
    machine.write(args.json, document)
    print(tables.device(document))
    print(tables.heading("train_step"))
    for framework, kernel in frameworks:
        for size in sizes or (["smoke"] if platform == "cpu" else ["1b"]):
            for length in tokens or ([256, 1024] if platform == "cpu" else [4096, 16384, 32768, 73728]):
                case = {"framework": framework, "size": size, "tokens": length, "grid": grid(length)}
                case |= {"batch": args.batch, "kernel": kernel, "remat": args.remat, "seconds": args.seconds}
                case |= {"gradient_dtype": args.gradient_dtype if framework == "vidflow" else "float32"}
                row = children.measure(__file__, [case], args.limit)[0]
                print(tables.row("train_step", row), flush=True)
                document["rows"].append(row)
                document["ratios"] = ratios(document["rows"])
                machine.write(args.json, document)
    document["notes"] = document.get("notes", []) + sorted({row["note"] for row in document["rows"] if "note" in row})
    print(*(tables.ratio("train_step", ratio) for ratio in document["ratios"]), *document["notes"], sep="\n")
    machine.write(args.json, document)
    children.exit_if_nothing_was_measured(document["rows"])


def grid(tokens: int) -> tuple[int, int, int]:
    """(time, height, width) in patches of a video of so many tokens: the largest square frames that divide them.

    4096 is 4x32x32, 16384 16x32x32, 32768 32x32x32, 73728 32x48x48.
    """
    side = max(side for side in range(1, LONGEST_SIDE + 1) if tokens % side**2 == 0)
    return tokens // side**2, side, side


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our tokens/s over those of each other framework in the same case."""
    done = [row for row in rows if "ms" in row]
    return [
        {
            "size": ours["size"],
            "tokens": ours["tokens"],
            "against": theirs["framework"],
            "ratio": ours["tokens_per_second"] / theirs["tokens_per_second"],
        }
        for ours in done
        for theirs in done
        if ours["framework"] == "vidflow" != theirs["framework"]
        and all(ours[key] == theirs[key] for key in ("size", "tokens"))
    ]


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """The row of one case, in a process of its own."""
    if case["framework"] == "vidflow":
        import step_vidflow as step
    else:
        import step_torch as step
    result = step.measure(case)
    return result | {"tokens_per_second": 1000 * case["batch"] * case["tokens"] / result["ms"]}


if __name__ == "__main__":
    children.run(main, measure)
