"""Points of a sweep as processes of this machine, so many at a time."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import IO

from vidflow import files
from vidflow.errors import Preempted
from vidflow.tasks import branching, sweeping
from vidflow.tasks.results import Row
from vidflow.tasks.sweeping import Point
from vidflow.training import run_folder

STOPPED = 75  # a run that was told to stop, and a sweep


def finished(point: Point, workdir: Path, evaluation: Sequence[str]) -> bool:
    """Whether nothing is left to run of the point."""
    folder = workdir / point.folder
    trained = run_folder.is_finished(folder, point.config.steps)
    return trained and (not evaluation or (folder / "evaluation.json").exists())


def collect(points: Sequence[Point], workdir: Path, evaluation: Sequence[str], curve: int) -> list[Row]:
    """results.jsonl: the rows of all finished points, in the order of the sweep."""
    rows: list[Row] = []
    for point in points:
        if finished(point, workdir, evaluation):
            rows += sweeping.rows(point, workdir, curve)
    files.write_whole(workdir / "results.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def run(
    points: Sequence[Point], workdir: Path, jobs: int, evaluation: Sequence[str], done: Callable[[Point, int], None]
) -> None:
    """Trains each point that is not finished, and evaluates it with the flags `evaluation`, if there are any.

    `done` hears of each point and its exit code as it ends. A point that still runs, of a sweep that was killed, is
    waited for.

    Raises:
      Preempted: SIGTERM; the points have saved what they had.
    """
    stopping, children = Event(), set()

    def one(point: Point) -> int:
        folder = workdir / point.folder
        commands = [["vidflow.train", *point.command(workdir)]]
        commands += [["vidflow.evaluate", f"--run={folder}", *evaluation]] if evaluation else []
        while files.is_held(folder) and not stopping.wait(0.2):
            pass
        branching.begin(point, points, workdir)
        code = 0
        with (workdir / f"{point.folder}.log").open("a") as log:
            for command in commands:
                code = code or _call(command, log, stopping, children)
        return code

    def stop(*_: object) -> None:
        raise Preempted("The sweep was told to stop; the same command goes on.", STOPPED)

    before = signal.signal(signal.SIGTERM, stop)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, point): point for point in points if not finished(point, workdir, evaluation)}
        try:
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BaseException:
            stopping.set()
            for child in tuple(children):
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


def _call(command: list[str], log: IO[str], stopping: Event, children: set[subprocess.Popen]) -> int:
    if stopping.is_set():
        return STOPPED
    child = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    children.add(child)
    if stopping.is_set():  # between the look above and now
        child.terminate()
    code = child.wait()
    children.discard(child)
    return code
