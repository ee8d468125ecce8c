"""Run every point of a sweep and gather what they give in one table: results.jsonl, a line a point.

  vidflow sweep --config=experiments/scaling/isoflop.py --workdir=runs/isoflop/sweep --backend=print
  vidflow encode --config=experiments/bounce/text_to_video.py --config.autoencoder.run=experiments/scaling \\
      --config.data.clips=262144 --out=runs/isoflop/latents
  vidflow sweep --config=experiments/scaling/isoflop.py --workdir=runs/isoflop/sweep --jobs=2 --evaluate=loss
  vidflow fit --results=runs/isoflop/sweep/results.jsonl --out=runs/isoflop/laws

The file has a function sweep(add) beside its get_config, and calls add({"model.size": "demo", "seed": 1}) once a point.
Each point is a run of vidflow train in a folder of its own, named by the digest of its config. The same command goes on
after a kill: finished points are not run again, begun ones resume. A point also counts as finished by its rows in
results.jsonl: copy the file to go on elsewhere. Any --config.NAME=VALUE that the points do not set holds for all, such
as --config.data.path, the cache of latents (vidflow encode) that they share.
Points that differ in `steps` alone, with config.optimizer.decay=stable or constant, go on from one another's
checkpoints (config.checkpoint.keep_every) where their rates part: the losses of several lengths for the price of the
longest.
Commands that --backend=tpu prints start a run and return: give each once launch/tpu_vm.sh status says that the one
before it has ended. On several hosts evaluate wants --mesh besides. Where the folders are, the same command without
--backend then writes the table.
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError

BACKENDS = ("local", "tpu", "print")
TPU = (
    "# One after another: each returns at once, and the next is refused until launch/tpu_vm.sh status says that it has "
    "ended."
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "sweep")
    cli.add_config_flags(parser)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the sweep; resumed if it is there")
    parser.add_argument(
        "--jobs", type=int, default=1, help="points at a time, each on its share of the cores (default 1; local)"
    )
    parser.add_argument(
        "--backend", default="local", help="local; print commands; tpu: print them for launch/tpu_vm.sh, one slice"
    )
    parser.add_argument("--only", metavar="TEXT", help="only the points whose name has this in it, such as seed=0")
    parser.add_argument("--evaluate", metavar="PART[,PART]", help="evaluate each: loss, samples, autoencoder")
    parser.add_argument("--curve", type=int, default=1, help="rows a run, along the way; its rate must be constant")
    args, overrides = cli.parse_with_overrides(parser, argv)
    if args.backend not in BACKENDS:
        raise UsageError(f"--backend={args.backend} is not one of {', '.join(BACKENDS)}.")
    if args.jobs < 1 or args.curve < 1:
        raise UsageError("--jobs and --curve count from 1.")
    if args.curve > 1 and args.evaluate:
        raise UsageError("--curve has rows along the way, of training, and --evaluate scores the end: leave one out.")

    import sys
    from pathlib import Path

    from tqdm import tqdm

    from vidflow import files
    from vidflow.reporting import points as table
    from vidflow.startup import start

    start()
    from vidflow.tasks import evaluation, local_points, sweeping

    parts = evaluation.named("--evaluate", args.evaluate) if args.evaluate else ()
    flags = [f"--only={','.join(parts)}"] if parts else []
    workdir = Path(args.workdir)
    points = sweeping.points(args.config, overrides)
    chosen = [point for point in points if not args.only or args.only in point.name]
    if not chosen:
        raise UsageError(f"--only={args.only} is in no point's name; the first is: {points[0].name}.")
    for point in chosen if parts else ():
        evaluation.check_parts(point.config, parts, point.name)
    if args.curve > 1:
        sweeping.check_curve(points, args.curve)
    if args.backend != "local":
        _print_commands([command for point in chosen for command in point.commands(workdir, flags)], args.backend)
        return

    failed: list[str] = []

    def rows_of(point: sweeping.Point) -> list[dict]:
        return sweeping.rows(point, workdir, flags, args.curve)

    with files.held(workdir), tqdm(total=len(chosen), desc="points", unit="point") as bar:
        progress = local_points.Progress.of(workdir, flags, each=args.curve)

        def done(point: sweeping.Point, code: int) -> None:
            if code:
                failed.append(f"{point.name} (exit {code}): see {workdir / point.folder}.log")
            else:
                local_points.collect(points, progress, rows_of)
                bar.write(table.line(progress.read[point.folder][-1]))
            bar.update()

        local_points.collect(points, progress, rows_of)  # says before anything runs that a table is of something else
        bar.update(sum(map(progress.is_finished, chosen)))
        bar.write(table.HEADING)
        try:
            local_points.run(chosen, progress, args.jobs, done)
        finally:
            rows = local_points.collect(points, progress, rows_of)
    print(table.as_text(rows))
    print(f"{workdir / 'results.jsonl'}: {len(rows)} rows")
    if failed:
        print(*failed, sep="\n", file=sys.stderr)
        sys.exit(1)


def _print_commands(commands: Sequence[Sequence[str]], backend: str) -> None:
    import shlex

    on_tpu = backend == "tpu"
    before, after = (["launch/tpu_vm.sh", "run", "--"], ["--distributed"]) if on_tpu else ([], [])
    if on_tpu:
        print(TPU)
    for command in commands:
        print(shlex.join([*before, "vidflow", *command, *after]))


if __name__ == "__main__":
    cli.run(main)
