"""Fit laws of scaling to the results of a sweep: the best size, tokens and loss for a budget of training FLOPs.

  vidflow fit --results=runs/sweep/results.jsonl --out=runs/laws
  vidflow fit --results=runs/sweep/results.jsonl --out=runs/laws --holdout=largest --metric=bounce/shape
  vidflow fit --results=runs/sweep/results.jsonl --out=runs/laws --predict=1e21

Methods (Hoffmann et al. 2022): isoflop, a parabola over model size at each budget and power laws through their minima;
parametric, one formula of the loss of every run, which wants --convention=6ND; envelope, which of the training curves
is lowest. --holdout=largest fits without the largest budget, and says how well the laws foretell it. Results of three
learning rates and batch sizes or more at each size and length also give the rules of both (Yin et al. 2024). Writes
laws.json, figures and, for isoflop, a table of the losses (losses.md), and prints the laws beside those that papers
have published.
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "fit")
    parser.add_argument("--results", required=True, metavar="FILE", help="results.jsonl of a sweep")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for laws.json and the figures")
    parser.add_argument("--method", default="isoflop", help="isoflop (default), parametric or envelope")
    parser.add_argument("--holdout", choices=["largest"], help="fit without the largest budget, and try the laws on it")
    parser.add_argument("--metric", action="append", default=[], help="fit this metric too (isoflop); may be repeated")
    parser.add_argument("--convention", help="count FLOPs so: counted, 6ND, 6ND+attention, layers or cross_dit")
    parser.add_argument("--predict", metavar="FLOPS", help="say what the laws say of a budget, such as 1e21")
    args, _ = cli.parse_with_overrides(parser, argv)
    budget = _budget(args.predict) if args.predict else None
    if args.metric and args.method != "isoflop":
        raise UsageError(f"--metric={args.metric[0]} is fitted by --method=isoflop alone: leave one of the two out.")

    import json
    from pathlib import Path

    from vidflow import files
    from vidflow.startup import start

    start()
    from vidflow.reporting import laws, losses
    from vidflow.tasks import fitting, results

    out = Path(args.out)
    if Path(args.results).is_dir():
        raise UsageError(f"--results={args.results} is a folder: name the results.jsonl in it.")
    rows, said = results.sound(results.read(Path(args.results)))
    files.make_folder(out)
    try:
        rules = fitting.rules(rows)
    except UsageError as error:  # laws take the best of the rates, whatever was tried
        rules, said = None, [*said, f"no rules of learning rate and batch size: {error}"]
    tuned = results.tuned(rows)
    if args.method == "isoflop":
        files.write_whole(out / "losses.md", losses.as_markdown(tuned))
    points = results.points(results.under(tuned, args.convention) if args.convention else tuned, args.metric)
    seen, held, trials = points, None, []
    if args.holdout:
        largest_budget = fitting.of_the_largest(results.points(tuned))  # by the FLOPs that the budgets were made of
        seen, held = points.only(~largest_budget), points.only(largest_budget)
    found = fitting.fit(seen, args.method)
    largest = float(seen.flops.max())

    print(laws.as_text(found, args.method))
    for line in [*said, *found.said]:
        print(f"note: {line}")
    if (bound := fitting.floor(found)) is not None:
        print(laws.floor_text(*bound))
    more = {"runs": len(seen.loss), "largest": largest, "convention": args.convention or rows[0].get("convention")}
    more["commits"] = sorted({str(commit) for row in rows for commit in results.commits_of(row)})
    if held is not None:
        trials = fitting.tried(found, held)
        print(laws.held_text(trials))
        more["held_out"] = [trial._asdict() for trial in trials]
    if rules is not None:
        more["rules"] = laws.rules_as_json(rules)
    files.write_whole(out / "laws.json", json.dumps(laws.as_json(found, args.method, **more), indent=1) + "\n")
    for name, figure in laws.figures(found, seen, trials).items():
        figure.savefig(out / f"{name}.png", dpi=150)
    if budget is not None:
        print(*laws.prediction(found, rules, budget, largest), sep="\n")


def _budget(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--predict={text} is not a budget of FLOPs: write a positive number, such as 1e21.")
    return value


if __name__ == "__main__":
    cli.run(main)
