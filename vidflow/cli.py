"""vidflow <verb> ...: research on text-to-video generation in JAX.

The shape of a verb, `vidflow/<verb>.py`:

    '''Train a model from a config.'''

    def main(argv: Sequence[str] | None = None) -> None:
        parser = cli.parser(__doc__, "train")
        cli.add_config_flags(parser)
        args, assignments = cli.parse_with_overrides(parser, argv)
        import jax  # Heavy imports come after parsing, so that --help and typos answer at once.
        config = override(load(args.config), assignments)
        ...

    if __name__ == "__main__":
        cli.run(main)
"""

import argparse
import ast
import errno
import importlib
import importlib.util
import os
import re
import select
import sys
from collections.abc import Callable, Sequence

from vidflow.config import nearest
from vidflow.errors import Preempted, UsageError

VERBS = ("train", "encode", "sample", "evaluate", "report", "export", "plan", "sweep", "fit", "ablate")


def parser(doc: str | None, verb: str) -> argparse.ArgumentParser:
    """An argument parser that shows the verb's docstring as it is written.

    Give each flag one long spelling and name it first: `parse_with_overrides` learns the flags from
    the usage line.
    """
    return argparse.ArgumentParser(
        prog=f"vidflow {verb}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # A flag added later must not change what an old command means.
    )


def add_config_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `--config FILE.py[:arg]`, and with it overrides of the form `--config.x.y=VALUE`."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="FILE.py[:arg]",
        help="experiment and its argument; --config.x.y=VALUE or --config.x.y VALUE sets one leaf",
    )


def parse_with_overrides(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, tuple[tuple[str, str], ...]]:
    """Parses `argv` (default: the process's) and collects the config overrides in it.

    Returns: the namespace, and pairs such as `("data.source", "folder")` in their order, for
      `vidflow.config.override`. A parser without `--config` has no overrides.
    Raises: UsageError for an unknown flag (naming the nearest) or word and for an override without
      value; SystemExit(2) where argparse itself refuses.
    """
    argv = sys.argv[1:] if argv is None else argv
    flags = {*re.findall(r"--[A-Za-z][\w-]*", parser.format_usage()), "--help"}
    # Overrides leave first: argparse would take the VALUE of `--config.x VALUE` for a positional.
    rest, assignments = _split_overrides(argv) if "--config" in flags else (list(argv), ())
    before_dashes = rest[: rest.index("--")] if "--" in rest else rest
    for word in before_dashes:
        name = word.partition("=")[0]
        # Before argparse, which would complain about the required flag that the typo left out.
        if re.fullmatch(r"--[^\s]+", name) and name not in flags:
            raise UsageError(f"Flag {name} is unknown; did you mean {_nearest_flag(name, flags)}?")
    args, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UsageError(f"{parser.prog} does not take {unknown[0]!r}; see {parser.prog} --help.")
    return args, assignments


def check_counts(args: argparse.Namespace, *flags: str) -> None:
    """Raises UsageError: one of these flags is below 1."""
    for flag in flags:
        if getattr(args, flag) < 1:
            raise UsageError(f"--{flag}={getattr(args, flag)} counts from 1: give more.")


def _split_overrides(argv: Sequence[str]) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    rest, assignments = [], []
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif not word.startswith("--config."):
            rest.append(word)
        else:
            name, equals, value = word.partition("=")
            if not equals:
                value = next(words, None)
                if value is None or value.startswith("--"):
                    raise UsageError(f"Flag {name} needs a value; write {name}=VALUE.")
            assignments.append((name.removeprefix("--config."), value))
    return rest, tuple(assignments)


def _nearest_flag(name: str, flags: set[str]) -> str:
    head, dot, key = name.partition(".")
    if dot and "--config" in flags:
        return f"--config.{key}"
    return nearest(head, sorted(flags))


def run(main: Callable[..., None], argv: Sequence[str] | None = None) -> None:
    """Calls `main(argv)`; a UsageError becomes one line on stderr and exit code 2, Ctrl-C 130, Preempted its code, and
    a reader of stdout that has gone, such as head, 141."""
    try:
        main(argv)
        sys.stdout.flush()
    except Preempted as notice:
        print(f"vidflow: {notice}", file=sys.stderr)
        sys.exit(notice.code)
    except UsageError as error:
        print(f"vidflow: error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        if not _is_unread():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more as it ends
        sys.exit(141)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"vidflow: error: No room left on the storage of {error.filename or 'this run'}: make room, and give "
              "the same command again.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vidflow: interrupted", file=sys.stderr)
        sys.exit(130)


def _is_unread() -> bool:
    """Whether what is printed has no reader any more; a pipe to another process may be what broke."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def main(argv: Sequence[str] | None = None) -> None:
    """The console command `vidflow`, which finds modules in the working folder as `python -m` does: what a config names
    may be one of them. They come last here, so that none hides another."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    run(_dispatch, sys.argv[1:] if argv is None else argv)


def _dispatch(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return
    verb, *rest = argv
    if verb not in VERBS:
        raise UsageError(f"Verb {verb!r} is unknown; did you mean {nearest(verb, VERBS)!r}?")
    importlib.import_module(f"vidflow.{verb}").main(rest)


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {_summary(verb)}" for verb in VERBS]
    return "\n".join(["usage: vidflow VERB ...", "", *lines, "", "vidflow VERB --help says more."])


def _summary(verb: str) -> str:
    """The first line of the verb's docstring, read without importing the verb."""
    spec = importlib.util.find_spec(f"vidflow.{verb}")
    source = spec.loader.get_source(spec.name) if spec else ""
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
