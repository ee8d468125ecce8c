import argparse
import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import vidflow
from vidflow import cli
from vidflow.errors import UsageError

ROOT = Path(__file__).parent.parent


def example_parser(config: bool = True):
    parser = cli.parser("What it does.\n\n  Kept as it is.", "train")
    if config:
        cli.add_config_flags(parser)
    parser.add_argument("--workdir", required=True, metavar="FOLDER", help="the run folder")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--profile", action=argparse.BooleanOptionalAction)
    parser.add_argument("prompts", nargs="*")
    return parser


def parse(*argv, config=True):
    return cli.parse_with_overrides(example_parser(config), argv)


def test_overrides_are_collected_in_order_whatever_their_form():
    args, assignments = parse(
        "--config.x.y=1", "--config", "f.py:30b", "--config.lr", "-1e-3", "--workdir=w",
        "--config.s=a=b", "a", "--config.t=", "--config.x.y", "2", "b",
    )  # fmt: skip
    assert (args.config, args.workdir, args.prompts) == ("f.py:30b", "w", ["a", "b"])
    assert assignments == (
        ("x.y", "1"), ("lr", "-1e-3"), ("s", "a=b"), ("t", ""), ("x.y", "2"),
    )  # fmt: skip


def test_words_after_two_dashes_and_sentences_are_not_flags():
    args, assignments = parse(
        "--config=f.py", "--workdir=w", "--no-profile", "--", "--config.x=1", "--unknown"
    )
    assert args.prompts == ["--config.x=1", "--unknown"]
    assert assignments == ()
    assert args.profile is False
    args, _ = parse("--config=f.py", "--workdir=w", "--two dashes = a prompt")
    assert args.prompts == ["--two dashes = a prompt"]


def test_argv_defaults_to_the_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--config=f.py", "--workdir=w", "--config.x=1"])
    args, assignments = cli.parse_with_overrides(example_parser())
    assert (args.config, assignments) == ("f.py", (("x", "1"),))


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--config=f.py", "--workdr=w"], "--workdr is unknown; did you mean --workdir?"),
        (["--confg", "f.py", "--workdir=w"], "--confg is unknown; did you mean --config?"),
        (["--work=w"], "did you mean --workdir?"),
        (["--confg.data.x=1"], "did you mean --config.data.x?"),
        (["--no-profil"], "did you mean --no-profile?"),
        (["--config.x"], "--config.x needs a value; write --config.x=VALUE"),
        (["--config.x", "--workdir=w"], "--config.x needs a value"),
        (["--config=f.py", "--workdir=w", "-z"], "vidflow train does not take '-z'"),
    ],
)
def test_wrong_flags_are_refused(argv, message):
    with pytest.raises(UsageError) as error:
        parse(*argv)
    assert message in str(error.value)


def test_flags_are_not_abbreviated():
    with pytest.raises(SystemExit) as exit:
        example_parser().parse_args(["--config=f.py", "--workd=w"])
    assert exit.value.code == 2


def test_a_parser_without_config_takes_no_overrides():
    with pytest.raises(UsageError, match="--config.x is unknown"):
        parse("--workdir=w", "--config.x=1", config=False)


def test_config_is_required_unless_told_otherwise(capsys):
    with pytest.raises(SystemExit) as exit:
        parse("--workdir=w")
    assert exit.value.code == 2
    assert "--config" in capsys.readouterr().err
    parser = cli.parser("", "sample")
    cli.add_config_flags(parser, required=False)
    args, assignments = cli.parse_with_overrides(parser, ["--config.x=1"])
    assert args.config is None
    assert assignments == (("x", "1"),)


def test_help_shows_the_docstring_as_written(capsys):
    with pytest.raises(SystemExit) as exit:
        parse("--help")
    out = capsys.readouterr().out
    assert exit.value.code == 0
    assert "What it does.\n\n  Kept as it is." in out
    assert "usage: vidflow train" in out
    assert "--config.x.y" in out


# run


def test_run_turns_usage_errors_into_one_line(capsys):
    def main(argv):
        raise UsageError(f"no such file {argv[0]}.")

    with pytest.raises(SystemExit) as exit:
        cli.run(main, ["a.py"])
    assert exit.value.code == 2
    assert capsys.readouterr().err == "vidflow: error: no such file a.py.\n"


def test_run_passes_argv_interrupts_and_bugs():
    seen = []
    cli.run(seen.append, ["x"])
    cli.run(seen.append)
    assert seen == [["x"], None]

    def interrupted(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit:
        cli.run(interrupted)
    assert exit.value.code == 130

    def broken(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(broken)


# The console command


@pytest.fixture
def verbs(tmp_path, monkeypatch):
    """Two verbs in a folder of their own; `hello` fails if its help imports it."""
    (tmp_path / "hello.py").write_text(
        '"""Say hello.\n\nAt length.\n"""\n'
        "from vidflow.errors import UsageError\n"
        "def main(argv=None):\n"
        "    if argv == ['bad']: raise UsageError('Say who.')\n"
        "    print('hello', argv)\n"
    )
    (tmp_path / "heavy.py").write_text('"""Lift."""\nraise RuntimeError("imported")\n')
    monkeypatch.setattr(vidflow, "__path__", [*vidflow.__path__, str(tmp_path)])
    monkeypatch.setattr(cli, "VERBS", ("hello", "heavy"))
    yield
    for name in ("vidflow.hello", "vidflow.heavy"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_overview_lists_verbs_without_importing_them(verbs, capsys, argv):
    cli.main(argv)
    out = capsys.readouterr().out
    assert "  hello  Say hello.\n  heavy  Lift.\n" in out
    assert "At length" not in out
    assert "vidflow.hello" not in sys.modules


def test_verb_runs_with_its_arguments(verbs, capsys, monkeypatch):
    cli.main(["hello", "a", "--help"])
    assert capsys.readouterr().out == "hello ['a', '--help']\n"
    monkeypatch.setattr(sys, "argv", ["vidflow", "hello", "b"])
    cli.main()
    assert capsys.readouterr().out == "hello ['b']\n"


@pytest.mark.parametrize(
    "argv, message",
    [
        (["helo"], "Verb 'helo' is unknown; did you mean 'hello'?"),
        (["--verbose"], "Verb '--verbose' is unknown"),
        (["hello", "bad"], "Say who."),
    ],
)
def test_wrong_verbs_and_their_errors_exit_2(verbs, capsys, argv, message):
    with pytest.raises(SystemExit) as exit:
        cli.main(argv)
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith(f"vidflow: error: {message}")


def test_the_command_in_a_process_of_its_own():
    command = [sys.executable, "-m", "vidflow"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0
    assert all(f"\n  {verb}" in shown.stdout for verb in cli.VERBS)
    wrong = subprocess.run([*command, "trian"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr == "vidflow: error: Verb 'trian' is unknown; did you mean 'train'?\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    code = "from vidflow import cli\ncli.run(lambda _: [print('line') for _ in range(100_000)])"
    shown = f"{sys.executable} -c {shlex.quote(code)} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shown], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (141, "line\n", "")


def test_another_pipe_that_breaks_is_not_taken_for_the_reader_of_the_output():
    def verb(argv):
        raise BrokenPipeError("a decoder has gone")

    with pytest.raises(BrokenPipeError, match="a decoder has gone"):
        cli.run(verb, [])


def test_the_command_finds_modules_in_the_working_folder(tmp_path):
    (tmp_path / "my_path.py").write_text("def spiral():\n    pass\n")
    asked = "from vidflow import choices, cli\ncli.main([])\nchoices.imported('my_path.spiral', 'config.flow.path')"
    command = [sys.executable, "-P", "-c", asked]  # -P: as for a script elsewhere
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def heavy_imports(module: str) -> set[str]:
    code = f"import sys, {module}; print({{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return ast.literal_eval(done.stdout) & {"jax", "flax", "numpy", "optax", "orbax", "grain"}


@pytest.mark.parametrize("module", ["vidflow.config", "vidflow.cli"])
def test_config_and_cli_import_nothing_heavy(module):
    assert heavy_imports(module) == set()


@pytest.mark.parametrize("verb", cli.VERBS)
def test_verbs_have_a_line_in_the_overview_and_answer_at_once(verb, capsys):
    if not (ROOT / "vidflow" / f"{verb}.py").exists():
        pytest.skip("not written yet")
    cli.main([])
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith(f"  {verb} "))
    assert line.strip() != verb
    assert heavy_imports(f"vidflow.{verb}") == set()
