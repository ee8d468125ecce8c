"""What every verb does to its process before it imports jax."""

import logging
import os
import re
import sys
from pathlib import Path

from vidflow.errors import UsageError

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
HUGE_PAGES = "glibc.malloc.hugetlb"
CLUSTER = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def start(distributed: bool = False) -> None:
    """Sets up logging, keeps compiled programs on disk, so that the second run of a program starts at once, and joins
    the other processes of a distributed run.

    Raises:
      UsageError: a distributed run whose other processes are not known.
    """
    _begin_with_huge_pages()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("jax", "orbax", "grain"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns of every folder that it only reads
    # When a checkpoint cannot be written one exception reaches us; asyncio would print one for each of its arrays.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidflow" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    if not any(Path("/dev").glob("accel*")) and not any(Path("/dev").glob("vfio/*")):
        from vidflow.parallel.topologies import ALONE

        for name, value in ALONE.items():  # libtpu may be installed, to compile with; it would look for its TPU
            os.environ.setdefault(name, value)
    if distributed:
        _join()


def _begin_with_huge_pages() -> None:
    """Begins a verb's process once more, if need be, so that its memory comes in pages of 2 MiB.

    XLA takes the memory of a program anew at each call, and on a CPU two fifths of a small model's step went into pages
    of 4 KiB (benchmarks/RESULTS.md). Linux mostly gives larger ones to who asks, and glibc asks where its environment
    says so as a process begins; what that starts inherits it.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not _is_a_verb() or HUGE_PAGES in tunables or not (PAGES.exists() and "[madvise]" in PAGES.read_text()):
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, f"{HUGE_PAGES}=1")))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_a_verb() -> bool:
    """Whether the process is `vidflow VERB` or `python -m vidflow.VERB`, and not one that calls a verb among others."""
    program = sys.modules["__main__"]
    name = program.__spec__.name if program.__spec__ else Path(getattr(program, "__file__", "")).name
    return name.partition(".")[0] == "vidflow"


def _join() -> None:
    """Joins the cluster that `CLUSTER` describes or, without it, the one that JAX finds: a TPU pod, GKE, Slurm, MPI."""
    given = [name for name in CLUSTER if os.environ.get(name)]
    missing = [name for name in CLUSTER if name not in given]
    if given and missing:
        raise UsageError(f"{given[0]} is set and {missing[0]} is not: set {', '.join(CLUSTER)} on every host, or none.")
    address, count, index = (os.environ.get(name, "") for name in CLUSTER)
    if given and not re.fullmatch(r".+:\d+", address):
        raise UsageError(f"JAX_COORDINATOR_ADDRESS is '{address}': write HOST:PORT, a free port of process 0's host.")
    if given and not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise UsageError(
            f"JAX_PROCESS_ID is '{index}' and JAX_NUM_PROCESSES '{count}': number the processes from 0 to one less "
            "than there are."
        )

    import jax

    if given:
        jax.distributed.initialize(address, int(count), int(index), cluster_detection_method="deactivate")
    else:
        try:
            jax.distributed.initialize()
        except ValueError:
            raise UsageError(f"JAX finds no cluster for --distributed here: set {', '.join(CLUSTER)}.") from None
    if jax.default_backend() == "cpu":
        # There each process has its own keys to the cache and only the first writes: it would be a compilation ahead of
        # the others, and Gloo gives up on them after 30 seconds.
        jax.config.update("jax_enable_compilation_cache", False)
    if jax.process_index() > 0:
        logging.getLogger().setLevel(logging.WARNING)  # one voice is enough
