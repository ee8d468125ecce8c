"""Evaluate a run on held-out clips and prompts, or an autoencoder that others trained.

  vidflow evaluate --run=runs/demo
  vidflow evaluate --run=runs/demo_autoencoder
  vidflow evaluate --autoencoder=Wan2.1-T2V-14B-Diffusers/vae --config=experiments/moviegen/autoencoder.py \\
      --config.data.path=my_videos --config.data.frames=33

With --run it writes evaluation.json into the run folder (name -> mean, low, high, n; intervals of 95%), protocol.json
and, for a text-to-video run, samples/; with --autoencoder it prints the scores alone. Autoencoders are scored by PSNR,
SSIM and, with --lpips=FILE and --i3d=FILE, LPIPS and rFVD, under one protocol that is printed with the numbers, beside
a floor: a codec without learning that stores no more numbers than the latents.
On bounce, a score such as bounce/shape is the share of samples in which the reader finds the shape that the prompt
names; the reader's own accuracy on true clips and on reconstructions is printed beside it. Of other videos nobody knows
what is right: samples are of the captions of the first clips, one each, to be looked at.
"""

import sys
from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError

WHERE = ("--run", "--mesh", "--distributed")  # flags that change no score


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "evaluate")
    parser.add_argument("--run", metavar="DIR", help="run folder")
    parser.add_argument(
        "--autoencoder", metavar="DIR", help="a folder that diffusers saved; its data are those of --config"
    )
    cli.add_config_flags(parser, required=False)
    parser.add_argument(
        "--prompts", type=int, default=64, help="of bounce: held-out prompts per number of objects (default: 64)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of bounce: sampling seeds, 0 to SEEDS - 1 (default: 3)")
    parser.add_argument(
        "--clips", type=int, default=256, help="clips that are reconstructed, and that the loss is of (default: 256)"
    )
    parser.add_argument("--lpips", metavar="FILE", help="weights of LPIPS as safetensors")
    parser.add_argument("--i3d", metavar="FILE", help="weights of pytorch-i3d as safetensors, for rFVD")
    parser.add_argument(
        "--only",
        metavar="PART[,PART]",
        help="autoencoder, loss, samples (default: all); evaluation.json then holds these alone",
    )
    parser.add_argument("--mesh", default="data=1", metavar="a=n,b=m", help="devices, as of vidflow sample")
    parser.add_argument("--distributed", action="store_true", help="evaluate together with other hosts")
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = cli.parse_with_overrides(parser, argv)
    if bool(args.run) == bool(args.autoencoder) or bool(args.config) != bool(args.autoencoder):
        raise UsageError("Name a run with --run, or an autoencoder with --autoencoder and its data with --config.")
    if args.run and overrides:
        raise UsageError(f"--config.{overrides[0][0]} is not for --run, which has a config of its own: leave it out.")
    for flag in ("only", "prompts", "seeds", "mesh") if args.autoencoder else ():
        if getattr(args, flag) != parser.get_default(flag):
            raise UsageError(f"--{flag} is for a run, of which --autoencoder is only a part: leave it out.")
    cli.check_counts(args, "prompts", "seeds", "clips")

    from pathlib import Path

    from vidflow import config as configs
    from vidflow import limits
    from vidflow.startup import start

    start(args.distributed)
    from vidflow.autoencoders import perceptual
    from vidflow.metrics import i3d
    from vidflow.parallel.mesh import mesh_of
    from vidflow.tasks import evaluation, frozen_autoencoder, reconstruction
    from vidflow.training import hosts, run_folder

    parts = evaluation.named("--only", args.only) if args.only is not None else ()
    judges = reconstruction.Judges(
        perceptual.load(args.lpips) if args.lpips else None, i3d.load(args.i3d) if args.i3d else None
    )
    if args.autoencoder:
        config = configs.override(configs.load(args.config), overrides)
        limits.check(config)
        tiles = frozen_autoencoder.make_tiles(config.tiles) if "tiles" in config else None
        said, rows = evaluation.evaluate_published(
            args.autoencoder, config.data, config.seed, args.clips, judges, tiles
        )
        print(reconstruction.table(rows))
    else:
        run = Path(args.run)
        run_folder.read_config(run)  # before the mark of earlier scores is taken away
        with run_folder.evaluating(run, [flag for flag in _joined(argv) if not flag.startswith(WHERE)]):
            mesh = mesh_of(args.mesh)
            said, scores = evaluation.evaluate(run, args.prompts, range(args.seeds), args.clips, judges, parts, mesh)
        if hosts.is_first():
            print(table(scores))
    if said is not None and hosts.is_first():
        print(said.card())


def _joined(argv: Sequence[str]) -> list[str]:
    """Flags with their values, --prompts=4 for --prompts 4."""
    flags: list[str] = []
    for word in argv:
        if word.startswith("--") or not flags:
            flags.append(word)
        else:
            flags[-1] += f"={word}"
    return flags


def table(scores: dict) -> str:
    """The scores as lines of text."""
    width = max(map(len, scores), default=0)
    lines = [f"{'':{width}}     mean      low     high      n"]
    for name, (mean, low, high, n) in sorted(scores.items()):
        lines.append(f"{name:{width}} {mean:8.3f} {low:8.3f} {high:8.3f} {n:6d}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
