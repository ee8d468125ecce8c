"""Write the report page of a run: one HTML file with its videos, scores, curves and commands.

  vidflow report --run=runs/demo
  vidflow report --run=runs/mine --compare=runs/demo --compare=runs/other --out=mine.html

The page needs no network and no other file, so it can be kept or sent as it is. A run can be reported at any time;
what is not there yet, the page says how to make. With --reference=DIR, a folder of samples with its index.json, such
as DIR/samples of another run, the page begins with those.
"""

from collections.abc import Sequence

from vidflow import cli
from vidflow.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser(__doc__, "report")
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder")
    parser.add_argument(
        "--compare", action="extend", nargs="+", default=[], metavar="DIR", help="further run folders to set beside it"
    )
    parser.add_argument("--reference", metavar="DIR", help="folder of samples to show first")
    parser.add_argument("--out", metavar="FILE", help="page to write (default: report.html in the run folder)")
    args, _ = cli.parse_with_overrides(parser, argv)

    from pathlib import Path

    from vidflow import files
    from vidflow.reporting import inputs, page

    run = inputs.read_run(Path(args.run))
    compared = [inputs.read_run(Path(folder)) for folder in args.compare]
    reference = inputs.read_samples(Path(args.reference)) if args.reference else None
    out = Path(args.out) if args.out else run.folder / "report.html"
    if isinstance(reference, inputs.Missing):
        raise UsageError(f"--reference={args.reference} holds no samples: {reference.sentence}")
    if args.out == "" or out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"--out={args.out} cannot be written: give a file name in a folder that is there.")
    files.write_whole(out, page.render(run, compared, reference))
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB, open it in a browser")


if __name__ == "__main__":
    cli.run(main)
