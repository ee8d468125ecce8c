"""The report page, made from a small run folder with real videos."""

import base64
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from vidflow import report
from vidflow.data import video
from vidflow.errors import UsageError
from vidflow.reporting import inputs
from vidflow.worlds import bounce

ROOT = Path(__file__).parent.parent
NASTY = "<script>alert('1')</script> & \"quotes\""
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a browser would see: headings, videos, attributes, text by the tag it is in. Tags must be balanced."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open, self.headings, self.videos, self.attributes, self.texts = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        self.videos += [dict(attributes)] if tag == "video" else []
        self.headings += [""] if tag == "h2" else []
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))
        if "h2" in self.open:
            self.headings[-1] += data

    def words(self) -> str:
        """The visible text, its white space as it is read."""
        return " ".join(" ".join(data for tag, data in self.texts if tag not in ("style", "script")).split())

    def drawn(self) -> list[str]:
        """The text inside drawings."""
        return [data for tag, data in self.texts if tag == "text"]


def entry(mean: float, n: int = 200) -> dict:
    return {"mean": mean, "low": mean - 0.03, "high": mean + 0.02, "n": n}


CONFIG = {
    "task": "vidflow.tasks.text_to_video",
    "steps": 40,
    "batch_size": 64,
    "data": {"source": "bounce", "frames": 8, "height": 16, "width": 16, "fps": 8.0},
    "autoencoder": {"run": ""},
    "optimizer": {"learning_rate": 0.005},
    "sampling": {"steps": 25},
}
PROVENANCE = {
    "vidflow": "0.1.0",
    "commit": "0123456789abcdef",
    "command": "train.py --config=a.py --workdir=runs/tiny",
    "python": "3.11.7",
    "platform": "Linux x86_64, 2 cores",
    "packages": {"jax": "0.10.2"},
}
EVALUATION = {
    "autoencoder/psnr": {"mean": 31.2345, "low": 30.5, "high": 32.0, "n": 256},
    "bounce/colour": entry(0.951),
    "bounce/shape": entry(0.902),
    "chance/colour": {"mean": 1 / 6, "low": 1 / 6, "high": 1 / 6, "n": 0},
    "reader/ground_truth/colour": entry(0.999),
    "reader/reconstruction/colour": entry(0.987),
    "reader/ground_truth/speed": entry(0.876),
}


def metrics(steps: int, **more) -> str:
    lines = []
    for step in range(steps):
        line = {"step": step, "loss": 2 * 0.9**step, "gradient_norm": 1.0, "seconds_per_step": 2.0}
        lines.append(json.dumps({**line, "clips_per_second": 0.1 if step == 0 else 32.0, **more}) + "\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A complete run folder. Tests that change it take `run`, a copy."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    (folder / "samples").mkdir(parents=True)
    (folder / "autoencoder_run").mkdir()
    index = []
    for number, scores in enumerate([{"colour": True, "shape": False}, {"colour": 0.5, "shape": None}]):
        clip, prompt = bounce.clip(0, number, level=0, split="test", frames=8, height=16, width=16, captions="short")
        video.write(folder / "samples" / f"{number:03d}.mp4", clip, 8)
        index.append({"file": f"{number:03d}.mp4", "prompt": prompt, "seed": 40 + number, "scores": scores})
    write(folder / "samples" / "index.json", index)
    write(folder / "config.json", CONFIG)
    write(folder / "provenance.json", PROVENANCE)
    write(folder / "evaluation.json", EVALUATION)
    buckets = {f"loss_by_time/{k}": None if k == 3 else 1.0 + k for k in range(10)}
    (folder / "metrics.jsonl").write_text(metrics(40, **buckets))
    (folder / "autoencoder_run" / "metrics.jsonl").write_text(metrics(30, psnr=31.5))
    save_file({"a": np.zeros((1200, 1000), np.float32), "b": np.zeros(7)}, folder / "weights.safetensors")
    return folder


@pytest.fixture
def run(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "tiny"))


@pytest.fixture
def light(run):
    """A run folder with a single curve, for the tests of something else: drawing takes most of the time."""
    shutil.rmtree(run / "autoencoder_run")
    lines = (json.dumps({"step": step, "loss": 1, "seconds_per_step": 2}) + "\n" for step in range(40))
    (run / "metrics.jsonl").write_text("".join(lines))
    return run


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def page(run: Path, *flags: str) -> Page:
    report.main([f"--run={run}", *flags])
    return Page((run / "report.html").read_text(encoding="utf-8"))


# A whole run


def test_sections_come_in_order(run):
    assert page(run).headings == ["Samples", "Scores", "Curves", "How to repeat it"]
    everything = page(run, f"--reference={run / 'samples'}", f"--compare={run}")
    assert everything.headings[0] == "Reference model"
    assert everything.headings[3:] == ["Curves", "Comparison", "How to repeat it"]
    assert len(everything.videos) == 4


def test_the_page_says_where_it_is(light, capsys):
    page(light)
    assert str(light / "report.html") in capsys.readouterr().out
    report.main(["--run", str(light), "--out", str(light / "other.html")])
    assert (light / "other.html").read_bytes() == (light / "report.html").read_bytes()


def test_summary(light):
    words = page(light).words()
    assert "A text to video run on “bounce” clips of 8 frames of 16×16 pixels at 8 frames a second." in words
    assert "40 of 40 steps with batches of 64 in 1 min 20 s, compilation included, on Linux x86_64, 2 cores." in words
    assert "The model has 1.2 million parameters." in words
    assert "Right in its samples: colour 95.1%, shape 90.2%." in words


def test_nothing_is_loaded_and_only_the_own_script_runs(run):
    found = page(run)
    for _, name, value in found.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert value.startswith(("data:", "#")), value
        else:
            assert "://" not in (value or "") or name.startswith("xmlns")
    contents = [value for tag, name, value in found.attributes if (tag, name) == ("meta", "content")]
    (policy,) = (value for value in contents if "src" in value)
    (script,) = (data for tag, data in found.texts if tag == "script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}'" in policy
    assert "url(" not in "".join(data for tag, data in found.texts if tag == "style")


def test_videos_are_embedded_and_decode(light, tmp_path):
    videos = page(light).videos
    assert len(videos) == 2
    for number, attributes in enumerate(videos):
        assert {"autoplay", "loop", "muted", "playsinline"} <= attributes.keys()
        kind, _, data = attributes["src"].partition(",")
        assert kind == "data:video/mp4;base64"
        mp4 = tmp_path / "back.mp4"
        mp4.write_bytes(base64.b64decode(data, validate=True))
        assert mp4.read_bytes() == (light / "samples" / f"{number:03d}.mp4").read_bytes()
        info = video.probe(mp4)
        assert (info.frames, info.height, info.width) == (8, 256, 256)
        assert (attributes["height"], attributes["width"]) == ("256", "256")


def test_samples_show_prompts_seeds_and_marks(light):
    words = page(light).words()
    for sample in json.loads((light / "samples" / "index.json").read_text()):
        assert sample["prompt"] in words
    assert "✓ colour ✗ shape seed 40" in words
    assert "◐ colour 50.0% – shape seed 41" in words
    assert "2 samples. Every attribute is right in 0 of 2." in words


def test_long_indexes_are_shown_in_part_and_counted_whole(light):
    (sample, _) = json.loads((light / "samples" / "index.json").read_text())
    right = {**sample, "scores": {"colour": True, "shape": 1.0}}
    write(light / "samples" / "index.json", [right] * 30 + [sample] * 10)
    found = page(light)
    assert len(found.videos) == inputs.MOST_SAMPLES == 32
    assert "32 of 40 samples. Every attribute is right in 30 of 40." in found.words()


def test_right_samples_are_counted_of_all_and_not_of_those_that_are_shown(light):
    shown = json.loads((light / "samples" / "index.json").read_text())
    right = {"prompt": "x", "seed": 0, "scores": {"colour": True}}
    write(light / "samples" / "scores.json", [right] * 5 + shown)
    assert "2 of 7 samples. Every attribute is right in 5 of 7." in page(light).words()


def test_a_reference_that_is_not_there_is_refused(light, tmp_path):
    with pytest.raises(UsageError, match="--reference=.*typo holds no samples: There is no"):
        report.main([f"--run={light}", f"--reference={tmp_path / 'typo'}"])
    for out in ("", str(tmp_path / "new" / "x.html")):
        with pytest.raises(UsageError, match="give a file name in a folder that is there"):
            report.main([f"--run={light}", f"--out={out}"])


def test_big_videos_stop_the_section(light, monkeypatch):
    monkeypatch.setattr(inputs, "MOST_BYTES", 10)
    assert len(page(light).videos) == 1


def test_scores_stand_beside_chance_and_the_reader(light):
    found = page(light)
    words = found.words()
    assert "colour 95.1% 92.1% to 97.1% 200 16.7% 99.9% 98.7%" in words
    assert "shape 90.2% 87.2% to 92.2% 200 – – –" in words
    others = words[words.index("Other measures") : words.index("Curves")]
    assert "autoencoder/psnr 31.23 30.5 to 32 256" in others
    assert "reader/ground_truth/speed 87.6%" in others
    assert "colour" not in others and "chance" not in others
    assert {"colour", "shape", "100%"} <= set(found.drawn())


def test_scores_of_several_objects_have_rows_of_their_own(light):
    write(light / "evaluation.json", {"bounce/colour": entry(0.9), "bounce/two_objects/colour": entry(0.8)})
    words = page(light).words()
    assert "two objects: colour 80.0% 77.0% to 82.0%" in words
    assert "Right in its samples of one object: colour 90.0%." in words


def test_the_protocol_stands_under_the_scores(light):
    write(light / "protocol.json", {"clips": 12, "card": "12 clips of <one> kind."})
    words = page(light).words()
    assert "12 clips of <one> kind." in words[words.index("Scores") : words.index("Curves")]


def test_curves(run):
    words = page(run).words()
    curves = words[words.index("Curves") : words.index("How to repeat it")]
    own, _, autoencoder = curves.partition("Its autoencoder")
    for title in ("Loss", "Loss by flow time", "Gradient norm", "Clips per second"):
        assert title in own
    assert "0.2 to 0.3 0.4 to 0.5" in own, "a bucket without values has no curve"
    assert "PSNR in dB 31.5 at the end" in autoencoder and "flow time" not in autoencoder
    assert "32 at the end, after the first step" in own
    _, _, drawing = (run / "report.html").read_text().partition('aria-label="Clips per second over steps, run"')
    assert drawing.partition("</svg>")[0].count("h0") == 39


def test_the_autoencoder_may_lie_in_another_run(run, tmp_path):
    shutil.move(run / "autoencoder_run", tmp_path / "elsewhere")
    assert "Its autoencoder" not in page(run).words()
    write(run / "config.json", {**CONFIG, "autoencoder": {"run": str(tmp_path / "elsewhere")}})
    assert "PSNR in dB 31.5 at the end" in page(run).words()


def test_how_to_repeat_it(light):
    words = page(light).words()
    repeating = words[words.index("How to repeat it") :]
    assert "commit 0123456789abcdef ." in repeating
    assert "python -m vidflow.train --config=a.py --workdir=runs/tiny python -m vidflow.evaluate --run=" in repeating
    assert "Python 3.11.7, jax 0.10.2" in repeating
    assert '"learning_rate": 0.005' in repeating
    write(light / "provenance.json", {**PROVENANCE, "commit": "abc-dirty", "command": "vidflow train --config=b.py"})
    words = page(light).words()
    assert "commit abc , with changes that were not committed" in words
    assert "vidflow train --config=b.py python -m" in words


def test_comparison_names_what_differs(light, tmp_path):
    other = Path(shutil.copytree(light, tmp_path / "other"))
    write(other / "config.json", {**CONFIG, "optimizer": {"learning_rate": 0.002}, "new": NASTY})
    write(other / "evaluation.json", {"bounce/colour": entry(0.5)})
    words = page(light, "--compare", str(other)).words()
    comparison = words[words.index("Comparison") : words.index("How to repeat it")]
    assert "config tiny other new – " in comparison
    assert "optimizer.learning_rate 0.005 0.002" in comparison
    assert "batch_size" not in comparison and "chance" not in comparison
    assert "bounce/colour 95.1% 92.1% to 97.1% 50.0% 47.0% to 52.0%" in comparison
    assert "bounce/shape 90.2% 87.2% to 92.2% –" in comparison
    same = page(light, f"--compare={light}", f"--compare={other}", f"--compare={light}").words()
    assert f"config {light} {light} {other} {light}" in same


# Bytes


def test_the_same_inputs_give_the_same_bytes(run):
    page(run)
    here = (run / "report.html").read_bytes()
    page(run)
    assert (run / "report.html").read_bytes() == here
    command = [sys.executable, "-m", "vidflow.report", f"--run={run}", f"--out={run / 'again.html'}"]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert (run / "again.html").read_bytes() == here


def test_names_inside_drawings_do_not_clash(run):
    identifiers = [value for _, name, value in page(run).attributes if name == "id"]
    assert identifiers and len(identifiers) == len(set(identifiers))


# What files may hold


def test_text_from_files_is_escaped(light, tmp_path):
    sample = {"file": NASTY, "prompt": NASTY, "seed": NASTY, "scores": {NASTY: True}}
    write(light / "samples" / "index.json", [sample, {**sample, "file": "000.mp4"}])
    write(light / "evaluation.json", {f"bounce/{NASTY}": entry(0.5), r"bounce/$\frac$": entry(0.5), NASTY: entry(0.5)})
    data = {**CONFIG["data"], "source": NASTY}
    write(light / "config.json", {**CONFIG, "task": NASTY, "batch_size": NASTY, "data": data})
    write(light / "provenance.json", {key: NASTY for key in PROVENANCE} | {"packages": {NASTY: NASTY}})
    named = Path(shutil.copytree(light, tmp_path / "<b>bold&"))
    found = page(named, f"--compare={light}")
    assert [tag for tag, _ in found.texts].count("script") == 1 and "b" not in {tag for tag, *_ in found.attributes}
    assert found.words().count(NASTY) > 10
    assert any(NASTY.replace("/", ": ") in label for label in found.drawn())
    assert any(tag == "h1" and data == "<b>bold&" for tag, data in found.texts)


def test_a_prompt_inside_an_attribute_stays_there(light):
    index = json.loads((light / "samples" / "index.json").read_text())
    write(light / "samples" / "index.json", [{**index[0], "prompt": '" onerror="alert(1)'}])
    (attributes,) = page(light).videos
    assert attributes["aria-label"] == '" onerror="alert(1)' and "onerror" not in attributes


def test_half_a_surrogate_pair_is_shown_as_a_question_mark(light):
    (light / "samples" / "index.json").write_text('[{"file": "000.mp4", "prompt": "a \\ud83d star"}]')
    (light / "evaluation.json").write_text('{"bounce/\\ud83d": {"mean": 0.5}}')
    words = page(light).words()
    assert "a ? star" in words and "? 50.0%" in words


@pytest.mark.parametrize("name", ["../weights.safetensors", "../other/000.mp4", "", None, 3, "a\0b", "."])
def test_only_videos_beside_the_index_are_embedded(light, name):
    shutil.copytree(light / "samples", light / "other")
    write(light / "samples" / "index.json", [{"file": name, "prompt": "p"}])
    found = page(light)
    assert found.videos == []
    assert "is missing or cannot be played." in found.words()


# What is not there, or not whole


def test_a_run_that_has_just_begun(tmp_path):
    write(tmp_path / "config.json", CONFIG)
    found = page(tmp_path)
    words = found.words()
    assert found.headings == ["Samples", "Scores", "Curves", "How to repeat it"]
    assert "No step is recorded yet." in words
    assert f"There is no {tmp_path / 'samples' / 'index.json'} yet." in words
    assert f"There is no {tmp_path / 'evaluation.json'} yet." in words
    assert words.count(f"python -m vidflow.evaluate --run={tmp_path}") == 2
    assert "curves come with training" in words
    assert f"There is no {tmp_path / 'provenance.json'} yet." in words


def test_a_run_without_sampling_does_not_ask_for_samples(tmp_path):
    write(tmp_path / "config.json", {"task": "vidflow.tasks.autoencoder"})
    words = page(tmp_path).words()
    assert "An autoencoder run." in words
    assert "This run makes no samples" in words


@pytest.mark.parametrize(
    "file, sentence",
    [
        ("config.json", "config.json is not whole"),
        ("provenance.json", "provenance.json is not whole"),
        ("evaluation.json", "evaluation.json is not whole"),
        ("samples/index.json", "index.json is not whole"),
        ("samples/001.mp4", "001.mp4 is missing or cannot be played."),
        ("weights.safetensors", "compilation included, on Linux x86_64, 2 cores. Right in its samples"),
    ],
)
@pytest.mark.parametrize("kept", [0, 0.3])
def test_half_written_files_give_a_sentence(light, file, sentence, kept):
    path = light / file
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert sentence in page(light).words()


@pytest.mark.parametrize(
    "file, value, sentence",
    [
        ("evaluation.json", [1], "evaluation.json does not hold names and values."),
        ("evaluation.json", {}, "The evaluation holds no scores."),
        ("evaluation.json", {"bounce/colour": 3, "x": None}, "colour – – – – –"),
        ("evaluation.json", {"bounce/colour": {"mean": None, "low": "a", "n": math.nan}}, "colour – – – – –"),
        ("evaluation.json", {"bounce/colour": {"mean": 10**400, "n": math.inf}}, "colour – – – – –"),
        ("protocol.json", ["card"], "Right in its samples"),
        ("samples/index.json", {}, "does not list samples."),
        ("samples/index.json", [], "does not list samples."),
        ("samples/index.json", ["000.mp4"], "does not list samples."),
        ("samples/index.json", [{}], "The video is missing"),
        ("samples/index.json", [{"file": "000.mp4", "scores": [1]}], "1 samples."),
        ("config.json", [], "config.json does not hold names and values. So what was trained is not known."),
        ("config.json", {"steps": "x", "data": 3, "autoencoder": {"run": 7}}, "A training run. It took 40 steps in"),
        ("provenance.json", {}, "The commit is not known"),
        ("provenance.json", {"packages": 3, "command": None, "commit": 5}, "commit 5 ."),
    ],
)
def test_files_of_another_shape_give_a_sentence(light, file, value, sentence):
    write(light / file, value)
    assert sentence in page(light, f"--compare={light}").words()


def test_metrics_cut_short_are_drawn_as_far_as_they_go(light):
    lines = (light / "metrics.jsonl").read_text()
    (light / "metrics.jsonl").write_text(lines[: len(lines) // 2] + '{"step": 2')
    assert "It took 20 of 40 steps" in page(light).words()
    (light / "metrics.jsonl").write_bytes(b"\xff\xfe")
    assert "No step is recorded yet." in page(light).words()
    (light / "metrics.jsonl").write_text('{"step": "x"}\n{"step": 0}\n')
    assert "It took 1 of 40 steps" in page(light).words()
    (light / "metrics.jsonl").write_text('{"step": 0}\nnull\n')
    assert "It took 1 of 40 steps" in page(light).words()


def test_skipped_steps_are_told(light):
    assert "were skipped" not in page(light).words()
    lines = (light / "metrics.jsonl").read_text().splitlines()
    last = {**json.loads(lines[-1]), "skipped": 3}
    (light / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    assert "3 of them were skipped" in page(light).words()


@pytest.mark.parametrize("flag", ["--run", "--compare"])
def test_a_folder_that_is_no_run_is_refused(light, tmp_path, flag):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="is no run folder .*: name one made by vidflow train"):
            report.main([f"--run={light}", flag, str(folder)])


def test_a_page_that_cannot_be_written_is_an_error(light):
    with pytest.raises(UsageError, match="cannot be written: give a file name in a folder that is there"):
        report.main([f"--run={light}", f"--out={light / 'no' / 'folder.html'}"])
    with pytest.raises(UsageError, match="cannot be written: give a file name"):
        report.main([f"--run={light}", f"--out={light}"])
