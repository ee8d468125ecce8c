"""Sample videos from text.

  vidflow sample "a small red star moves slowly up and to the left"
  vidflow sample --prompt="a blue circle moves right" --run=runs/demo --out=blue.mp4 --seed=3
  vidflow sample --prompt="a red square stays still" --run=runs/demo --steps=50 --guidance=5 --frames=8

Without --run the small model of the bounce world that ships with the package is used. The same weights, prompt, seed
and settings give the same video. A model that is too large for one device is spread over several by --mesh=sequence=8
(a clip's tokens and the parameters in eight parts) or other sizes of data, fsdp, sequence and tensor; over those of
several hosts with --distributed on each, as in vidflow train.
"""

import math
from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "sample")
    parser.add_argument("text", nargs="?", metavar="PROMPT", help="what to show; the same as --prompt")
    parser.add_argument("--prompt", metavar="TEXT", help="what to show")
    parser.add_argument("--run", metavar="DIR", help="run folder of a text-to-video model (default: the shipped one)")
    parser.add_argument("--out", default="sample.mp4", metavar="FILE", help="video to write (default: sample.mp4)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--steps", type=int, help="solver steps (default: the run's)")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance, 1 for none (default: the run's)")
    parser.add_argument("--negative", default="", metavar="TEXT", help="what to lead away from (default: nothing)")
    parser.add_argument("--frames", type=int, help="length of the video (default: as trained)")
    parser.add_argument("--height", type=int, help="in pixels (default: as trained)")
    parser.add_argument("--width", type=int, help="in pixels (default: as trained)")
    parser.add_argument("--mesh", default="data=1", metavar="a=n,b=m", help="devices to spread over (default: one)")
    parser.add_argument("--distributed", action="store_true", help="sample together with other hosts")
    args, _ = cli.parse_with_overrides(parser, argv)
    if (args.text is None) == (args.prompt is None):
        raise UsageError('Give one prompt: vidflow sample "a red circle moves left".')
    prompt = args.prompt if args.text is None else args.text
    if args.run == "":
        raise UsageError("--run is empty: name a run folder, or leave --run out for the shipped model.")

    from pathlib import Path

    from vidflow import limits
    from vidflow.startup import start

    out = Path(args.out)
    if out.suffix.lower() != ".mp4" or not out.parent.is_dir() or out.is_dir():
        raise UsageError(f"--out={args.out} cannot be written: name an .mp4 file in a folder that is there.")
    if args.guidance is not None and not math.isfinite(args.guidance):
        raise UsageError(f"--guidance={args.guidance} is no number: give one from 1 up.")
    if args.seed not in limits.SEEDS:
        raise UsageError(f"--seed={args.seed} is no seed: give a number from 0 to {limits.SEEDS[-1]}.")

    start(args.distributed)
    from vidflow.data import video
    from vidflow.parallel.mesh import mesh_of
    from vidflow.tasks import generation
    from vidflow.training import hosts

    run = Path(args.run) if args.run else generation.REFERENCE
    generator = generation.load(run, mesh_of(args.mesh))
    data, sampling = generator.config.data, generator.config.sampling

    defaults = {"steps": sampling.steps, "guidance": sampling.guidance}
    defaults |= {"frames": data.frames, "height": data.height, "width": data.width}
    settings = defaults | {name: value for name in defaults if (value := getattr(args, name)) is not None}
    if args.negative and settings["guidance"] == 1.0 and sampling.guidance_shape == "constant":
        raise UsageError("--negative is what guidance leads away from, and a guidance of 1 is none: add --guidance=3.")
    [clip] = generator([prompt], seed=args.seed, negative=args.negative, **settings)
    hosts.on_first(video.write, out, clip, data.fps)
    if hosts.is_first():
        print(f"{args.out}: {len(clip)} frames of {clip.shape[1]}x{clip.shape[2]}, '{prompt}'")


if __name__ == "__main__":
    cli.run(main)
