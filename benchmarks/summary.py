"""Markdown of all results in a folder, printed:

  python benchmarks/summary.py FOLDER > FOLDER/summary.md

It reads the files that --json of the other benchmarks wrote, but for those of saving.py, which has no rows.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import arguments
import tables

from vidflow import cli
from vidflow.errors import UsageError

TITLES = {
    "kernels": "Kernels against the definition (largest difference over largest value)",
    "attention": "Attention",
    "train_step": "Training steps",
    "autoencoder": "Autoencoders",
    "text": "Text encoders",
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments.parser(__doc__, "summary.py")
    parser.add_argument("folder", metavar="FOLDER", help="of the JSON files of the other benchmarks")
    args, _ = cli.parse_with_overrides(parser, argv)
    documents = read(Path(args.folder))
    if not documents:
        raise UsageError(f"No results in {args.folder}: name the folder of the files of --json.")
    print("\n".join(line for name, document in documents.items() for line in section(name, document)))


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The results in a folder by the name of their file; other JSON files are left out."""
    documents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    kept = {name: d for name, d in documents.items() if isinstance(d, dict) and d.get("benchmark") in TITLES}
    return dict(sorted(kept.items(), key=lambda item: list(TITLES).index(item[1]["benchmark"])))


def section(name: str, document: dict[str, Any]) -> list[str]:
    """Lines of Markdown: what was run where, the rows, the ratios, the notes."""
    benchmark = document["benchmark"]
    case, results = tables.COLUMNS[benchmark]
    width = len(case) + len(results)
    lines = [f"## {TITLES[benchmark]}: {name}", "", f"`{document['command']}`", ""]
    lines += [f"{tables.device(document)}; commit {document['commit'][:12]}; {document['date']}", ""]
    lines += [_cells([*case, *results]), _cells(["---"] * width)]
    for row in document["rows"]:
        cells = [cell.replace("|", "\\|") for cell in tables.cells(benchmark, row)]
        lines.append(_cells(cells + [""] * (width - len(cells))))
    if "GiB" in results:
        lines += ["", "GiB: peak of the device's allocator, or of the process; with * what the compiled program needs."]
    ratios = [tables.ratio(benchmark, ratio) for ratio in document.get("ratios", [])]
    lines += ["", *(f"- {line}" for line in [*ratios, *document.get("notes", [])]), ""]
    return lines


def _cells(values: list[str]) -> str:
    return f"| {' | '.join(values)} |"


if __name__ == "__main__":
    cli.run(main)
