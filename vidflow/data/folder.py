"""A folder of captioned video files as a random-access source of clips."""

import bisect
import contextlib
import hashlib
import itertools
import logging
import operator
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, SupportsIndex

from ml_collections import ConfigDict
from tqdm import tqdm

from vidflow import files
from vidflow.data import captions, video
from vidflow.data.decoders import Decoders, TooSlow
from vidflow.data.pipeline import Source
from vidflow.errors import UsageError

EXTENSIONS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".gif")

ALTERED = (
    "{} or its caption is not what it was when {} was written: restore it, or start a run or cache in another folder."
)
_FEW = 8  # files; fewer are scanned before a progress bar would be read


class FolderSource:
    """Clips of `frames` pictures of `height` x `width` from the videos under a folder.

    A file with S frames at `fps` (its own rate where `fps` is None) gives floor(S / frames) clips
    that follow one another without overlap. Clips are numbered through the files in the order of
    their names, compared code point by code point. Hidden files are passed over.

    Captions come from a text file beside each video (`walk.mp4`, `walk.txt`) or from one
    `captions.jsonl` at the top with lines `{"file": "sub/walk.mp4", "caption": "..."}`.

    The first time, every captioned file is decoded once, because only the decoder knows how many
    frames a file has. What was found is written to `manifest`, if that is given, with the size and
    a digest of every file; later the folder must hold just these files, and new ones are passed
    over. Sizes and captions are looked at when the source is made, the digest of a file when the
    first of its clips is read.

    With `max_interval` above 1 a clip takes every k-th frame at `fps` from its beginning on, k drawn by (seed, index)
    from 1 to as many as the file has room for: fast motion, as HunyuanVideo's autoencoder learnt from (intervals to 8).

    `skipped` lists (name, reason) for the files that give no clip: no caption, not decodable, too
    short. They are logged in one warning. A file that stops being decodable later is added to it,
    and each of its clips that cannot be read is replaced by another one, chosen by (seed, index) alone. A file that was
    once too slow is not read again: waiting for each of its clips would stop a run for hours.

    Item i is the same bytes whenever it is asked for. Files are decoded in other processes.

    Raises:
      UsageError: no such folder, no usable video, more than a share `max_bad` of them, or all, unusable,
        captions that contradict the folder, or a folder that is not that of the manifest.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        frames: int,
        height: int,
        width: int,
        fps: float | int | None,
        seed: int = 0,
        max_interval: int = 1,
        max_bad: float = 0.5,
        manifest: Path | None = None,
    ):
        video.check_clip(frames, height, width, fps)
        if max_interval > 1 and fps is None:
            raise UsageError("config.data.max_interval skips frames of a known rate: set config.data.fps.")
        self._folder, self._seed, self._max_bad, self._max_interval = Path(path), seed, max_bad, max_interval
        self._size = {"frames": frames, "height": height, "width": width, "fps": fps}
        self._decoders, self._lock = Decoders(), threading.Lock()
        self._manifest, self._unchecked, self._slow = manifest, set(), set()
        # Of several that start together one scans, and the others read what it found.
        with files.turn(manifest) if manifest and not manifest.exists() else contextlib.nullcontext():
            self._open()

    def _open(self) -> None:
        manifest = self._manifest
        if manifest and manifest.exists():
            found = _listed(manifest, self._folder, self._size)
            self._unchecked = {file["name"] for file in found["files"]}
        else:
            found = _scanned(self._folder, self._size)
        self.skipped = [(name, reason) for name, reason in found["skipped"]]
        self._files = found["files"]
        if not self._files:
            name, reason = self.skipped[0]
            raise UsageError(
                f"none of the {len(self.skipped)} videos in {self._folder} is usable; the first, {name}: {reason}"
            )
        self._ends = list(itertools.accumulate(file["clips"] for file in self._files))
        if self.skipped:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.skipped)
            logging.warning("%d of %d videos in %s skipped: %s", len(self.skipped), self._total, self._folder, reasons)
        self._check_share()
        if manifest and not manifest.exists():
            files.write_record(manifest, found)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """{"video": UInt8[np.ndarray, "T H W 3"], "caption": str, "index": int} for 0 <= index < len.

        `index` is that of the clip which was read: another one where the file of this one cannot be.

        Raises:
          UsageError: too many files turned out to be unusable, or one is not that of the manifest.
        """
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        for candidate in itertools.chain([index], self._replacements(index)):
            number = bisect.bisect_right(self._ends, candidate)
            first = self._ends[number - 1] if number else 0
            file = self._files[number]
            if file["name"] in self._slow:
                continue
            self._check(file)
            try:
                pictures = self._decoders.read(self._folder / file["path"], **self._where(candidate, file, first))
            except UsageError as reason:
                if isinstance(reason, TooSlow):
                    self._slow.add(file["name"])
                self._quarantine(file["name"], str(reason))
            else:
                return {"video": pictures, "caption": file["caption"], "index": candidate}
        raise AssertionError("replacements have no end")

    def _check(self, file: dict[str, Any]) -> None:
        if file["name"] in self._unchecked:
            path = self._folder / file["path"]
            with contextlib.suppress(OSError):  # of which the decoder will speak
                if files.sha256(path) != file["sha256"]:
                    raise UsageError(ALTERED.format(path, self._manifest))
                self._unchecked.discard(file["name"])

    def _where(self, index: int, file: dict[str, Any], first: int) -> dict[str, Any]:
        """What of the file clip `index` is: from its own beginning on, every so many frames as fit and are drawn."""
        place, frames, fps = index - first, self._size["frames"], self._size["fps"]
        interval = drawn_interval(self._seed, index, min(self._max_interval, file["clips"] - place))
        if interval == 1:
            return {**self._size, "skip": place * frames}
        return {**self._size, "start": place * frames / fps, "fps": fps / interval}

    def _replacements(self, index: int) -> Iterator[int]:
        for attempt in itertools.count():
            words = f"{self._seed} {index} {attempt}".encode()
            yield int.from_bytes(hashlib.sha256(words).digest()[:8]) % len(self)

    def _quarantine(self, name: str, reason: str) -> None:
        with self._lock:
            if name not in dict(self.skipped):
                logging.warning("%s is no longer usable and its clips are replaced: %s", name, reason)
                self.skipped.append((name, reason))
        self._check_share()

    @property
    def _total(self) -> int:
        return len({file["name"] for file in self._files} | set(dict(self.skipped)))

    def _check_share(self) -> None:
        bad, total = len(self.skipped), self._total
        if bad < total and bad <= self._max_bad * total:
            return
        share = f"more than the share config.data.max_bad = {self._max_bad:g}"
        remedy = "mend them or raise that share"
        if bad == total:  # whatever the share: nothing is left to replace a clip with
            share, remedy = "and no other is left", "mend them"
        name, reason = self.skipped[-1]
        raise UsageError(
            f"{bad} of {total} videos in {self._folder} are unusable, {share} (the last, {name}: {reason}): {remedy}."
        )


def folder(data: ConfigDict, seed: int, split: str, manifest: Path | None) -> Source:
    """Video files under `data.path`. The test split is those under `data.test_path`, or where that is empty the same.

    What the folder held when the run began is listed in `manifest`.

    Raises:
      UsageError: no path, a test_path in it, or a folder that FolderSource refuses.
    """
    if not data.path:
        raise UsageError("config.data.source is 'folder' and config.data.path is empty: name a folder of videos.")
    test = data.get("test_path", "")
    if test and Path(test).resolve().is_relative_to(Path(data.path).resolve()):
        raise UsageError(
            f"config.data.test_path={test} lies in config.data.path={data.path}, so that its videos are learnt from: "
            "move it beside."
        )
    clip = {"frames": data.frames, "height": data.height, "width": data.width, "fps": data.fps}
    how = {"max_interval": data.get("max_interval", 1), "max_bad": data.max_bad, "manifest": manifest}
    path = data.path if split == "train" else data.get("test_path", "") or data.path
    return FolderSource(Path(path), **clip, seed=seed, **how)


def drawn_interval(seed: int, index: int, most: int) -> int:
    """A number from 1 to `most`, a fixed function of (seed, index)."""
    return 1 + int.from_bytes(hashlib.sha256(f"{seed} {index} interval".encode()).digest()[:8]) % most


def _scanned(folder: Path, size: dict[str, Any]) -> dict[str, Any]:
    """What a folder holds: `files` (name, path, sha256, bytes, caption, clips), `skipped` (name, reason), `size` of a
    clip. As many files are decoded at a time as there are processors."""
    videos, decoders = _videos(folder), Decoders()
    texts = captions.read(folder, videos)

    def look(name: str) -> dict[str, Any] | str:
        path = videos[name]
        try:
            clips = _clips(path, texts.get(name, ""), size["frames"], size["fps"], decoders)
            file = {"path": path.relative_to(folder).as_posix(), "sha256": files.sha256(path)}
            return {"name": name, **file, "bytes": path.stat().st_size, "caption": texts[name], "clips": clips}
        except UsageError as reason:
            return str(reason)
        except OSError as error:
            return f"cannot be read: {error.strerror}"

    found: dict[str, Any] = {"size": size, "files": [], "skipped": []}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = tqdm(pool.map(look, videos), desc="scan", unit="file", total=len(videos), disable=len(videos) <= _FEW)
        for name, seen in zip(videos, looks, strict=True):
            if isinstance(seen, str):
                found["skipped"].append([name, seen])
            else:
                found["files"].append(seen)
    return found


def _listed(manifest: Path, folder: Path, size: dict[str, Any]) -> dict[str, Any]:
    """The manifest, of these clips, whose files have their sizes and captions."""
    found = files.read_record(manifest)
    if found["size"] != size:
        raise UsageError(f"{manifest} lists clips of {found['size']} and {size} are asked for: use another --workdir.")
    _check_folder(folder)
    paths = {file["name"]: folder / file["path"] for file in found["files"]}
    texts = captions.read(folder, paths, others=True)
    for file in found["files"]:
        path = paths[file["name"]]
        same = path.is_file() and path.stat().st_size == file["bytes"]
        if not same or texts.get(file["name"]) != file["caption"]:
            raise UsageError(ALTERED.format(path, manifest))
    return found


def _clips(path: Path, caption: str, frames: int, fps: float | int | None, decoders: Decoders) -> int:
    """How many clips the file gives; raises UsageError with the reason where it gives none."""
    if not caption:
        raise UsageError(f"no caption: write one in {path.stem}.txt or {captions.LISTED}")
    info = decoders.probe(path)
    usable = info.frames if fps is None else video.resampled_frames(info.seconds, fps)
    if usable < frames:
        raise UsageError(f"too short: {usable} frames, {frames} needed")
    return usable // frames


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: check the path")


def _videos(folder: Path) -> dict[str, Path]:
    """Relative name -> path, sorted by name; names are composed (NFC), as captions are."""
    _check_folder(folder)
    found: dict[str, Path] = {}
    for path in captions.visible(folder):
        if path.suffix.lower() not in EXTENSIONS:
            continue
        name = captions.composed(path.relative_to(folder))
        if name in found:
            raise UsageError(f"{folder} has two files that both read {name}: rename one of them")
        found[name] = path
    if not found:
        raise UsageError(f"{folder} holds no video: put {', '.join(EXTENSIONS)} files there")
    return dict(sorted(found.items()))
