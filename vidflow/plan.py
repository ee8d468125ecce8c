"""Compile a step for a TPU slice that you do not have: does it fit, what does it send, how fast can it be.

  vidflow plan --config=experiments/moviegen/video.py:30b,768px --topology=v5p:2x2x2 --config.batch_size=1
  vidflow plan --config=experiments/moviegen/video.py:5b,256px --topology=v6e:4x8 --config.batch_size=32 --mesh fsdp=32
  vidflow plan --config=experiments/moviegen/video.py:30b,768px --topology=v5p:8x8x8 --config.batch_size=64 --search
  vidflow plan --config=experiments/moviegen/autoencoder.py --topology=v5e:2x2 --step=decode
  vidflow plan --config=experiments/moviegen/video.py:30b --topology=v5e:2x4 --step=text:ul2

The real compiler for TPUs (pip install -e '.[plan]') compiles the very step that vidflow train would run. Nothing
runs, so times are bounds: what each resource needs at its full speed. GENERATION:AxBxC counts the chips along each side
of the slice; generations are v4, v5e, v5p, v6e and tpu7x. Without --mesh, closed formulas choose one. The exit code is
1 if the step does not fit.
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "plan")
    cli.add_config_flags(parser)
    parser.add_argument("--topology", required=True, metavar="GEN:AxBxC", help="such as v5p:4x4x4 or v6e:4x8")
    parser.add_argument("--slices", type=int, default=1, help="how many such slices, joined by the data-centre network")
    parser.add_argument("--step", default="train", help="train, sample, encode, decode or text:ENCODER (default train)")
    parser.add_argument("--mesh", metavar="a=n,b=m", help="sizes of data, fsdp, sequence, tensor; those left out are 1")
    parser.add_argument("--search", action="store_true", help="compile the best layouts, and find the smallest slice")
    parser.add_argument("--json", metavar="FILE", help="write the result there as JSON")
    args, assignments = cli.parse_with_overrides(parser, argv)

    import json
    import os
    import sys
    from pathlib import Path

    os.environ["JAX_PLATFORMS"] = "cpu"  # this machine's own accelerator, if any, stays untouched
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # what is compiled for others cannot be read back here
    from vidflow import config as configs
    from vidflow import limits
    from vidflow.startup import start

    config = configs.override(configs.load(args.config), assignments)
    limits.check(config)
    if args.json and (Path(args.json).is_dir() or not Path(args.json).absolute().parent.is_dir()):
        raise UsageError(f"--json={args.json} is no file in a folder that exists: name one.")  # before minutes of work
    start()
    from vidflow import files
    from vidflow.parallel import topologies
    from vidflow.reporting import plans
    from vidflow.tasks import searching

    slice_ = topologies.parse(args.topology, args.slices)
    mesh = searching.parse_mesh(args.mesh, slice_) if args.mesh else None
    result = (searching.search if args.search else searching.plan)(config, args.step, slice_, mesh)
    print(plans.as_text(result))
    if args.json:
        files.write_whole(Path(args.json), json.dumps(result, indent=1) + "\n")
    if not result["fits"]:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
