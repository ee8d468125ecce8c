"""Captions of a folder of videos: a text file beside each, or one `captions.jsonl`."""

import json
import os
import unicodedata
from pathlib import Path, PurePosixPath

from vidflow.errors import UsageError
from vidflow.text import tokenizers

LISTED = "captions.jsonl"


def visible(folder: Path) -> list[Path]:
    """The files under a folder that are not hidden, those of linked folders too, each folder once."""
    found: list[Path] = []
    seen: set[Path] = set()

    def is_new(path: Path) -> bool:
        """Of a linked folder: whether it lies elsewhere, for what lies here has a name already."""
        return not (path.is_symlink() and path.resolve().is_relative_to(folder.resolve()))

    for here, folders, names in os.walk(folder, followlinks=True):
        where = Path(here).resolve()
        if where in seen:  # links that go around, or two to one place
            folders.clear()
            continue
        seen.add(where)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and is_new(Path(here, name)))
        found += [path for name in names if not name.startswith(".") and (path := Path(here, name)).is_file()]
    return found


def composed(path: Path | PurePosixPath) -> str:
    """The name of a file in composed characters (Unicode NFC)."""
    # One accented letter can be stored in two ways, and systems differ in which they choose.
    return unicodedata.normalize("NFC", path.as_posix())


def read(folder: Path, videos: dict[str, Path], others: bool = False) -> dict[str, str]:
    """Name -> caption, stripped, for the videos that have one. `videos` maps names, as `composed` gives them, to paths;
    with `others` the folder may have captions of more than these.

    Raises:
      UsageError: captions that contradict the folder, or are not text that can be read as a prompt.
    """
    sidecars = {path for path in visible(folder) if path.suffix.lower() == ".txt"}
    listed = folder / LISTED
    if not listed.is_file():
        return _from_sidecars(sidecars, videos, others)
    owned = sorted(path for path in videos.values() if path.with_suffix(".txt") in sidecars)
    if owned:
        raise UsageError(
            f"{folder} has both {LISTED} and {owned[0].stem}.txt: keep one kind of caption"
        )
    return _from_lines(listed, videos, others)


def _from_sidecars(sidecars: set[Path], videos: dict[str, Path], others: bool) -> dict[str, str]:
    captions, owner = {}, {}
    for name, path in videos.items():
        sidecar = path.with_suffix(".txt")
        if sidecar not in sidecars:
            continue
        if sidecar in owner:
            raise UsageError(
                f"{sidecar} is the caption of both {owner[sidecar]} and {name}: rename one of them"
            )
        owner[sidecar] = name
        try:
            captions[name] = _checked(sidecar.read_text("utf-8-sig"), f"{sidecar}")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise UsageError(f"{sidecar}, line {line}: not UTF-8 text; save it again") from error
    orphans = sorted(sidecars - owner.keys())
    if orphans and not others:
        raise UsageError(
            f"{orphans[0]} is a caption without a video: add the video, or rename or remove it"
        )
    return captions


def _from_lines(listed: Path, videos: dict[str, Path], others: bool) -> dict[str, str]:
    captions, seen = {}, {}
    with listed.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{listed}, line {number}"
            file, caption = _entry(line, where)
            name = composed(PurePosixPath(file))
            if name not in videos and others:
                continue
            if name not in videos:
                raise UsageError(f"{where}: there is no video {file}; correct or remove the line")
            if name in seen:
                raise UsageError(
                    f"{where}: {file} already has a caption in line {seen[name]}; remove one"
                )
            seen[name] = number
            captions[name] = _checked(caption, where)
    return captions


def _checked(caption: str, where: str) -> str:
    """What no model reads, found before clips are encoded for it."""
    try:
        tokenizers.check(caption.strip())
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return caption.strip()


def _entry(line: bytes, where: str) -> tuple[str, str]:
    wanted = f'{where}: not {{"file": "name.mp4", "caption": "text"}}'
    try:
        entry = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"{wanted} ({error})") from error
    texts = [entry.get(key) for key in ("file", "caption")] if isinstance(entry, dict) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{wanted}; correct it")
    return texts[0], texts[1]
