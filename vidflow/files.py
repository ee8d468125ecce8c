"""Files that are whole or absent, their digests, and folders that one process has at a time."""

import fcntl
import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vidflow.errors import UsageError


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new one, never a part.

    Raises:
      UsageError: the storage refuses.
    """
    temporary = temporary_beside(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UsageError(f"Cannot write {path} ({error.strerror}): make room, or choose another folder.") from None


def temporary_beside(path: Path) -> Path:
    """Where to write what is to become `path`: a name of this process alone, of all hosts that share the folder."""
    return path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.tmp")


def make_folder(folder: Path) -> None:
    """Makes it, with those that it is in, unless it is there.

    Raises:
      UsageError: there can be no folder of that name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be a folder ({error.strerror}): choose another one.") from None


def is_file(path: Path | str) -> bool:
    """Whether there is one."""
    return Path(path).is_file()


def sha256(path: Path | str) -> str:
    """The digest of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def held(folder: Path, shared: bool = False) -> Iterator[None]:
    """Keeps the folder for this process: another one that asks for it meanwhile is refused, unless both share it.
    Made if absent.

    The lock is the kernel's, on `folder/.lock`: it ends with the process, however that ends.

    Raises:
      UsageError: another process has it, or the folder cannot be written.
    """
    make_folder(folder)
    try:
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise UsageError(f"Cannot write folder {folder} ({error.strerror}): choose another one.") from None
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Around what makes `path`: one process at a time has its turn, and the others wait. Makes its folder if absent.

    On storage without locks, or that cannot be written, nobody waits.
    """
    with ExitStack() as opened:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(opened.enter_context(path.with_name(f".{path.name}.lock").open("a")), fcntl.LOCK_EX)
        yield


def lock(file: IO[str]) -> bool:
    """Takes an open file for this process and those that inherit it, unless others have it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks
        pass
    return True


def is_held(folder: Path) -> bool:
    """Whether a process has `held` the folder and still runs."""
    try:
        with (folder / ".lock").open("a+") as file:
            return not lock(file)
    except OSError:
        return False


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes a JSON object whole, with a digest of it under "digest"."""
    write_whole(path, json.dumps({**record, "digest": digest(record)}, indent=2) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote.

    Raises:
      FileNotFoundError: no such file.
      UsageError: it is not whole, or was altered.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.pop("digest", None) == digest(record):
            return record
        reason = "it was altered"
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error) or type(error).__name__
    raise UsageError(f"{path} is not what was written there ({reason}): restore it from a copy, or make it again.")


def read_json(path: Path | str) -> dict[str, Any]:
    """A JSON object that somebody else wrote.

    Raises:
      UsageError: no such file, or no JSON object in it.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name the folder that holds it.") from None
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}): copy it again.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object: copy it again.")
    return value


def read_tensors(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file by name, and its metadata.

    Raises:
      UsageError: no such file, or one that is not a whole safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError:
        raise UsageError(f"There are no weights at {path}: train first, or name another place.") from None
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a whole safetensors file ({error}): copy or train it again.") from None


def digest(record: dict[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever the order and spacing of its text."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
