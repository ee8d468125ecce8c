"""A folder of captioned video files as a random-access source of clips."""

import bisect
import itertools
import json
import logging
import operator
import os
import unicodedata
from pathlib import Path, PurePosixPath
from typing import SupportsIndex

from tqdm import tqdm

from vidflow.data import video
from vidflow.errors import UsageError

EXTENSIONS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".gif")

_CAPTIONS = "captions.jsonl"
_FEW = 8  # files; fewer are scanned before a progress bar would be read


class FolderSource:
    """Clips of `frames` pictures of `height` x `width` from the videos under a folder.

    A file with S frames at `fps` (its own rate where `fps` is None) gives floor(S / frames) clips
    that follow one another without overlap. Clips are numbered through the files in the order of
    their names, compared code point by code point. Hidden files are passed over.

    Captions come from a text file beside each video (`walk.mp4`, `walk.txt`) or from one
    `captions.jsonl` at the top with lines `{"file": "sub/walk.mp4", "caption": "..."}`.

    Building the source decodes every captioned file once, because only the decoder knows how many
    frames a file has. `skipped` lists (name, reason) for the files that give no clip: no caption,
    not decodable, too short. They are logged in one warning.

    Item i is the same bytes whenever it is asked for.

    Raises:
      UsageError: no such folder, no usable video, or captions that contradict the folder.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        frames: int,
        height: int,
        width: int,
        fps: float | int | None,
    ):
        video.check_clip(frames, height, width, fps)
        folder = Path(path)
        videos = _videos(folder)
        captions = _captions(folder, videos)
        self._size = {"frames": frames, "height": height, "width": width, "fps": fps}
        self.skipped: list[tuple[str, str]] = []
        self._files: list[tuple[Path, str]] = []
        counts = []
        for name in tqdm(videos, desc="scan", unit="file", disable=len(videos) <= _FEW):
            try:
                clips = _clips(videos[name], captions.get(name, ""), frames, fps)
            except UsageError as reason:
                self.skipped.append((name, str(reason)))
            else:
                self._files.append((videos[name], captions[name]))
                counts.append(clips)
        self._ends = list(itertools.accumulate(counts))
        self._report(folder, len(videos))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: SupportsIndex) -> dict:
        """{"video": UInt8[np.ndarray, "T H W 3"], "caption": str} for 0 <= index < len."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        first = self._ends[number - 1] if number else 0
        path, caption = self._files[number]
        skip = (index - first) * self._size["frames"]
        return {"video": video.read(path, skip=skip, **self._size), "caption": caption}

    def _report(self, folder: Path, total: int) -> None:
        if not self._files:
            name, reason = self.skipped[0]
            raise UsageError(
                f"none of the {total} videos in {folder} is usable; the first, {name}: {reason}"
            )
        if self.skipped:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.skipped)
            logging.warning(
                "%d of %d videos in %s skipped: %s", len(self.skipped), total, folder, reasons
            )


def _clips(path: Path, caption: str, frames: int, fps: float | int | None) -> int:
    """How many clips the file gives; raises UsageError with the reason where it gives none."""
    if not caption:
        raise UsageError(f"no caption: write one in {path.stem}.txt or {_CAPTIONS}")
    info = video.probe(path)
    usable = info.frames if fps is None else video.resampled_frames(info.seconds, fps)
    if usable < frames:
        raise UsageError(f"too short: {usable} frames, {frames} needed")
    return usable // frames


def _videos(folder: Path) -> dict[str, Path]:
    """Relative name -> path, sorted by name; names are composed (NFC), as captions are."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: check the path")
    found = {}
    for path in _visible(folder):
        if path.suffix.lower() not in EXTENSIONS:
            continue
        name = _name(path.relative_to(folder))
        if name in found:
            raise UsageError(f"{folder} has two files that both read {name}: rename one of them")
        found[name] = path
    if not found:
        raise UsageError(f"{folder} holds no video: put {', '.join(EXTENSIONS)} files there")
    return dict(sorted(found.items()))


def _visible(folder: Path) -> list[Path]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return [
        path
        for path in paths
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _name(path: Path | PurePosixPath) -> str:
    # One accented letter can be stored in two ways, and systems differ in which they choose.
    return unicodedata.normalize("NFC", path.as_posix())


def _captions(folder: Path, videos: dict[str, Path]) -> dict[str, str]:
    """Name -> caption, stripped, for the videos that have one."""
    sidecars = {path for path in _visible(folder) if path.suffix.lower() == ".txt"}
    listed = folder / _CAPTIONS
    if not listed.is_file():
        return _from_sidecars(folder, sidecars, videos)
    owned = sorted(path for path in videos.values() if path.with_suffix(".txt") in sidecars)
    if owned:
        raise UsageError(
            f"{folder} has both {_CAPTIONS} and {owned[0].stem}.txt: keep one kind of caption"
        )
    return _from_lines(listed, videos)


def _from_sidecars(
    folder: Path, sidecars: set[Path], videos: dict[str, Path]
) -> dict[str, str]:
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
            captions[name] = sidecar.read_text("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise UsageError(f"{sidecar}, line {line}: not UTF-8 text; save it again") from error
    orphans = sorted(sidecars - owner.keys())
    if orphans:
        raise UsageError(
            f"{orphans[0]} is a caption without a video: add the video, or rename or remove it"
        )
    return captions


def _from_lines(listed: Path, videos: dict[str, Path]) -> dict[str, str]:
    captions, seen = {}, {}
    with listed.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{listed}, line {number}"
            file, caption = _entry(line, where)
            name = _name(PurePosixPath(file))
            if name not in videos:
                raise UsageError(f"{where}: there is no video {file}; correct or remove the line")
            if name in seen:
                raise UsageError(
                    f"{where}: {file} already has a caption in line {seen[name]}; remove one"
                )
            seen[name] = number
            captions[name] = caption.strip()
    return captions


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
