"""A folder of captioned videos: which clips there are, what they hold, and what is refused."""

import errno
import json
import logging
import os
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.real_clips import REAL_CLIPS, real_clip
from vidflow.data import decoders, video
from vidflow.data.decoders import Decoders
from vidflow.data.folder import FolderSource
from vidflow.errors import UsageError

SIZE = {"height": 16, "width": 16}


def numbered(folder: Path, name: str, count: int, fps: float = 24, first: int = 0) -> None:
    """A video whose frame i is flat grey of level 8 + 4 (first + i)."""
    levels = (8 + 4 * (first + np.arange(count))).astype(np.uint8)
    pictures = np.broadcast_to(levels[:, None, None, None], (count, 32, 32, 3)).copy()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    video.write(folder / name, pictures, fps, upscale=1)


def numbers(item: dict) -> list[int]:
    return np.rint((item["video"].mean(axis=(1, 2, 3)) - 8) / 4).astype(int).tolist()


def caption(folder: Path, **texts: str) -> None:
    for stem, text in texts.items():
        (folder / f"{stem}.txt").write_text(text, "utf-8")


def lines(folder: Path, *entries: dict | str) -> None:
    texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (folder / "captions.jsonl").write_text("\n".join(texts) + "\n", "utf-8")


def source(folder: Path, frames: int = 4, fps: float | None = None, seed: int = 0) -> FolderSource:
    return FolderSource(folder, frames=frames, fps=fps, max_bad=1.0, seed=seed, **SIZE)


# ------------------------------------------------------------------ clips


def test_clips_follow_one_another_through_the_files(tmp_path):
    numbered(tmp_path, "b.mp4", 9, first=20)
    numbered(tmp_path, "a.mp4", 13)
    numbered(tmp_path, "c.mp4", 4, first=40)
    caption(tmp_path, a="first", b="second", c="third")
    clips = source(tmp_path)
    assert [(item["caption"], numbers(item)) for item in clips] == [
        ("first", [0, 1, 2, 3]),
        ("first", [4, 5, 6, 7]),
        ("first", [8, 9, 10, 11]),
        ("second", [20, 21, 22, 23]),
        ("second", [24, 25, 26, 27]),
        ("third", [40, 41, 42, 43]),
    ]
    assert len(clips) == 6
    assert clips[0]["video"].shape == (4, 16, 16, 3)
    assert clips[0]["video"].dtype == np.uint8
    assert clips.skipped == []


@pytest.mark.parametrize(
    ("fps", "step"), [(None, 1), (24, 1), (12, 2), (8, 3), (6, 4), (48, 0.5)]
)
def test_clips_are_exact_under_resampling(tmp_path, fps, step):
    numbered(tmp_path, "a.mp4", 49)
    caption(tmp_path, a="grey")
    clips = source(tmp_path, frames=3, fps=fps)
    total = int(np.ceil(49 / step)) // 3
    assert len(clips) == total
    shown = [number for item in clips for number in numbers(item)]
    # halfway between two frames the earlier one is shown
    assert shown == [int(np.ceil(k * step - 0.5)) for k in range(3 * total)]


def test_television_rate_is_exact_to_the_end(tmp_path):
    numbered(tmp_path, "a.mp4", 60, fps=30000 / 1001)
    caption(tmp_path, a="grey")
    for fps in (None, 30000 / 1001, 29.97):
        clips = source(tmp_path, frames=6, fps=fps)
        assert len(clips) == 10
        assert [number for item in clips for number in numbers(item)] == list(range(60))


def test_same_index_same_bytes(tmp_path):
    numbered(tmp_path, "a.mp4", 12)
    caption(tmp_path, a="grey")
    one = source(tmp_path)
    other = FolderSource(tmp_path, frames=4, fps=None, **SIZE)
    forward = [one[i]["video"].tobytes() for i in (0, 1, 2)]
    backward = [one[i]["video"].tobytes() for i in (2, 1, 0)]
    assert forward == backward[::-1] == [other[np.int64(i)]["video"].tobytes() for i in (0, 1, 2)]


@pytest.mark.parametrize("index", [-1, 3, 100])
def test_an_index_outside_is_an_index_error(tmp_path, index):
    numbered(tmp_path, "a.mp4", 12)
    caption(tmp_path, a="grey")
    with pytest.raises(IndexError):
        source(tmp_path)[index]


def test_real_clips(tmp_path):
    for clip in REAL_CLIPS:
        (tmp_path / clip.name).symlink_to(real_clip(clip.name))
    lines(tmp_path, *[{"file": clip.name, "caption": clip.name} for clip in REAL_CLIPS])
    clips = FolderSource(tmp_path, frames=16, height=32, width=48, fps=8)
    # 5.28 s, 10 s and twice 4.004 s at 8 fps are 43, 80, 33 and 33 frames
    owners = [clips[i]["caption"] for i in (0, 1, 2, 6, 7, 8, 9, 10)]
    assert owners == [
        *["bigbuckbunny.mp4"] * 2,
        *["bikes.mp4"] * 2,
        *["carphone_distorted.mp4"] * 2,
        *["carphone_pristine.mp4"] * 2,
    ]
    assert len(clips) == 11
    direct = video.read(tmp_path / "bikes.mp4", frames=16, height=32, width=48, fps=8, start=4.0)
    assert (clips[4]["video"] == direct).all()


# ------------------------------------------------------------------ names and captions


def test_names_are_sorted_by_code_point_in_every_folder(tmp_path):
    names = ["é.mp4", "Z.mp4", "a.MP4", "日本.mp4", "sub/b.mp4", "видео с пробелом.mp4", "a b.mp4"]
    for name in names:
        numbered(tmp_path, name, 4)
    lines(tmp_path, *[{"file": name, "caption": name} for name in names])
    assert [item["caption"] for item in source(tmp_path)] == sorted(names)


def test_both_spellings_of_an_accent_are_one_name(tmp_path):
    numbered(tmp_path, unicodedata.normalize("NFD", "é.mp4"), 4)
    lines(tmp_path, {"file": unicodedata.normalize("NFC", "é.mp4"), "caption": "café"})
    assert source(tmp_path)[0]["caption"] == "café"
    numbered(tmp_path, unicodedata.normalize("NFC", "é.mp4"), 4)
    with pytest.raises(UsageError, match="two files that both read é.mp4"):
        source(tmp_path)


def test_sidecars_lie_beside_their_videos(tmp_path):
    numbered(tmp_path, "sub/a.v2.mp4", 4)
    (tmp_path / "sub" / "a.v2.txt").write_bytes("\ufeff un été \n".encode())
    assert source(tmp_path)[0]["caption"] == "un été"


def test_lines_may_be_blank_and_carry_more(tmp_path):
    numbered(tmp_path, "a.mp4", 4)
    lines(tmp_path, '\ufeff{"file": "./a.mp4", "caption": " a\u2028b ", "source": "here"}', "", " ")
    (tmp_path / "README.txt").write_text("not a caption: the captions are in captions.jsonl")
    assert source(tmp_path)[0]["caption"] == "a\u2028b"


def test_hidden_files_are_passed_over(tmp_path):
    numbered(tmp_path, "a.mp4", 4)
    caption(tmp_path, a="grey")
    (tmp_path / "._a.mp4").write_bytes(b"resource fork")
    (tmp_path / "._a.txt").write_bytes(b"resource fork")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "b.mp4").write_bytes(b"")
    assert source(tmp_path).skipped == []


# ------------------------------------------------------------------ what is skipped


def test_unusable_files_are_skipped_counted_and_logged_once(tmp_path, caplog):
    for name, count in (("good", 9), ("short", 3), ("mute", 9), ("empty", 9)):
        numbered(tmp_path, f"{name}.mp4", count)
    (tmp_path / "text.mp4").write_text("not a video")
    caption(tmp_path, good="grey", short="short", text="text", empty=" \n")
    with caplog.at_level(logging.WARNING):
        clips = source(tmp_path)
    assert len(clips) == 2
    assert [name for name, _ in clips.skipped] == ["empty.mp4", "mute.mp4", "short.mp4", "text.mp4"]
    reasons = dict(clips.skipped)
    assert "no caption" in reasons["empty.mp4"]
    assert "no caption" in reasons["mute.mp4"]
    assert "3 frames, 4 needed" in reasons["short.mp4"]
    assert "cannot be read as a video" in reasons["text.mp4"]
    (record,) = caplog.records
    message = record.getMessage()
    assert "4 of 5 videos" in message
    assert all(name in message and reason in message for name, reason in clips.skipped)


def test_nothing_is_logged_when_nothing_is_skipped(tmp_path, caplog, capsys):
    numbered(tmp_path, "a.mp4", 4)
    caption(tmp_path, a="grey")
    source(tmp_path)
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_many_files_show_their_progress_on_stderr(tmp_path, capsys):
    numbered(tmp_path, "0.mp4", 4)
    caption(tmp_path, **{"0": "grey"})
    for index in range(1, 10):
        (tmp_path / f"{index}.mp4").hardlink_to(tmp_path / "0.mp4")
        caption(tmp_path, **{str(index): "grey"})
    source(tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "10/10" in err


# ------------------------------------------------------------------ what is refused


def test_folders_without_a_usable_video(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        source(tmp_path / "missing")
    with pytest.raises(UsageError, match="holds no video"):
        source(tmp_path)
    numbered(tmp_path, "a.mp4", 3)
    with pytest.raises(UsageError, match=r"none of the 1 videos .*a\.mp4: no caption"):
        source(tmp_path)
    caption(tmp_path, a="grey")
    with pytest.raises(UsageError, match=r"none of the 1 videos .*a\.mp4: too short"):
        source(tmp_path)


@pytest.mark.parametrize("change", [{"frames": 0}, {"height": 0}, {"fps": -1.0}])
def test_clips_that_cannot_exist(tmp_path, change):
    numbered(tmp_path, "a.mp4", 4)
    caption(tmp_path, a="grey")
    with pytest.raises(UsageError, match="there are no clips"):
        FolderSource(tmp_path, **({"frames": 4, "fps": None} | SIZE | change))


def test_two_kinds_of_caption_are_refused(tmp_path):
    numbered(tmp_path, "a.mp4", 4)
    caption(tmp_path, a="grey")
    lines(tmp_path, {"file": "a.mp4", "caption": "grey"})
    with pytest.raises(UsageError, match=r"both captions\.jsonl and a\.txt"):
        source(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{broken", "not {"),
        ('["a.mp4", "grey"]', "not {"),
        ('{"file": "a.mp4"}', "not {"),
        ('{"file": "a.mp4", "caption": 3}', "not {"),
        ('{"file": "no.mp4", "caption": "x"}', r"there is no video no\.mp4"),
        (r'{"file": "a.mp4", "caption": "a \ud800"}', "half of a surrogate pair"),
        (f'{{"file": "a.mp4", "caption": "{"x" * 100_000}"}}', "has 100000 characters"),
        ('{"file": "../a.mp4", "caption": "x"}', "there is no video"),
        ('{"file": "captions.jsonl", "caption": "x"}', "there is no video"),
        ('{"file": "./b.mp4", "caption": "x"}', "already has a caption in line 1"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, words):
    numbered(tmp_path, "a.mp4", 4)
    numbered(tmp_path, "b.mp4", 4)
    lines(tmp_path, {"file": "b.mp4", "caption": "grey"}, "", line)
    with pytest.raises(UsageError, match=rf"captions\.jsonl, line 3: .*{words}"):
        source(tmp_path)


def test_lines_that_are_not_utf8(tmp_path):
    numbered(tmp_path, "a.mp4", 4)
    entry = '{"file": "a.mp4", "caption": "café"}'
    (tmp_path / "captions.jsonl").write_bytes(b"\n" + entry.encode("latin-1"))
    with pytest.raises(UsageError, match=r"captions\.jsonl, line 2"):
        source(tmp_path)


def test_sidecars_that_are_not_utf8(tmp_path):
    numbered(tmp_path, "a.mp4", 4)
    (tmp_path / "a.txt").write_bytes("un\ncafé".encode("latin-1"))
    with pytest.raises(UsageError, match=r"a\.txt, line 2"):
        source(tmp_path)


def test_sidecars_without_a_video(tmp_path):
    numbered(tmp_path, "a.mp4", 4)
    caption(tmp_path, a="grey", b="gone")
    with pytest.raises(UsageError, match=r"b\.txt is a caption without a video"):
        source(tmp_path)


def test_a_sidecar_of_two_videos(tmp_path):
    numbered(tmp_path, "a.mp4", 4)
    (tmp_path / "a.mkv").write_bytes((tmp_path / "a.mp4").read_bytes())
    caption(tmp_path, a="grey")
    with pytest.raises(UsageError, match=r"the caption of both a\.mkv and a\.mp4"):
        source(tmp_path)


# ------------------------------------------------------------------ files that fail later


def three_files(folder: Path) -> None:
    for place, name in enumerate("abc"):
        numbered(folder, f"{name}.mp4", 8, first=10 * place)
        caption(folder, **{name: name})


def test_the_clips_of_a_file_that_breaks_are_replaced_by_a_function_of_seed_and_index(tmp_path, caplog):
    three_files(tmp_path)
    again = {seed: source(tmp_path, seed=seed) for seed in (0, 1, 2)}
    before = [numbers(item) for item in again[0]]
    assert [item["index"] for item in again[0]] == list(range(6))
    (tmp_path / "b.mp4").write_bytes((tmp_path / "b.mp4").read_bytes()[:700])
    taken = {seed: [one[index]["index"] for index in range(6)] for seed, one in again.items()}
    for seed, one in again.items():
        assert taken[seed] == [one[index]["index"] for index in range(6)]  # whenever it is asked for
        assert [one[index]["index"] for index in (5, 3, 2)] == [taken[seed][index] for index in (5, 3, 2)]
        assert [index for index in range(6) if taken[seed][index] != index] == [2, 3]
        assert not {2, 3} & set(taken[seed])
        assert [numbers(one[index]) for index in (2, 3)] == [before[taken[seed][index]] for index in (2, 3)]
        assert [name for name, _ in one.skipped] == ["b.mp4"]
    assert len({tuple(indices) for indices in taken.values()}) > 1
    said = [record.message for record in caplog.records]
    assert len(said) == 3 and all("b.mp4 is no longer usable and its clips are replaced" in line for line in said)


def test_more_bad_files_than_their_share_stop_the_run(tmp_path):
    three_files(tmp_path)
    clips = FolderSource(tmp_path, frames=4, fps=None, max_bad=0.4, **SIZE)
    (tmp_path / "b.mp4").write_bytes(b"")
    assert clips[2]["index"] not in (2, 3)
    (tmp_path / "c.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match=r"2 of 3 videos .* more than the share config.data.max_bad = 0.4"):
        for index in range(6):
            clips[index]
    with pytest.raises(UsageError, match=r"2 of 3 videos .* more than the share config.data.max_bad = 0.4"):
        FolderSource(tmp_path, frames=4, fps=None, max_bad=0.4, **SIZE)


def test_a_folder_whose_files_have_all_gone_stops_the_run_whatever_the_share(tmp_path):
    numbered(tmp_path, "a.mp4", 4)
    caption(tmp_path, a="grey")
    clips = source(tmp_path)
    clips._replacements = lambda index: iter(200 * [0])  # which have no end otherwise
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(UsageError, match=r"1 of 1 videos .* no other is left \(the last, a.mp4: .*: mend them\."):
        clips[0]


def test_what_a_folder_held_is_fixed_and_checked(tmp_path):
    folder, manifest = tmp_path / "clips", tmp_path / "data.json"

    def fixed(frames: int = 4) -> FolderSource:
        return FolderSource(folder, frames=frames, fps=None, manifest=manifest, **SIZE)

    three_files(folder)
    first = [numbers(item) for item in fixed()]
    text = manifest.read_text()
    numbered(folder, "0.mp4", 8)  # a new file comes first by name, and is passed over
    caption(folder, **{"0": "new", "its video is still to come": "newer"})
    (folder / "notes.txt").write_bytes(b"\xff")
    assert [numbers(item) for item in fixed()] == first and manifest.read_text() == text
    with pytest.raises(UsageError, match="lists clips of"):
        fixed(frames=2)
    manifest.write_text(text.replace('"clips": 2', '"clips": 1', 1))
    with pytest.raises(UsageError, match=r"data.json is not what was written there \(it was altered\)"):
        fixed()
    manifest.write_text(text)
    (folder / "b.txt").write_text("other words")
    with pytest.raises(UsageError, match=r"b\.mp4 or its caption is not what it was when .*data.json was written"):
        fixed()
    caption(folder, b="b")
    fixed()
    video = (folder / "b.mp4").read_bytes()
    (folder / "b.mp4").write_bytes(video[:-1] + bytes([video[-1] ^ 1]))  # as long as before
    with pytest.raises(UsageError, match=r"b\.mp4 or its caption is not what it was when .*data.json was written"):
        [fixed()[index] for index in range(6)]
    assert numbers(fixed()[5]) == first[5]  # of another file
    numbered(folder, "b.mp4", 12, first=11)
    with pytest.raises(UsageError, match=r"b\.mp4 or its caption is not what it was when .*data.json was written"):
        fixed()
    (folder / "b.mp4").unlink()
    (folder / "b.txt").unlink()
    with pytest.raises(UsageError, match=r"b\.mp4 or its caption is not what it was when .*data.json was written"):
        fixed()


def test_new_lines_of_captions_are_passed_over(tmp_path):
    folder, manifest = tmp_path / "clips", tmp_path / "data.json"
    numbered(folder, "a.mp4", 4)
    lines(folder, {"file": "a.mp4", "caption": "a"})
    make = partial(FolderSource, folder, frames=4, fps=None, manifest=manifest, **SIZE)
    assert len(make()) == 1
    lines(folder, {"file": "a.mp4", "caption": "a"}, {"file": "later.mp4", "caption": "later"})
    assert len(make()) == 1
    with pytest.raises(UsageError, match="there is no video later.mp4"):
        source(folder)


def test_of_two_that_start_together_one_scans_and_the_other_reads_what_it_found(tmp_path, monkeypatch):
    """Captions are mended while the first one scans: both have the same."""
    folder, manifest = tmp_path / "clips", tmp_path / "data.json"
    numbered(folder, "a.mp4", 4)
    caption(folder, a="before")
    began, mended, scans, probe = threading.Event(), threading.Event(), [], Decoders.probe

    def slow_probe(self, path):
        scans.append(path)
        began.set()
        assert mended.wait(30)
        return probe(self, path)

    monkeypatch.setattr(Decoders, "probe", slow_probe)
    make = partial(FolderSource, folder, frames=4, fps=None, manifest=manifest, **SIZE)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(make)
        assert began.wait(30)
        other = pool.submit(make)
        time.sleep(0.5)  # in which it would begin to scan
        mended.set()
        assert [source.result()[0]["caption"] for source in (one, other)] == ["before", "before"]
    assert len(scans) == 1


def test_storage_that_fails_for_a_moment_costs_a_clip_and_not_the_run(tmp_path, monkeypatch):
    folder, manifest = tmp_path / "clips", tmp_path / "data.json"
    three_files(folder)
    FolderSource(folder, frames=4, fps=None, manifest=manifest, **SIZE)
    clips = FolderSource(folder, frames=4, fps=None, max_bad=1.0, manifest=manifest, **SIZE)
    hidden = (folder / "b.mp4").rename(folder / "b.hidden")
    assert clips[2]["index"] not in (2, 3)
    hidden.rename(folder / "b.mp4")
    assert clips[2]["index"] == 2
    content = (folder / "a.mp4").read_bytes()
    (folder / "a.mp4").unlink()
    assert clips[0]["index"] not in (0, 1)
    (folder / "a.mp4").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UsageError, match="a.mp4 or its caption is not what it was"):  # looked at when it is there again
        clips[0]

    stat = Path.stat

    def stale(self, **more):
        if self.name == "b.mp4":
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(self, **more)

    monkeypatch.setattr(Path, "stat", stale)
    assert clips[3]["index"] == 3  # for its size alone


def test_a_file_that_was_too_slow_is_not_waited_for_again(tmp_path, monkeypatch):
    three_files(tmp_path)
    clips = source(tmp_path)
    (tmp_path / "b.mp4").unlink()
    os.mkfifo(tmp_path / "b.mp4")  # opening it waits for a writer, who never comes
    monkeypatch.setattr(decoders, "PATIENCE", 3)
    asked, read = [], Decoders.read
    monkeypatch.setattr(Decoders, "read", lambda self, path, **more: (asked.append(path), read(self, path, **more))[1])
    taken = [clips[2]["index"], clips[3]["index"], clips[2]["index"]]
    assert taken[0] == taken[2] and not {2, 3} & set(taken)
    assert asked.count(tmp_path / "b.mp4") == 1


def test_linked_folders_are_entered_once_and_links_within_the_folder_are_not(tmp_path):
    folder, disk = tmp_path / "clips", tmp_path / "disk2"
    numbered(folder, "b/x.mp4", 4)
    numbered(disk, "y.mp4", 4, first=20)
    for where in (folder / "b" / "x.txt", disk / "y.txt"):
        where.write_text(where.stem)
    (folder / "a").symlink_to(folder / "b")  # the same files by another name
    (folder / "more").symlink_to(disk)
    (folder / "more_again").symlink_to(disk)
    (disk / "round").symlink_to(disk)
    assert [(item["caption"], numbers(item)[0]) for item in source(folder)] == [("x", 0), ("y", 20)]
    assert [file["name"] for file in source(folder)._files] == ["b/x.mp4", "more/y.mp4"]


def test_as_many_files_are_scanned_at_a_time_as_there_are_processors(tmp_path, monkeypatch):
    three_files(tmp_path)
    before = [numbers(item) for item in source(tmp_path)]
    meeting = threading.Barrier(3, timeout=30)  # passed by three files that are looked at together
    probe = Decoders.probe
    monkeypatch.setattr(Decoders, "probe", lambda self, path: (meeting.wait(), probe(self, path))[1])
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert [numbers(item) for item in source(tmp_path)] == before


# ------------------------------------------------------------------ fast motion


def test_clips_of_fast_motion_take_every_k_th_frame_and_stay_within_the_file(tmp_path):
    numbered(tmp_path, "a.mp4", 48, fps=24)
    caption(tmp_path, a="grey")
    clips = FolderSource(tmp_path, frames=4, fps=24, seed=1, max_interval=8, max_bad=1.0, **SIZE)
    taken = [numbers(item) for item in clips]
    assert taken == [numbers(item) for item in clips]
    steps = [shown[1] - shown[0] for shown in taken]
    for place, (shown, step) in enumerate(zip(taken, steps, strict=True)):
        assert shown == [4 * place + step * k for k in range(4)] and 1 <= step <= min(8, 12 - place)
    assert len(set(steps)) > 3
    with pytest.raises(UsageError, match="set config.data.fps"):
        FolderSource(tmp_path, frames=4, fps=None, max_interval=8, **SIZE)
