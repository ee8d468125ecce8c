"""Files that are whole or absent, their digests, and folders that one process has at a time."""

import fcntl
import hashlib
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidflow.errors import UsageError


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new one, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def sha256(path: Path) -> str:
    """The digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps the folder for this process: another one that asks for it meanwhile is refused. Made if absent.

    The lock is the kernel's, on `folder/.lock`: it ends with the process, however that ends.

    Raises:
      UsageError: another process has it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise UsageError(f"Cannot write folder {folder} ({error.strerror}): choose another one.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UsageError(
                f"Another process ({lock.read().strip() or 'unknown'}) is at work in {folder}: wait for it, stop it, "
                "or use another folder."
            ) from None
        except OSError as error:  # a network file system without locks
            logging.warning("%s cannot be locked (%s): see to it that no second process works there.", folder, error)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
        yield
