"""Points of a sweep as processes of this machine, so many at a time."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import IO, NamedTuple

from vidflow import files
from vidflow.errors import Preempted
from vidflow.tasks import branching
from vidflow.tasks.results import Row, by_folder
from vidflow.tasks.sweeping import Point
from vidflow.training import run_folder

RESULTS = "results.jsonl"
STOPPED = 75  # a run that was told to stop, and a sweep


class Progress(NamedTuple):
    """How far a sweep is.

    Attributes:
      table: results.jsonl of the sweep.
      runs: the folder in which its points run.
      evaluation: flags with which each is evaluated.
      each: rows that a point gives.
      before: the rows of results.jsonl as it was, by folder. They count like the folders that they are of: a folder may
        be deleted, or have been on another machine.
      read: the rows that were read from folders since.
    """

    table: Path
    runs: Path
    evaluation: Sequence[str]
    each: int
    before: Mapping[str, list[Row]]
    read: dict[str, list[Row]]

    @classmethod
    def of(cls, workdir: Path, evaluation: Sequence[str], each: int = 1, runs: Path | None = None) -> "Progress":
        """The points run in `workdir` too, unless several sweeps have one folder `runs`."""
        table = workdir / RESULTS
        return cls(table, runs or workdir, evaluation, each, by_folder(table), {})

    def has_run(self, point: Point) -> bool:
        """Whether the folder of the point is here, trained and evaluated."""
        folder = self.runs / point.folder
        trained = run_folder.is_finished(folder, point.config.steps)
        return trained and (not self.evaluation or run_folder.is_evaluated(folder, self.evaluation))

    def is_finished(self, point: Point) -> bool:
        """Whether nothing is left to run of the point."""
        rows = self.before.get(point.folder, [])
        same = [row for row in rows if row.get("evaluation") == list(self.evaluation)]
        return self.has_run(point) or len(same) == self.each


def collect(points: Sequence[Point], progress: Progress, rows_of: Callable[[Point], list[Row]]) -> list[Row]:
    """results.jsonl: the rows of all finished points, in the order of the sweep; `rows_of` reads those of a folder. A
    file with rows of anything else is kept under another name."""
    rows: list[Row] = []
    for point in filter(progress.is_finished, points):
        if progress.has_run(point) and point.folder not in progress.read:
            progress.read[point.folder] = rows_of(point)
        rows += progress.read.get(point.folder) or progress.before[point.folder]
    if by_folder(progress.table).keys() - {row["folder"] for row in rows}:
        _keep_aside(progress.table)
    files.write_whole(progress.table, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _keep_aside(table: Path) -> None:
    names = (table.with_stem(f"{table.stem}-{number}") for number in count(1))
    kept = next(name for name in names if not name.exists())
    shutil.copyfile(table, kept)
    logging.warning("%s had runs that this command does not ask for: it is kept as %s.", table, kept)


def run(points: Sequence[Point], progress: Progress, jobs: int, done: Callable[[Point, int], None]) -> None:
    """Trains each point that is not finished, and evaluates it if there are flags for it.

    `jobs` at a time, each on its share of the cores: compilers' threads that wait for one another's cores take several
    times as long. On a GPU each has its share of memory, of which JAX would give the first one most. `done` hears of
    each point and its exit code as it ends. A point that still runs, of a sweep that was killed or of another one, is
    waited for.

    Raises:
      Preempted: SIGTERM; the points have saved what they had.
    """
    stopping, children, shares = Event(), set(), _shares(jobs)
    inherited = environment(jobs)
    workdir = progress.runs

    def one(point: Point) -> int:
        folder = workdir / point.folder
        while files.is_held(folder) and not stopping.wait(0.2):
            pass
        with (workdir / f"{point.folder}.log").open("a") as log:
            # From training to evaluation, and by the processes that inherit the log as long as they outlive a sweep.
            while not files.lock(log):
                if stopping.wait(0.2):
                    return STOPPED
            if progress.has_run(point):  # by another sweep, meanwhile
                return 0
            branching.begin(point, points, workdir)
            code, cores = 0, shares.get()
            for verb, *arguments in point.commands(workdir, progress.evaluation):
                code = code or _call([f"vidflow.{verb}", *arguments], log, cores, inherited, stopping, children)
        shares.put(cores)
        return code

    def stop(*_: object) -> None:
        raise Preempted("The sweep was told to stop; the same command goes on.", STOPPED)

    before = signal.signal(signal.SIGTERM, stop)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, point): point for point in points if not progress.is_finished(point)}
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


def environment(jobs: int) -> dict[str, str]:
    """Of each of so many processes: ours, with a share of a GPU's memory where none is set."""
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / jobs:.3f}", **os.environ}


def _shares(jobs: int) -> SimpleQueue[tuple[int, ...]]:
    """The cores of each of so many jobs; all, where there are too few to share or no way to say so."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares: SimpleQueue[tuple[int, ...]] = SimpleQueue()
    for job in range(jobs):
        shares.put(tuple(cores[job::jobs] if jobs <= len(cores) else cores))
    return shares


def _call(
    command: list[str],
    log: IO[str],
    cores: tuple[int, ...],
    inherited: Mapping[str, str],
    stopping: Event,
    children: set[subprocess.Popen],
) -> int:
    if stopping.is_set():
        return STOPPED
    child = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=inherited
    )
    if cores:
        with suppress(ProcessLookupError):
            os.sched_setaffinity(child.pid, cores)  # before it has started a thread
    children.add(child)
    if stopping.is_set():  # between the look above and now
        child.terminate()
    code = child.wait()
    children.discard(child)
    return code
