"""Train the arms of an ablation, at their best learning rate and with several seeds, and compare them in one table.

  vidflow ablate --config=experiments/ablations/blocks.py --workdir=runs/ablations/blocks --jobs=2
  vidflow ablate --config=experiments/ablations/blocks.py:smoke --workdir=runs/blocks_smoke
  vidflow ablate --config=experiments/ablations/blocks.py --results=runs/ablations/blocks/results.jsonl

The file has a function ablation() beside its get_config; see vidflow/tasks/ablating.py. With the first seed every arm
trains at each of the rates, and then with the other seeds at the best of those that do not diverge; the table says
which arms lack a seed that diverges there. The same command goes on after a kill, or on another machine with
results.jsonl alone (a line a run). Writes table.md and curves.png besides; with --results the table is made again from
such lines. Runs are told apart by their configs alone: tables that have an arm in common train it once if their --runs
are one folder.
Any --config.NAME=VALUE holds for every arm that does not set NAME itself, and arms are matched to the first with it.
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "ablate")
    cli.add_config_flags(parser)
    parser.add_argument("--workdir", metavar="DIR", help="folder of the table and its runs; resumed if it is there")
    parser.add_argument("--runs", metavar="DIR", help="folder of the runs, which other tables may share")
    parser.add_argument("--results", metavar="FILE", help="print the table of these results, and run nothing")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default 1)")
    args, overrides = cli.parse_with_overrides(parser, argv)
    if bool(args.workdir) == bool(args.results):
        raise UsageError("Say where the runs go with --workdir, or whose table to print with --results.")
    if args.jobs < 1:
        raise UsageError("--jobs counts from 1.")

    from pathlib import Path

    from tqdm import tqdm

    from vidflow import files
    from vidflow.reporting import ablations
    from vidflow.startup import start

    start()
    from vidflow.tasks import ablating, local_points, results
    from vidflow.tasks.sweeping import Point
    from vidflow.training.telemetry import diverged

    ablation, arms = ablating.plan(args.config, overrides)
    if args.results:
        print(ablations.as_markdown(ablating.read(Path(args.results), ablation), ablation))
        return
    workdir, folder = Path(args.workdir), Path(args.runs or args.workdir)
    files.make_folder(folder)
    runs = ablating.runs(ablation, arms, overrides)
    points, arm_of = [run.point for run in runs], {run.point.folder: run.arm for run in runs}

    def rows_of(point: Point) -> list[results.Row]:
        return [ablating.row(point, arm_of[point.folder], folder, ablation.evaluation)]

    total = len(arms) * (len(ablation.rates) + ablation.seeds - 1)
    with files.held(workdir), tqdm(total=total, desc="runs", unit="run") as bar:
        progress = local_points.Progress.of(workdir, ablation.evaluation, runs=folder)

        def collect() -> list[results.Row]:
            """All rows there are. That one lacks a measure is said when the first is there, not after the last."""
            rows = local_points.collect(points, progress, rows_of)
            results.require(rows, ablation.measures)
            return rows

        def train(some: list[Point]) -> list[results.Row]:
            """All rows there are once these runs are done. One that diverges has none: it would do so again."""
            failed: list[str] = []

            def done(point: Point, code: int) -> None:
                log = f"see {folder / point.folder}.log"
                if code == 2 and diverged(folder / point.folder, point.config.stability.max_skips):
                    bar.write(f"{point.name} has diverged: {log}")
                elif code:
                    failed.append(f"{point.name} (exit {code}): {log}")
                collect()
                bar.update()

            bar.update(sum(map(progress.is_finished, some)))
            local_points.run(some, progress, args.jobs, done)
            if failed:
                raise UsageError("These runs failed; the same command tries them again.\n" + "\n".join(failed))
            return collect()

        collect()  # says before anything runs that a table is of something else
        # A rate after the other, so that runs which begin together are of different arms: those of one arm share their
        # compiled programs, but only with runs that come later.
        rows = train([run.point for run in sorted(runs, key=lambda run: run.rate) if run.seed == 0])
        best = {arm.name: ablating.best_rate(arm.name, rows) for arm in arms}
        rows = train([run.point for run in runs if run.seed > 0 and run.rate == best[run.arm.name]])
    table = ablations.as_markdown(rows, ablation)
    files.write_whole(workdir / "table.md", table)
    ablations.curves(rows).savefig(workdir / "curves.png", dpi=150)
    print(table)


if __name__ == "__main__":
    cli.run(main)
