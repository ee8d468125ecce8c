"""Evaluate a run on held-out clips and prompts.

  vidflow evaluate --run=runs/demo
  vidflow evaluate --run=runs/demo_autoencoder

Writes evaluation.json into the run folder (name -> mean, low, high, n; intervals of 95%) and, for a text-to-video run,
samples/. On bounce, a score such as bounce/shape is the share of samples in which the reader finds the shape that the
prompt names; the reader's own accuracy on true clips and on reconstructions is printed beside it.
"""

from collections.abc import Sequence

from vidflow import cli


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "evaluate")
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--prompts", type=int, default=64, help="held-out prompts per number of objects (default: 64)")
    parser.add_argument("--seeds", type=int, default=3, help="sampling seeds, 0 to SEEDS - 1 (default: 3)")
    args, _ = cli.parse_with_overrides(parser, argv)

    from pathlib import Path

    from vidflow.startup import start

    start()
    from vidflow.tasks import evaluation

    print(table(evaluation.evaluate(Path(args.run), args.prompts, range(args.seeds))))


def table(scores: dict) -> str:
    """The scores as lines of text."""
    width = max(map(len, scores))
    lines = [f"{'':{width}}     mean      low     high      n"]
    for name, (mean, low, high, n) in sorted(scores.items()):
        lines.append(f"{name:{width}} {mean:8.3f} {low:8.3f} {high:8.3f} {n:6d}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
