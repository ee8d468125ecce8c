"""Real video files: decode, resample in time, resize; write H.264 that browsers play."""

import contextlib
import math
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)
from jaxtyping import UInt8

from vidflow.errors import UsageError

# Containers that hold their own pictures. FFmpeg also opens playlists and concat scripts, which
# are text files that make it read *other* files.
_CONTAINERS = "mov,matroska,avi,gif"

# Bicubic widens its kernel when it shrinks, so it does not alias. The other flags keep full chroma,
# exact rounding (without them white comes out as 253) and the same bytes on every processor.
_RESIZE = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)

_TIE = 1e-6  # seconds; two distances closer than this are equal, and the earlier frame wins
_TICK = 2e-3  # seconds; Matroska rounds times to milliseconds, so an end is known no better

_COMMON_RATE = 24.0  # frames a second at which clips of several rates are shown

_BROWSER_SIZE = 256  # pixels; browsers blur smaller videos when they enlarge them


@dataclass(frozen=True)
class VideoInfo:
    """What decoding a file gave, whatever its header declares.

    frames: decoded frames. seconds: from the first frame to the end of the last. fps: their ratio,
    the mean rate. height, width: pixels, the right way up (a phone's rotation tag is applied).
    """

    frames: int
    seconds: float
    fps: float
    height: int
    width: int


class _Shown(NamedTuple):
    """A decoded frame and the time it is on screen, in seconds since the first frame."""

    frame: av.VideoFrame
    start: float
    end: float
    pixel_aspect: float  # width of one pixel over its height

    @property
    def quarter_turns(self) -> int:
        """Anticlockwise quarter turns that put the frame the right way up."""
        return round(self.frame.rotation / 90)


def probe(path: str | os.PathLike) -> VideoInfo:
    """Decode a whole file and say what it holds; memory does not grow with its length.

    Decoding ends at the first thing the decoder calls damaged, so a truncated file counts the
    frames that really come out of it.

    Raises:
      UsageError: the file is missing, unreadable, not a video, audio only, or gives no frame.
    """
    with contextlib.closing(_decoded(path)) as decoded:
        for count, shown in enumerate(decoded, 1):  # noqa: B007 - the last one is wanted
            pass
    height, width = shown.frame.height, shown.frame.width
    if shown.quarter_turns % 2:
        height, width = width, height
    return VideoInfo(count, shown.end, count / shown.end, height, width)


def resampled_frames(seconds: float, fps: float | int) -> int:
    """Frames of a video of that length at `fps`: the times 0, 1/fps, 2/fps ... before its end."""
    return max(0, math.ceil((seconds - _TICK) * fps))


def check_clip(frames: int, height: int, width: int, fps: float | int | None) -> None:
    """Raises UsageError unless clips of that length, size and rate can exist."""
    if min(frames, height, width) < 1:
        raise UsageError(
            f"there are no clips of {frames} frames of {height}x{width} pixels:"
            " every number must be at least 1"
        )
    if fps is not None and not 0 < fps < math.inf:
        raise UsageError(f"there are no clips at {fps} fps: give a positive rate, or None")


def read(
    path: str | os.PathLike,
    *,
    frames: int,
    height: int,
    width: int,
    fps: float | int | None,
    start: float | int = 0.0,
    skip: int = 0,
) -> UInt8[np.ndarray, "T H W 3"]:
    """Decode `frames` pictures of `height` x `width` pixels, RGB in 0..255.

    Picture k is the frame nearest to `start + (skip + k) / fps` seconds after the first frame (the
    earlier of two equally near). With `fps=None` it is the file's own frame number `skip + k`,
    counted from the frame nearest to `start`. Pictures are turned the right way up, scaled to
    cover the wanted size as a player would show them (non-square pixels included), and cut at
    the centre. Decoding runs from the beginning of the file, which is exact in every container,
    and stops as soon as there is enough; memory does not grow with the file.

    Raises:
      UsageError: as `probe`, or too few frames, or a size, rate or start that makes no sense.
    """
    check_clip(frames, height, width, fps)
    if not 0 <= start < math.inf or skip < 0:
        raise UsageError(
            f"cannot read {path} from {start} s and {skip} frames on: neither may be negative"
        )

    video = np.empty((frames, height, width, 3), np.uint8)
    scaler = VideoReformatter()
    given = 0
    with contextlib.closing(_decoded(path)) as decoded:
        timeline = _native(decoded, start) if fps is None else _resampled(decoded, fps, start)
        for index, shown in enumerate(timeline):
            if index < skip:
                continue
            try:
                video[given] = _picture(shown, height, width, scaler)
            except av.FFmpegError as error:  # damage that decodes to pictures no converter knows
                raise UsageError(
                    f"frame {index} of {path} cannot be converted ({error.strerror}): leave the file out"
                ) from error
            given += 1
            if given == frames:
                return video
    rate = "its own rate" if fps is None else f"{fps:g} fps"
    since = f"{start:g} s" + (f" and {skip} frames on" if skip else "")
    raise UsageError(
        f"{path} gives {given} frames at {rate} from {since}, but {frames} are needed:"
        " ask for fewer frames or an earlier start, or leave the file out"
    )


def write(
    path: str | os.PathLike,
    video: UInt8[np.ndarray, "T H W 3"],
    fps: float | int | None,
    upscale: int | None = None,
) -> None:
    """Write an H.264 mp4 that browsers play; the file appears whole or not at all.

    video: RGB in 0..255. fps: None, of clips that have the rates of their files, is 24.
    upscale: repeat every pixel that many times in both directions; None takes the smallest
    factor that brings the shorter side to 256 pixels. A side that is still odd gets its last row
    or column twice, since H.264 with 4:2:0 colour has only even sizes.

    Raises:
      UsageError: not an .mp4 name, no such folder, an empty video, a rate or factor that makes no
        sense, or a file system that refuses.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"cannot write {path}: the format is mp4, so name it with .mp4")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    partial = path.with_name(f".{uuid.uuid4().hex}.part")  # hidden: a folder scan passes over it
    try:
        _encode(partial, video, _COMMON_RATE if fps is None else fps, upscale)
        os.replace(partial, path)
    except (av.FFmpegError, OSError) as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _decoded(path: str | os.PathLike) -> Iterator[_Shown]:
    """Frames in order of presentation, up to the end or to the first damage; at least one."""
    damage = "it holds no pictures"
    shown = None
    with _opened(Path(path)) as container:
        stream = _video_stream(container, path)
        # One thread: what comes out of a damaged file must not depend on timing, and the data
        # pipeline already decodes many files at once.
        stream.codec_context.thread_count = 1
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        step = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    damage = "the first frame is damaged"
                    break
                stamp = frame.time
                if shown is None:
                    origin, start = stamp or 0.0, 0.0
                elif stamp is None or stamp - origin <= shown.start:  # missing or out of order
                    start = shown.end
                else:
                    start = stamp - origin
                length = float(frame.duration * frame.time_base) if frame.duration else step
                shown = _Shown(frame, start, start + length, aspect)
                yield shown
        except av.FFmpegError as error:
            damage = error.strerror
    if shown is None:
        raise UsageError(
            f"no frame of {path} can be decoded ({damage}): replace it or leave it out"
        )


def _opened(path: Path) -> av.container.InputContainer:
    if not path.exists():
        raise UsageError(f"there is no file {path}: check the name")
    try:
        # "file:" so that a colon in a name is not taken for a network protocol; broken text tags
        # say nothing about the pictures.
        return av.open(
            f"file:{path}",
            metadata_errors="ignore",
            container_options={"format_whitelist": _CONTAINERS},
        )
    except (av.FFmpegError, OSError) as error:
        raise UsageError(
            f"{path} cannot be read as a video ({error.strerror}): it is damaged, incomplete,"
            " or not mp4, mov, m4v, webm, mkv, avi or gif"
        ) from error


def _video_stream(container: av.container.InputContainer, path: str | os.PathLike):
    for stream in container.streams.video:
        # The cover picture of a song is stored as a video stream of one frame.
        if not stream.disposition & av.stream.Disposition.attached_pic:
            break
    else:
        held = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise UsageError(f"{path} has no video in it, only {held}: give a file with pictures")
    if stream.codec_context is None:
        raise UsageError(f"{path} uses a video codec that PyAV cannot decode: convert it to H.264")
    return stream


def _native(decoded: Iterator[_Shown], start: float | int) -> Iterator[_Shown]:
    """Every frame, beginning with the one nearest to `start`."""
    previous = None
    for current in decoded:
        if previous and start <= (previous.start + current.start) / 2 + _TIE:
            yield previous
        previous = current
    if start < previous.end - _TICK:
        yield previous


def _resampled(
    decoded: Iterator[_Shown], fps: float | int, start: float | int
) -> Iterator[_Shown]:
    """The frames nearest to start, start + 1/fps, start + 2/fps ..., repeated where needed."""
    previous, index = None, 0
    for current in decoded:
        while previous and start + index / fps <= (previous.start + current.start) / 2 + _TIE:
            yield previous
            index += 1
        previous = current
    while index < resampled_frames(previous.end - start, fps):
        yield previous
        index += 1


def _picture(
    shown: _Shown, height: int, width: int, scaler: VideoReformatter
) -> UInt8[np.ndarray, "H W 3"]:
    frame, turns = shown.frame, shown.quarter_turns
    if turns % 2:  # the turn comes last
        height, width = width, height
    shown_width = frame.width * shown.pixel_aspect
    scale = max(height / frame.height, width / shown_width)
    full_height = max(height, round(frame.height * scale))
    full_width = max(width, round(shown_width * scale))
    scaled = scaler.reformat(
        frame, full_width, full_height, "rgb24", interpolation=_RESIZE, threads=1
    ).to_ndarray()
    top, left = (full_height - height) // 2, (full_width - width) // 2
    return np.rot90(scaled[top : top + height, left : left + width], turns)


def _encode(
    path: Path, video: UInt8[np.ndarray, "T H W 3"], fps: float | int, upscale: int | None
) -> None:
    if 0 in video.shape:
        raise UsageError(f"cannot write a video of shape {video.shape}: it has no pixels")
    # 1001 so that 29.97... becomes the exact 30000/1001 of television.
    rate = Fraction(fps).limit_denominator(1001) if 0 < fps < math.inf else Fraction(0)
    if rate <= 0:
        raise UsageError(f"cannot write a video at {fps} fps: give a rate of at least 0.001")
    if upscale is None:
        upscale = max(1, math.ceil(_BROWSER_SIZE / min(video.shape[1:3])))
    if upscale < 1:
        raise UsageError(f"cannot enlarge a video {upscale} times: give a whole number from 1 up")
    if "libx264" not in av.codec.codecs_available:
        raise UsageError("this build of PyAV has no libx264: install the wheel, pip install av")

    height, width = (side * upscale for side in video.shape[1:3])
    with av.open(
        f"file:{path}", "w", format="mp4", container_options={"movflags": "faststart"}
    ) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "16"})
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        # Untagged colours are guessed by the player, from the size of the picture.
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        scaler = VideoReformatter()
        for index, picture in enumerate(video):
            picture = picture.repeat(upscale, axis=0).repeat(upscale, axis=1)
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            frame = scaler.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=_RESIZE,
                threads=1,
            )
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
