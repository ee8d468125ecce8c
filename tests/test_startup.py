"""What a verb does to its process, in real processes."""

import os
import subprocess
import sys

import pytest

from vidflow import startup

asks = pytest.mark.skipif(
    not startup.PAGES.exists() or "[madvise]" not in startup.PAGES.read_text(),
    reason="this kernel gives large pages to all, or to none",
)
# Says what it finds, and ends as start() has returned.
CONFIG = """
import os
from vidflow import settings

def get_config():
    print(os.environ.get("GLIBC_TUNABLES", "nothing"), os.getpid())
    config = settings.of_an_autoencoder()
    config.task = "nowhere"
    return config
"""
VERB = ["-m", "vidflow.train"]
CALLED = ["-c", "import sys; from vidflow import cli, train; cli.run(train.main, sys.argv[1:])"]


def said(tmp_path, program, **variables):
    (tmp_path / "config.py").write_text(CONFIG)
    command = [sys.executable, *program, f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}"]
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "config.task" in done.stderr
    found, processes = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert len(set(processes)) == 1  # whoever started it has its id
    return found


@asks
def test_a_verb_begins_again_with_huge_pages(tmp_path):
    assert said(tmp_path, VERB) == ("nothing", "glibc.malloc.hugetlb=1")


@asks
def test_other_settings_of_glibc_stay_and_ones_own_choice_counts(tmp_path):
    other, none = "glibc.malloc.arena_max=4", "glibc.malloc.hugetlb=0"
    assert said(tmp_path, VERB, GLIBC_TUNABLES=other) == (other, f"{other}:glibc.malloc.hugetlb=1")
    assert said(tmp_path, VERB, GLIBC_TUNABLES=none) == (none,)


def test_a_process_that_calls_a_verb_goes_on(tmp_path):
    assert said(tmp_path, CALLED) == ("nothing",)


@pytest.mark.parametrize("pages", ["[always] madvise never", "always madvise [never]", None])
def test_where_asking_changes_nothing_nothing_begins_again(tmp_path, monkeypatch, pages):
    if pages:
        (tmp_path / "enabled").write_text(pages)
    monkeypatch.setattr(startup, "PAGES", tmp_path / "enabled")
    monkeypatch.setattr(startup, "_is_a_verb", lambda: True)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("begins again"))
    startup.start()
