"""The command line that the benchmarks share."""

import argparse
from collections.abc import Iterable, Sequence

from vidflow import cli
from vidflow.errors import UsageError


def parser(doc: str | None, script: str) -> argparse.ArgumentParser:
    """A parser that shows the docstring of `benchmarks/<script>` as it is written."""
    parser = cli.parser(doc, script)
    parser.prog = f"python benchmarks/{script}"
    return parser


def add_common(parser: argparse.ArgumentParser) -> None:
    """Adds --against, --seconds, --limit and --json."""
    parser.add_argument("--against", metavar="torch", help="measure PyTorch too, in the same call, and print ratios")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long a case is timed after its warm-up")
    add_limit_and_json(parser)


def add_limit_and_json(parser: argparse.ArgumentParser) -> None:
    """Adds those of `add_common` that do not ask how fast something is."""
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a process is given up")
    parser.add_argument("--json", metavar="FILE", help="write rows, ratios and what they were measured on")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags, lists still as text.

    Raises:
      UsageError: an unknown flag (naming the nearest), or --against something else than torch.
    """
    args, _ = cli.parse_with_overrides(parser, argv)
    if args.against not in (None, "torch"):
        raise UsageError(f"--against={args.against} is not to be had: use --against=torch or leave it out.")
    return args


def numbers(flag: str, text: str) -> list[int]:
    """Positive integers separated by commas.

    Raises:
      UsageError: anything else.
    """
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(f"{flag}={text} is not a list of positive numbers: write them as in {flag}=4096,16384.")
    return [int(word) for word in words]


def names(flag: str, text: str, known: Iterable[str]) -> list[str]:
    """Names separated by commas, each of them a known one.

    Raises:
      UsageError: an unknown name, listing the known ones.
    """
    words, known = text.split(","), list(known)
    for word in words:
        if word not in known:
            raise UsageError(f"Unknown name '{word}' in {flag}={text}: use one of {', '.join(known)}.")
    return words
