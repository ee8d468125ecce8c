"""Reading and writing of real files, against PyAV's own frames and against known patterns."""

import io
import itertools
import os
import resource
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.real_clips import REAL_CLIPS, real_clip
from vidflow.data import video
from vidflow.errors import UsageError


def numbered(count: int, height: int = 32, width: int = 32) -> np.ndarray:
    """Frame i is flat grey of level 8 + 4 i, so a picture says which frame it is."""
    levels = 8 + 4 * np.arange(count, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def numbers(pictures: np.ndarray) -> list[int]:
    return np.rint((pictures.mean(axis=(1, 2, 3)) - 8) / 4).astype(int).tolist()


def moving_pattern(count: int = 16, side: int = 64) -> np.ndarray:
    """Smooth colour waves that travel at one pixel per frame."""
    t, y, x, c = np.ogrid[:count, :side, :side, :3]
    wave = np.sin((x + t) / 5.0 + c) + np.sin((y - t) / 7.0 + 2 * c)
    return np.rint(127.5 + 60 * wave).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


def mux(
    path, pictures, *, rate=25, codec="libx264", pixels="yuv420p", times=None, aspect=1
) -> Path:
    """Encode with PyAV alone. times: presentation times in milliseconds."""
    tick = 1 / Fraction(rate) if times is None else Fraction(1, 1000)
    with av.open(str(path), "w", container_options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = pixels
        stream.bit_rate = 4_000_000  # the older codecs' default is too coarse to number frames
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        stream.codec_context.time_base = tick
        for index, pts in enumerate(times or range(len(pictures))):
            frame = av.VideoFrame.from_ndarray(pictures[index], format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = pts, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode(path: Path, most: int = 100) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = itertools.islice(container.decode(video=0), most)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def song(path: Path, cover: bool) -> None:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height = picture.width = 64
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        for index in range(8):
            silence = np.zeros((2, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 44100, index * 1024
            container.mux(sound.encode(frame))
        if cover:
            flat = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(picture.encode(flat))
        container.mux(sound.encode())


def noise(count: int, side: int = 64) -> np.ndarray:
    blocks = np.random.default_rng(0).integers(0, 256, (count, side // 8, side // 8, 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize("clip", REAL_CLIPS, ids=lambda clip: clip.name)
def test_probe_of_a_real_clip(clip):
    path = real_clip(clip.name)
    info = video.probe(path)
    assert path.stat().st_size == clip.bytes
    assert (info.frames, info.height, info.width) == (clip.frames, clip.height, clip.width)
    assert info.seconds == pytest.approx(clip.seconds, abs=1e-6)
    assert info.fps == pytest.approx(clip.frames / clip.seconds, abs=1e-6)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == clip.declared


@pytest.mark.parametrize("clip", REAL_CLIPS, ids=lambda clip: clip.name)
def test_a_real_clip_decodes_to_the_wanted_shape(clip):
    pictures = video.read(real_clip(clip.name), frames=5, height=48, width=80, fps=8)
    assert (pictures.shape, pictures.dtype) == ((5, 48, 80, 3), np.uint8)


@pytest.mark.parametrize("clip", REAL_CLIPS[:2], ids=lambda clip: clip.name)
def test_a_picture_is_the_frame_at_its_time(clip):
    path = real_clip(clip.name)
    size = {"height": clip.height, "width": clip.width}
    pictures = video.read(path, frames=3, fps=5, start=1.0, **size)  # native rate 25
    frames = decode(path, 36)[[25, 30, 35]]
    assert all(psnr(picture, frame) > 35 for picture, frame in zip(pictures, frames, strict=True))
    assert psnr(pictures[0], frames[1]) < 30  # the clip moves, so a wrong frame would show


@pytest.mark.parametrize("start", [0.0, 0.4, 0.97])
@pytest.mark.parametrize("fps", [3, 7.5, 12, 24, 24.5, 30, 50])
def test_resampling_takes_the_nearest_frame(tmp_path, fps, start):
    path = mux(tmp_path / "a.mp4", numbered(48), rate=24)
    wanted = [k for k in range(200) if start + k / fps < 2.0 - 1e-9]
    distance = np.abs(np.arange(48) / 24 - (start + np.array(wanted) / fps)[:, None])
    nearest = np.argmin(np.round(distance, 9), axis=1).tolist()  # argmin takes the earlier of two
    pictures = video.read(path, frames=len(wanted), height=16, width=16, fps=fps, start=start)
    assert numbers(pictures) == nearest
    with pytest.raises(UsageError, match=f"gives {len(wanted)} frames .* {len(wanted) + 1} are"):
        video.read(path, frames=len(wanted) + 1, height=16, width=16, fps=fps, start=start)


def test_clips_of_several_rates_are_shown_at_a_common_one(tmp_path):
    video.write(tmp_path / "a.mp4", numbered(12), fps=None)
    assert video.probe(tmp_path / "a.mp4").fps == pytest.approx(24)


def test_native_rate_takes_every_frame(tmp_path):
    path = mux(tmp_path / "a.mp4", numbered(40), rate=Fraction(30000, 1001))
    size = {"height": 16, "width": 16, "fps": None}
    assert numbers(video.read(path, frames=40, **size)) == list(range(40))
    assert numbers(video.read(path, frames=8, start=1.0, **size)) == list(range(30, 38))
    assert numbers(video.read(path, frames=8, skip=11, **size)) == list(range(11, 19))


def test_uneven_frame_times_are_honoured(tmp_path):
    times = [0, 40, 80, 500, 540, 900]
    path = mux(tmp_path / "a.mkv", numbered(6), times=times)
    pictures = video.read(path, frames=9, height=16, width=16, fps=10)
    assert numbers(pictures) == [0, 2, 2, 3, 3, 3, 4, 4, 5]
    native = video.read(path, frames=6, height=16, width=16, fps=None)
    assert numbers(native) == [0, 1, 2, 3, 4, 5]


def test_times_count_from_the_first_frame(tmp_path):
    times = [700 + 40 * i for i in range(10)]
    path = mux(tmp_path / "a.mkv", numbered(10), times=times)
    assert numbers(video.read(path, frames=5, height=16, width=16, fps=12.5)) == [0, 2, 4, 6, 8]
    assert video.probe(path).seconds == pytest.approx(0.4, abs=2e-3)


@pytest.mark.parametrize(
    ("kind", "codec"),  # mkv and webm round times to milliseconds
    [("avi", "mpeg4"), *((kind, "libx264") for kind in ("m4v", "mkv", "mov")), ("webm", "libvpx")],
)
def test_every_container_gives_every_frame_once(tmp_path, kind, codec):
    rate = Fraction(30000, 1001)
    path = mux(tmp_path / f"a.{kind}", numbered(27), rate=rate, codec=codec)
    info = video.probe(path)
    assert info.frames == video.resampled_frames(info.seconds, float(rate)) == 27
    for fps in (float(rate), None):
        pictures = video.read(path, frames=27, height=16, width=16, fps=fps)
        assert numbers(pictures) == list(range(27))


def test_gif(tmp_path):
    flat = np.repeat(np.array([0, 255, 0, 255], np.uint8), 32 * 32 * 3).reshape(4, 32, 32, 3)
    path = mux(tmp_path / "a.gif", flat, rate=10, codec="gif", pixels="rgb8")
    pictures = video.read(path, frames=4, height=16, width=16, fps=10)
    assert (pictures.mean(axis=(1, 2, 3)) > 127).tolist() == [False, True, False, True]


def test_decoding_stops_when_there_is_enough(tmp_path, monkeypatch):
    path = mux(tmp_path / "a.mp4", numbered(60))
    decoded = []
    original = video._decoded

    def counted(path):
        for shown in original(path):
            decoded.append(shown.start)
            yield shown

    monkeypatch.setattr(video, "_decoded", counted)
    video.read(path, frames=3, height=16, width=16, fps=None, skip=4)
    assert len(decoded) == 8  # the seventh frame is known to be nearest once the eighth is seen


def quadrants(height: int, width: int) -> np.ndarray:
    """Red, green over blue, white."""
    picture = np.zeros((2, height, width, 3), np.uint8)
    picture[:, : height // 2, : width // 2] = (255, 0, 0)
    picture[:, : height // 2, width // 2 :] = (0, 255, 0)
    picture[:, height // 2 :, : width // 2] = (0, 0, 255)
    picture[:, height // 2 :, width // 2 :] = (255, 255, 255)
    return picture


def corners(picture: np.ndarray) -> str:
    """The colours of the four corners, row by row, as letters."""
    letters = {(255, 0, 0): "r", (0, 255, 0): "g", (0, 0, 255): "b", (255, 255, 255): "w"}
    return "".join(
        letters[tuple((picture[y, x] > 127).astype(int) * 255)] for y in (2, -3) for x in (2, -3)
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 128), (16, 48), (96, 20)])
def test_cover_and_centre_crop(tmp_path, height, width):
    path = mux(tmp_path / "a.mp4", quadrants(64, 128))
    picture = video.read(path, frames=1, height=height, width=width, fps=None)[0]
    assert corners(picture) == "rgbw"
    red = picture[..., 0] > 127
    assert abs(red[2].sum() - width / 2) <= 1  # the cross stays in the middle
    assert abs(red[:, 2].sum() - height / 2) <= 1


def test_resizing_keeps_the_aspect(tmp_path):
    pictures = np.zeros((2, 64, 160, 3), np.uint8)
    pictures[:, 16:48, 64:96] = 255  # a square
    path = mux(tmp_path / "a.mp4", pictures)
    picture = video.read(path, frames=1, height=32, width=32, fps=None)[0] > 127
    assert picture[16, :, 0].sum() == picture[:, 16, 0].sum() == 16


def test_pixels_that_are_not_square(tmp_path):
    pictures = np.zeros((2, 64, 64, 3), np.uint8)
    pictures[:, 16:48, 24:40] = 255  # 32 high, 16 wide: a square where pixels are twice as wide
    path = mux(tmp_path / "a.mp4", pictures, aspect=2)
    picture = video.read(path, frames=1, height=64, width=64, fps=None)[0] > 127
    assert picture[32, :, 0].sum() == picture[:, 32, 0].sum() == 32


def test_shrinking_does_not_alias(tmp_path):
    stripes = np.zeros((2, 256, 256, 3), np.uint8)
    stripes[:, :, ::2] = 255
    path = mux(tmp_path / "a.mp4", stripes)
    picture = video.read(path, frames=1, height=60, width=60, fps=None)[0]
    assert picture[5:-5, 5:-5].std() < 5  # nearest neighbour would give about 127
    assert abs(picture.mean() - 127.5) < 8


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [
        ((0, 1, -1, 0, 64, 0), "brwg"),  # a quarter turn clockwise, as phones held upright write
        ((0, -1, 1, 0, 0, 96), "gwrb"),
        ((-1, 0, 0, -1, 96, 64), "wbgr"),
    ],
)
def test_rotation_tags_are_applied(tmp_path, matrix, seen):
    path = mux(tmp_path / "a.mp4", quadrants(64, 96))
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 2 * 4 + 4 * 2  # ISO/IEC 14496-12, 8.3.2
    a, b, c, d, x, y = (value << 16 for value in matrix)
    assert struct.unpack_from(">9i", data, place) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, x, y, 1 << 30)
    path.write_bytes(data)
    info = video.probe(path)
    assert (info.height, info.width) == ((64, 96) if matrix[0] else (96, 64))
    picture = video.read(path, frames=1, height=info.height, width=info.width, fps=None)[0]
    assert corners(picture) == seen


def test_round_trip(tmp_path):
    pictures = moving_pattern()
    video.write(tmp_path / "a.mp4", pictures, 8)
    again = video.read(tmp_path / "a.mp4", frames=16, height=64, width=64, fps=None)
    assert psnr(pictures, again) > 30
    assert psnr(pictures[1:], again[:-1]) < 30
    assert video.probe(tmp_path / "a.mp4").fps == pytest.approx(8)


def test_colours_survive(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 64, 200)]
    flat = np.tile(np.array(colours, np.uint8)[:, None, None], (1, 64, 64, 1))
    video.write(tmp_path / "a.mp4", flat, 5)
    again = video.read(tmp_path / "a.mp4", frames=6, height=64, width=64, fps=None)
    assert np.abs(again.astype(int) - flat).max() <= 4


@pytest.mark.parametrize(
    ("shape", "upscale", "size"),
    [
        *(((20, 30), None, (260, 390)), ((64, 64), None, (256, 256))),
        *(((300, 260), None, (300, 260)), ((301, 257), None, (302, 258))),
        *(((21, 31), 1, (22, 32)), ((21, 31), 3, (64, 94)), ((1, 1), 1, (2, 2))),
    ],
)
def test_small_and_odd_sizes(tmp_path, shape, upscale, size):
    pictures = np.full((2, *shape, 3), 90, np.uint8)
    video.write(tmp_path / "a.mp4", pictures, 4, upscale)
    again = decode(tmp_path / "a.mp4")
    assert again.shape == (2, *size, 3)
    assert np.abs(again.astype(int) - 90).max() <= 3  # the added row and column are no black edge


def test_upscaling_repeats_pixels(tmp_path):
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 2, (1, 8, 8, 1), np.uint8).repeat(3, -1) * 255
    video.write(tmp_path / "a.mp4", pictures, 4)
    again = decode(tmp_path / "a.mp4")
    expected = pictures.repeat(32, axis=1).repeat(32, axis=2)
    assert np.abs(again.astype(int) - expected).mean() < 4


def test_browsers_can_play_it(tmp_path):
    video.write(tmp_path / "a.mp4", moving_pattern(), 29.97002997)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playback starts before all is loaded
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(30000, 1001)
        assert next(container.decode(stream)).colorspace == av.video.reformatter.Colorspace.ITU709


def test_write_gives_whole_files_or_none(tmp_path):
    path = tmp_path / "a.mp4"
    video.write(path, numbered(3), 8)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # as if the disk filled up
    try:
        with pytest.raises(UsageError, match="cannot write"):
            video.write(path, noise(40), 8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    video.write(path, numbered(5), 8)
    assert video.probe(path).frames == 5
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    ("name", "shape", "fps", "upscale", "words"),
    [
        ("a.webm", (2, 8, 8), 8, None, "name it with"),
        ("no/such/a.mp4", (2, 8, 8), 8, None, "folder"),
        ("a.mp4", (0, 8, 8), 8, None, "no pixels"),
        ("a.mp4", (2, 8, 8), -1, None, "rate"),
        ("a.mp4", (2, 8, 8), float("nan"), None, "rate"),
        ("a.mp4", (2, 8, 8), 8, 0, "whole number"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, shape, fps, upscale, words):
    with pytest.raises(UsageError, match=words):
        video.write(tmp_path / name, np.zeros((*shape, 3), np.uint8), fps, upscale)
    assert os.listdir(tmp_path) == []


def test_an_encoder_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(av.codec, "codecs_available", {"mpeg4"})
    with pytest.raises(UsageError, match="libx264"):
        video.write(tmp_path / "a.mp4", numbered(2), 8)


def header_only(path: Path) -> None:
    path.write_bytes(mux(path, noise(20)).read_bytes().partition(b"mdat")[0] + b"mdat")


def script(path: Path) -> None:  # FFmpeg would follow it to another file
    mux(path.with_name("good.mp4"), numbered(4))
    path.write_text("ffconcat version 1.0\nfile 'good.mp4'\n")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no file"),
        (Path.mkdir, "cannot be read as a video"),
        (Path.touch, "cannot be read as a video"),
        (lambda path: path.write_text("Not a video.\n" * 100), "cannot be read as a video"),
        (script, "cannot be read as a video"),
        (
            lambda path: path.write_bytes(real_clip("bikes.mp4").read_bytes()[:20_000]),
            "cannot be read as a video",
        ),
        (header_only, "no frame of"),
        (lambda path: song(path, cover=False), "no video in it, only audio"),
        (lambda path: song(path, cover=True), "no video in it, only audio, video"),
    ],
    ids=["missing", "folder", "empty", "text", "script", "cut", "header", "song", "cover"],
)
def test_files_that_give_no_frame(tmp_path, make, words):
    path = tmp_path / "bad.mp4"
    make(path)
    with pytest.raises(UsageError, match=words) as probed:
        video.probe(path)
    assert str(path) in str(probed.value)
    assert "\n" not in str(probed.value)
    with pytest.raises(UsageError, match=words):
        video.read(path, frames=1, height=8, width=8, fps=None)


def test_the_decoder_counts_not_the_header(tmp_path):
    path = mux(tmp_path / "a.mp4", noise(60))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])  # the header comes first and stays whole
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 60
    count = video.probe(path).frames
    assert 10 < count < 40
    whole = video.read(path, frames=count, height=64, width=64, fps=None)
    assert psnr(whole, noise(60)[:count]) > 20
    with pytest.raises(UsageError, match=f"gives {count} frames .* {count + 1} are needed"):
        video.read(path, frames=count + 1, height=64, width=64, fps=None)


def test_frames_that_the_decoder_calls_damaged_are_not_handed_out(tmp_path):
    path = mux(tmp_path / "a.avi", noise(60), codec="mpeg4")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(2).bytes(2000)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        flags = [frame.is_corrupt for frame in container.decode(video=0)]
    assert True in flags
    assert video.probe(path).frames == flags.index(True)


@pytest.mark.parametrize(
    "change",
    [
        *({"frames": 0}, {"height": 0}, {"width": -1}, {"fps": 0}, {"fps": float("nan")}),
        *({"start": -0.1}, {"start": float("nan")}, {"skip": -1}),
    ],
)
def test_requests_that_make_no_sense(tmp_path, change):
    path = mux(tmp_path / "a.mp4", numbered(4))
    with pytest.raises(UsageError):
        video.read(path, **({"frames": 1, "height": 8, "width": 8, "fps": None} | change))


@pytest.mark.parametrize("name", ["日本語 видео é.mp4", "a:b.mp4", "100%d.mp4", "http:x.mp4"])
def test_names_of_every_kind(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    video.write(name, numbered(3), 8)
    assert video.probe(name).frames == 3
