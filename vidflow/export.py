"""Take weights out of runs: one checkpoint, or the mean of several, as safetensors.

  vidflow export --run=runs/demo --out=demo.safetensors
  vidflow export --run=runs/demo --step=600,900,1200 --out=mean.safetensors
  vidflow export --run=runs/tuned_a --run=runs/tuned_b --out=runs/tuned
  vidflow train --config=... --config.init_from=mean.safetensors --workdir=runs/next

The weights are the moving averages that a run samples with. Of several runs or steps their mean is taken, as Movie Gen
does with its finetuned models (section 3.3). A name that ends in .safetensors becomes a file, whose tensors are
named by their paths joined by "/"; another name becomes a folder that vidflow sample --run reads.
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "export")
    parser.add_argument("--run", required=True, action="append", metavar="DIR", help="run folder; may be repeated")
    parser.add_argument("--step", metavar="N[,N...]", help="checkpoints by their steps (default: the newest)")
    parser.add_argument("--best", default="", metavar="METRIC", help="the checkpoint where config.checkpoint.best is")
    parser.add_argument("--out", required=True, metavar="NAME", help="FILE.safetensors, or a folder")
    args, _ = cli.parse_with_overrides(parser, argv)
    if args.step and args.best:
        raise UsageError("--step and --best both choose a checkpoint: give one of them.")
    words = args.step.split(",") if args.step else []
    if not all(word.strip().isdecimal() for word in words):
        raise UsageError(f"--step={args.step} is not a list of steps: write --step=600 or --step=600,900.")

    from pathlib import Path

    from vidflow.startup import start

    start()
    from vidflow.tasks.exporting import export

    number = export([Path(run) for run in args.run], [int(word) for word in words], args.best, Path(args.out))
    print(f"{args.out}: {'the averaged weights' if number == 1 else f'the mean of {number} averaged weights'}")


if __name__ == "__main__":
    cli.run(main)
