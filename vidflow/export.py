"""Take weights out of runs: one checkpoint, or the mean of several, as safetensors. Or of a published text encoder
what encoding texts needs.

  vidflow export --run=runs/demo --out=demo.safetensors
  vidflow export --run=runs/demo --step=900,1200 --out=mean.safetensors
  vidflow export --run=runs/tuned_a --run=runs/tuned_b --out=runs/tuned
  vidflow train --config=... --config.init_from=mean.safetensors --workdir=runs/next
  vidflow export --encoder=downloads/t5-v1_1-xxl --out=encoders/t5 --dtype=bfloat16

The weights are the moving averages that a run samples with. Of several runs or steps their mean is taken, as Movie Gen
does with its finetuned models (section 3.3); of steps there are those that config.checkpoint kept. A name that ends in
.safetensors becomes a file, whose tensors are named by their paths joined by "/"; another name becomes a folder that
vidflow sample --run reads.

--encoder leaves out the decoder, or the tower of images, and takes no more memory than the folder's largest file.
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "export")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", action="append", metavar="DIR", help="run folder; may be repeated")
    source.add_argument("--encoder", metavar="DIR", help="a text encoder as Hugging Face saves it")
    parser.add_argument("--step", metavar="N[,N...]", help="checkpoints by their steps (default: the newest)")
    parser.add_argument("--best", default="", metavar="METRIC", help="the checkpoint where config.checkpoint.best is")
    parser.add_argument("--out", required=True, metavar="NAME", help="FILE.safetensors, or a folder")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="of --encoder's tensors (default: bfloat16)")
    args, _ = cli.parse_with_overrides(parser, argv)
    for flag, source in (("step", "run"), ("best", "run"), ("dtype", "encoder")):
        if getattr(args, flag) and not getattr(args, source):
            raise UsageError(f"--{flag} is of what --{source} names: leave it out.")
    if not args.out:
        raise UsageError("--out is empty: name a file or a folder.")
    if args.encoder:
        _export_encoder(args.encoder, args.out, args.dtype or "bfloat16")
        return
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


def _export_encoder(folder: str, out: str, dtype: str) -> None:
    from pathlib import Path

    import jax.numpy as jnp

    from vidflow.tasks.slimming import slim

    size = slim(Path(folder), Path(out), jnp.dtype(dtype))
    print(f"{out}: {size / 2**20:,.1f} MiB of {dtype}")


if __name__ == "__main__":
    cli.run(main)
