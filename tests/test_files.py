"""Files that are whole, records that tell when they were altered, folders for one process."""

import subprocess
import sys

import pytest

from vidflow import files
from vidflow.errors import UsageError


def test_a_record_comes_back_and_an_altered_one_does_not(tmp_path):
    path = tmp_path / "record.json"
    files.write_record(path, {"b": [1, 2.5, None], "a": {"c": "ü"}})
    assert files.read_record(path) == {"b": [1, 2.5, None], "a": {"c": "ü"}}
    text = path.read_text()
    path.write_text(text.replace("\n", "").replace(" ", ""))
    assert files.read_record(path)["b"] == [1, 2.5, None]  # its spacing is nobody's concern
    other = text.replace('"digest": "', '"digest": "0')
    for damaged in (text.replace("2.5", "2.6"), text[:-9], "", "[]", "{}", "7", other):
        path.write_text(damaged)
        with pytest.raises(UsageError, match=r"record\.json is not what was written there"):
            files.read_record(path)
    path.write_bytes(b"\xff" + text.encode())
    with pytest.raises(UsageError, match=r"record\.json is not what was written there"):
        files.read_record(path)
    with pytest.raises(FileNotFoundError):
        files.read_record(tmp_path / "absent.json")


def test_a_folder_is_held_by_one_process_at_a_time_and_freed_by_its_end(tmp_path):
    script = (
        "import sys; from pathlib import Path; from vidflow import files\n"
        "with files.held(Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "new" / "folder")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=rf"Another process \(process {other.pid} on .*\) is at work in"):
        with files.held(tmp_path / "new" / "folder"):
            pass
    other.kill()
    other.communicate()
    for _ in range(2):
        with files.held(tmp_path / "new" / "folder"):
            pass


def test_shares_of_a_folder_exclude_one_who_wants_the_whole(tmp_path):
    with files.held(tmp_path, shared=True), files.held(tmp_path, shared=True):
        with pytest.raises(UsageError, match="is at work in"), files.held(tmp_path):
            pass
    with files.held(tmp_path), pytest.raises(UsageError, match="is at work in"), files.held(tmp_path, shared=True):
        pass


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be a folder \(Not a directory\)"):
        with files.held(tmp_path / "file" / "run"):
            pass
    with pytest.raises(UsageError, match=r"Cannot write .*absent/x \(No such file"):
        files.write_whole(tmp_path / "absent" / "x", "text")


def test_processes_that_write_one_file_at_once_do_not_disturb_each_other(tmp_path):
    script = (
        "import sys; from pathlib import Path; from vidflow import files\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for _ in range(300): files.write_whole(Path(sys.argv[1]), 'text')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "shared")]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait() for process in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]
