"""Decoding in other processes: the same pixels, and no file can take the caller down."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.real_clips import real_clip
from vidflow.data import decoders, video
from vidflow.errors import UsageError

CLIP = {"frames": 5, "height": 24, "width": 32, "fps": 6}


def helpers(parent: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_pixels_and_numbers_are_those_of_decoding_here():
    pool = decoders.Decoders()
    for name in ("bikes.mp4", "carphone_pristine.mp4"):
        path = real_clip(name)
        assert pool.probe(path) == video.probe(path)
        np.testing.assert_array_equal(pool.read(path, **CLIP, skip=3), video.read(path, **CLIP, skip=3))
    assert len(pool._idle) == 1  # one after another needs one process
    assert pool.read(real_clip("bikes.mp4"), **CLIP).flags.writeable


def test_a_refusal_is_the_same_sentence(tmp_path):
    pool, path = decoders.Decoders(), tmp_path / "x.mp4"
    path.write_text("no video")
    for bad in (path, tmp_path / "absent.mp4", real_clip("bikes.mp4")):
        with pytest.raises(UsageError) as here:
            video.read(bad, **{**CLIP, "frames": 10_000})
        with pytest.raises(UsageError) as there:
            pool.read(bad, **{**CLIP, "frames": 10_000})
        assert str(here.value) == str(there.value)
    assert pool.read(real_clip("bikes.mp4"), **CLIP).shape == (5, 24, 32, 3)


def test_many_threads_share_the_processes():
    pool, path = decoders.Decoders(), real_clip("carphone_distorted.mp4")
    wanted = [video.read(path, **CLIP, skip=k) for k in range(4)]
    right = []

    def work(k: int) -> None:
        for _ in range(3):
            right.append(np.array_equal(pool.read(path, **CLIP, skip=k), wanted[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 12 and 1 <= len(pool._idle) <= 4


def test_a_file_that_stalls_the_decoder_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(decoders, "PATIENCE", 3)
    os.mkfifo(tmp_path / "endless.mp4")  # opening it waits for a writer, who never comes
    pool = decoders.Decoders()
    with pytest.raises(UsageError, match=r"endless.mp4 ended the process that decoded it \(it took more than 3 s\)"):
        pool.read(tmp_path / "endless.mp4", **CLIP)
    assert pool.read(real_clip("bikes.mp4"), **CLIP).shape == (5, 24, 32, 3)


def test_a_file_that_ends_the_decoder_costs_itself_alone(tmp_path, monkeypatch):
    """Ended from outside while it decodes, twice: the second time the file is to blame."""
    monkeypatch.setattr(decoders, "PATIENCE", 60)
    os.mkfifo(tmp_path / "killer.mp4")
    pool, said, ended = decoders.Decoders(), [], set()

    def ask() -> None:
        try:
            pool.read(tmp_path / "killer.mp4", **CLIP)
        except UsageError as error:
            said.append(str(error))

    before = set(helpers(os.getpid()))
    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(2):
        assert until(lambda: set(helpers(os.getpid())) - before - ended)
        (helper,) = set(helpers(os.getpid())) - before - ended
        os.kill(helper, signal.SIGSEGV)
        ended.add(helper)
    asking.join(30)
    assert len(said) == 1 and "killer.mp4 ended the process that decoded it (exit status -11)" in said[0]


def test_an_idle_process_that_was_ended_is_nobodys_fault():
    pool = decoders.Decoders()
    pool.probe(real_clip("bikes.mp4"))
    os.kill(pool._idle[0].pid, signal.SIGKILL)
    assert pool.probe(real_clip("bikes.mp4")).frames == 250


def test_processes_end_with_the_one_that_asked_even_while_they_decode(tmp_path):
    os.mkfifo(tmp_path / "endless.mp4")
    script = (
        "import sys, threading; from pathlib import Path; from vidflow.data.decoders import Decoders\n"
        "pool = Decoders()\n"
        "pool.probe(Path(sys.argv[2]))\n"
        "pool.read(Path(sys.argv[1]), frames=1, height=8, width=8, fps=None)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "endless.mp4"), str(real_clip("bikes.mp4"))]
    parent = subprocess.Popen(command)
    assert until(lambda: len(helpers(parent.pid)) == 1)
    (helper,) = helpers(parent.pid)
    time.sleep(1.5)  # by now it waits for the endless file
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert until(lambda: not Path(f"/proc/{helper}").exists() or "Z" in Path(f"/proc/{helper}/stat").read_text(), 5)


def test_processes_end_with_the_object():
    pool = decoders.Decoders()
    pool.probe(real_clip("bikes.mp4"))
    helper = pool._idle[0].pid
    del pool
    assert not Path(f"/proc/{helper}").exists()
