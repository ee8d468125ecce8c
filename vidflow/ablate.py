"""Train the arms of an ablation, at their best learning rate and with several seeds, and compare them in one table.

  vidflow ablate --config=experiments/ablations/blocks.py --workdir=runs/ablations/blocks --jobs=2
  vidflow ablate --config=experiments/ablations/blocks.py:smoke --workdir=runs/smoke
  vidflow ablate --config=experiments/ablations/blocks.py --results=runs/ablations/blocks/results.jsonl

The file has a function ablation() beside its get_config; see vidflow/tasks/ablating.py. With the first seed every arm
trains at each of the rates, and then with the other seeds at the best. The same command goes on after a kill. Writes
results.jsonl (a line a run), table.md and curves.png. With --results the table is made again from such lines.
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "ablate")
    cli.add_config_flags(parser)
    parser.add_argument("--workdir", metavar="DIR", help="folder of the runs; resumed if it is there")
    parser.add_argument("--results", metavar="FILE", help="print the table of these results, and run nothing")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default 1)")
    args, overrides = cli.parse_with_overrides(parser, argv)
    if bool(args.workdir) == bool(args.results):
        raise UsageError("Say where the runs go with --workdir, or whose table to print with --results.")
    if args.jobs < 1:
        raise UsageError("--jobs counts from 1.")

    import json
    from pathlib import Path

    from tqdm import tqdm

    from vidflow import files
    from vidflow.reporting import ablations
    from vidflow.startup import start

    start()
    from vidflow.tasks import ablating, local_points, results, sweeping

    ablation, arms = ablating.plan(args.config, overrides)
    if args.results:
        rows = results.read(Path(args.results), needed=("parameters", "flops", "loss"))
        if not all("arm" in row for row in rows):
            raise UsageError(f"{args.results} has runs of no arm: it is of a sweep, for vidflow fit.")
        print(ablations.as_markdown(rows, ablation))
        return
    workdir = Path(args.workdir)
    runs = len(arms) * (len(ablation.rates) + ablation.seeds - 1)
    with files.held(workdir), tqdm(total=runs, desc="runs", unit="run") as bar:

        def train(points: dict[str, list[sweeping.Point]]) -> dict[str, list[results.Row]]:
            """What the runs of each arm say, once all are done."""
            everything, failed = [point for some in points.values() for point in some], []

            def done(point: sweeping.Point, code: int) -> None:
                failed.extend([f"{point.name} (exit {code}): see {workdir / point.folder}.log"] if code else [])
                bar.update()

            bar.update(sum(local_points.finished(point, workdir, ablation.evaluation) for point in everything))
            local_points.run(everything, workdir, args.jobs, ablation.evaluation, done)
            if failed:
                raise UsageError("These runs failed; the same command tries them again.\n" + "\n".join(failed))
            return {arm.name: ablating.rows(points[arm.name], arm, workdir) for arm in arms}

        tuned = train({arm.name: ablating.tuning(ablation, arm, overrides) for arm in arms})
        rates = {arm.name: ablating.best_rate(tuned[arm.name]) for arm in arms}
        others = train({arm.name: ablating.repeats(ablation, arm, rates[arm.name], overrides) for arm in arms})
    rows = [row for arm in arms for row in tuned[arm.name] + others[arm.name]]
    table = ablations.as_markdown(rows, ablation)
    files.write_whole(workdir / "results.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    files.write_whole(workdir / "table.md", table)
    ablations.curves(rows, workdir).savefig(workdir / "curves.png", dpi=150)
    print(table)


if __name__ == "__main__":
    cli.run(main)
