"""The benchmarks in small: what they write, what they refuse, what they survive."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from vidflow.attention import attend
from vidflow.errors import UsageError
from vidflow.models import sizes
from vidflow.models.sizes import Size
from vidflow.scaling import flops

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as for a script there

import attention  # noqa: E402
import children  # noqa: E402
import kernels  # noqa: E402
import summary  # noqa: E402
import timing  # noqa: E402
import train_step  # noqa: E402

SIZE = Size(layers=2, width=32, heads=4, feed_forward=48)


def run(script, *flags):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, f"benchmarks/{script}.py", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def results(script, file, *flags, code=0):
    done = run(script, f"--json={file}", *flags)
    assert done.returncode == code, done.stderr
    return json.loads(file.read_text()), done.stdout


# The scripts


@pytest.mark.parametrize("script", ["attention", "train_step", "kernels", "summary", "saving", "autoencoder"])
def test_help_answers(script):
    done = run(script, "--help")
    assert done.returncode == 0 and f"usage: python benchmarks/{script}.py" in done.stdout
    assert "child" not in done.stdout


def test_attention_writes_its_rows_and_goes_on_after_one_that_fails(tmp_path):
    flags = ("--lengths=64", "--heads=2", "--head-size=8", "--kernels=cudnn,xla", "--seconds=0.01")
    document, shown = results("attention", tmp_path / "a.json", *flags)
    failed, done = document["rows"][:2], document["rows"][2:]
    assert [(row["kernel"], row["pass"]) for row in done] == [("xla", "forward"), ("xla", "both")]
    for row, factor in zip(done, (1, 3), strict=True):
        assert row["flops"] == factor * 4 * 64 * 64 * 8 * 2
        assert row["ms"] > 0 and row["ms_iqr"] >= 0 and row["peak_bytes"] > 0 and row["peak_of"] == "program"
        assert row["tflops_per_second"] == pytest.approx(row["flops"] / row["ms"] / 1e9)
        assert row["percent_of_peak"] is None  # a CPU is not in the table of peaks
    assert all("cudnn" in row["error"].lower() and not row["out_of_memory"] and "ms" not in row for row in failed)
    assert "failed: " in shown
    assert document["device"] == "cpu" and document["versions"]["jax"] == jax.__version__
    assert document["command"].startswith("attention.py") and document["commit"] and document["date"]


def test_a_benchmark_that_measured_nothing_fails(tmp_path):
    flags = ("--lengths=64", "--heads=2", "--head-size=8", "--kernels=cudnn", "--seconds=0.01")
    document, shown = results("attention", tmp_path / "a.json", *flags, code=1)
    assert len(document["rows"]) == 2 and all("error" in row for row in document["rows"])


def test_saving_writes_what_it_costs_and_refuses_what_it_cannot_train(tmp_path):
    flags = ("--config=experiments/bounce/text_to_video.py:smoke", "--every=2", "--turns=3")
    document, shown = results("saving", tmp_path / "s.json", *flags)
    seconds = document["seconds"]
    assert all(len(seconds[name]) == 3 and min(seconds[name]) > 0 for name in ("with", "without", "blocked"))
    assert document["low"] <= document["high"] and document["commit"]
    assert "2 steps take" in shown and "3 turns of each" in shown
    failed = run("saving", "--config=experiments/bounce/autoencoder.py:smoke")
    assert failed.returncode == 2 and "is not an experiment of text to video" in failed.stderr


def test_an_autoencoder_is_timed_both_ways(tmp_path):
    flags = ("--width-factor=4", "--frames=5", "--height=16", "--width=16", "--chunk=1", "--seconds=0.01")
    document, shown = results("autoencoder", tmp_path / "a.json", *flags)
    assert [row["step"] for row in document["rows"]] == ["encode", "decode"]
    for row in document["rows"]:
        assert row["frames_per_second"] == pytest.approx(5000 / row["ms"]) and row["peak_of"] == "process"
        assert row["peak_bytes"] > 2**20 and row["parameters"] > 10_000
    assert document["ratios"] == [] and "frames/s" in shown


def test_a_training_step_has_sensible_fields(monkeypatch):
    monkeypatch.setitem(sizes.SIZES, "tiny", SIZE)
    case = {"framework": "vidflow", "size": "tiny", "tokens": 32, "grid": [2, 4, 4], "batch": 2, "kernel": "xla"}
    row = train_step.measure(case | {"remat": "none", "gradient_dtype": "bfloat16", "seconds": 0.01})
    forward = sum(flops.transformer(SIZE, tokens=32, text_tokens=656, text_width=32, features=64))
    assert row["flops"] == 3 * 2 * forward
    assert row["tokens_per_second"] == pytest.approx(2 * 32 / row["ms"] * 1000)
    assert row["ms"] > 0 and row["compile_seconds"] > 0 and row["peak_bytes"] > 0 and row["loss"] > 0
    # Parameters, two moments and their average, in float32, are among what the program needs.
    assert row["program_bytes"] > 16 * row["parameters"]


@pytest.mark.parametrize("spoil, right", [(lambda x: x, True), (lambda x: 1.001 * x, False), (jnp.log, False)])
def test_a_kernel_that_is_wrong_is_found(monkeypatch, spoil, right):
    good = attend.KERNELS["xla"]
    bad = good._replace(attend=lambda q, k, v, mask, label: spoil(good.attend(q, k, v, mask, label)))
    monkeypatch.setitem(attend.KERNELS, "xla", bad)
    row = kernels.measure({"kernel": "xla", "case": "a row without keys"})
    assert row["right"] is right
    assert (row["out"] is None) == (spoil is jnp.log)  # not finite


@pytest.mark.slow
def test_train_step_writes_its_rows_and_goes_on_after_one_that_fails(tmp_path):
    flags = ("--sizes=smoke", "--tokens=64", "--seconds=0.01")
    document, _ = results("train_step", tmp_path / "t.json", *flags, "--remat=full")
    assert [row["size"] for row in document["rows"]] == ["smoke"] and document["rows"][0]["ms"] > 0
    document, _ = results("train_step", tmp_path / "t.json", *flags, "--kernel=cudnn", code=1)
    assert [bool(row["error"]) for row in document["rows"]] == [True]


@pytest.mark.parametrize(
    "script, flags, message",
    [
        (attention, ["--kernels=xla,flash"], "Unknown name 'flash' in --kernels=xla,flash: use one of"),
        (attention, ["--lengths=4k"], "--lengths=4k is not a list of positive numbers"),
        (attention, ["--against=tensorflow"], "--against=tensorflow is not to be had"),
        (attention, ["--length=4096"], "did you mean --lengths?"),
        (train_step, ["--sizes=1b,2b"], "Unknown name '2b' in --sizes=1b,2b: use one of smoke"),
        (train_step, ["--kernel=flash"], "Unknown name 'flash' in --kernel=flash: use one of"),
        (train_step, ["--remat=some"], "Unknown name 'some' in --remat=some: use one of none"),
        (kernels, ["--against=torch"], "Flag --against is unknown"),  # nothing is timed
        (summary, ["/nowhere"], "No results in /nowhere"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(script, flags, message):
    with pytest.raises(UsageError) as error:
        script.main(flags)
    assert message in str(error.value)


# Their parts


def test_cases_that_run_out_of_memory_crash_or_hang_cost_their_own_row(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, sys, time\nsys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "import children\n"
        "def measure(case):\n"
        "    if case['n'] == 1: raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory on 1 byte.\\nLong story.')\n"
        "    if case['n'] == 3: print('the last word', file=sys.stderr, flush=True); os._exit(7)\n"
        "    if case['n'] == 4: time.sleep(60)\n"
        "    return {'ms': 1.0}\n"
        "children.run(None, measure)\n"
    )

    def rows(*numbers, limit=60):
        return children.measure(str(script), [{"n": n} for n in numbers], limit)

    first, memory, after, crash, lost = rows(0, 1, 2, 3, 5)
    assert first == {"n": 0, "ms": 1.0} and after == {"n": 2, "ms": 1.0}
    message = "RuntimeError: RESOURCE_EXHAUSTED: Out of memory on 1 byte."
    assert memory == {"n": 1, "error": message, "out_of_memory": True}
    # The one that crashed takes those behind it with it: they were to run in the same process.
    for row, n in ((crash, 3), (lost, 5)):
        error = "The process ended with code 7: the last word"
        assert row == {"n": n, "error": error, "out_of_memory": False}
    done, hung = rows(0, 4, limit=5)
    assert done["ms"] == 1.0 and hung["error"] == "Given up after 5 s."


def test_times_are_of_one_call(monkeypatch):
    """Of a program whose first call takes 9 s and the others 20 ms."""
    clock, calls = [0.0], []

    def run(n):
        calls.append(n)
        clock[0] += 9 if len(calls) == 1 else 0.02 * n + 1e-9

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    result = timing.repeat(run, seconds=0.4)
    assert calls == [1, 1, 5, 5, 5, 5]
    assert result["ms"] == pytest.approx(20) and result["ms_iqr"] == pytest.approx(0, abs=1e-3)
    assert (result["calls"], result["repetitions"], result["first_ms"]) == (5, 4, pytest.approx(9000))


def test_a_known_device_has_a_percentage():
    assert timing.rates(989e12, 2000.0, "NVIDIA H200")["percent_of_peak"] == pytest.approx(50)


@pytest.mark.parametrize(
    "tokens, grid",
    [(4096, (4, 32, 32)), (16384, (16, 32, 32)), (32768, (32, 32, 32)), (73728, (32, 48, 48)), (64, (1, 8, 8))],
)
def test_the_grids_of_the_usual_lengths(tokens, grid):
    assert train_step.grid(tokens) == grid


def test_ratios_compare_the_same_case_with_the_fastest_other():
    def row(framework, kernel, ms, length=64):
        return {"framework": framework, "kernel": kernel, "length": length, "pass": "both"} | ({"ms": ms} if ms else {})

    rows = [row("vidflow", "xla", 6.0), row("torch", "flash", 3.0), row("torch", "cudnn", 4.0)]
    rows += [row("vidflow", "cudnn", None), row("torch", "flash", 1.0, length=128)]
    (ratio,) = attention.ratios(rows)
    assert ratio == {"kernel": "xla", "length": 64, "pass": "both", "against": "torch flash", "ratio": 0.5}


def test_the_summary_shows_rows_ratios_and_failures(tmp_path, capsys):
    case = {"size": "1b", "tokens": 4096, "remat": "full"}
    numbers = {"ms": 500.0, "ms_iqr": 1.0, "tflops_per_second": 400.0, "percent_of_peak": 40.4, "peak_bytes": 2**35}
    numbers |= {"peak_of": "allocator", "tokens_per_second": 8192.0, "compile_seconds": 30.0, "loss": None}
    rows = [case | numbers | {"framework": "vidflow", "kernel": "cudnn"}]
    rows += [case | {"framework": "torch", "kernel": "sdpa", "error": "CUDA out of memory.", "out_of_memory": True}]
    ratios = [{"size": "1b", "tokens": 4096, "against": "torch", "ratio": 1.25}]
    document = {"benchmark": "train_step", "device": "NVIDIA H200", "versions": {"jax": "1"}, "commit": "abc"}
    document |= {"command": "train_step.py", "date": "today", "rows": rows, "ratios": ratios, "notes": ["A note."]}
    (tmp_path / "step.json").write_text(json.dumps(document))
    (tmp_path / "other.json").write_text("[]")
    summary.main([str(tmp_path)])
    shown = capsys.readouterr().out
    for part in ("| 500 |", "| 40.4 | 32 |", "| not finite |", "out of memory: CUDA out of memory.", "- A note."):
        assert part in shown
    assert "1b, 4,096 tokens: 1.25 times the speed of torch" in shown and "other" not in shown


@pytest.mark.parametrize(
    ("benchmark", "case", "rate", "ratio"),
    [
        ("autoencoder", {"step": "decode", "frames": 9}, "frames_per_second", {"step": "decode"}),
        ("text", {"tower": "clip", "texts": 64, "farthest": None}, "texts_per_second", {"tower": "clip"}),
    ],
)
def test_the_summary_has_every_benchmark_with_rows(tmp_path, capsys, benchmark, case, rate, ratio):
    numbers = {"ms": 500.0, "ms_iqr": 1.0, "peak_bytes": 2**31, "peak_of": "process", "parameters": 1000, rate: 31.25}
    document = {"benchmark": benchmark, "device": "cpu", "versions": {"jax": "1"}, "commit": "abc"}
    document |= {"rows": [case | numbers | {"framework": "vidflow"}], "command": "x.py", "date": "today"}
    document |= {"ratios": [ratio | {"against": "another", "ratio": 1.25}]}
    (tmp_path / "one.json").write_text(json.dumps(document))
    summary.main([str(tmp_path)])
    shown = capsys.readouterr().out
    assert "| 500 | 1 | 2 | 31.2 | 1,000 |" in shown and "1.25 times the speed of another" in shown


# Everything together


def test_the_accelerators_script_refuses_a_part_that_it_does_not_have(tmp_path):
    command = ["bash", "benchmarks/accelerator.sh", str(tmp_path / "out")]
    for flags in (["attentions"], ["--smoke", "step_5b"]):
        done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and f"There is no part '{flags[-1]}'" in done.stderr and not done.stdout


@pytest.mark.slow
def test_both_frameworks_are_measured_in_one_call(tmp_path):
    pytest.importorskip("torch")
    flags = ("--sizes=smoke", "--tokens=64", "--remat=full", "--seconds=0.01", "--against=torch")
    document, shown = results("train_step", tmp_path / "t.json", *flags)
    rows = {row["framework"]: row for row in document["rows"]}
    assert all(row["ms"] > 0 and row["loss"] > 0 for row in rows.values())
    assert rows["torch"]["flops"] == rows["vidflow"]["flops"]
    assert rows["torch"]["parameters"] == rows["vidflow"]["parameters"]
    assert {ratio["against"] for ratio in document["ratios"]} == set(rows) - {"vidflow"}
    for ratio in document["ratios"]:
        theirs = rows[ratio["against"]]["tokens_per_second"]
        assert ratio["ratio"] == pytest.approx(rows["vidflow"]["tokens_per_second"] / theirs)
    assert "times the speed of torch" in shown
    flags = ("--lengths=64", "--heads=2", "--head-size=8", "--seconds=0.01", "--against=torch")
    document, _ = results("attention", tmp_path / "a.json", *flags)
    assert len(document["rows"]) == 4 and len(document["ratios"]) == 2


@pytest.mark.slow
def test_the_accelerators_script_runs_in_small(tmp_path):
    """In under two minutes of a processor, which other work on the machine does not lengthen."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", "benchmarks/accelerator.sh", str(tmp_path / "out"), "--smoke"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "## Kernels" in text and "## Attention" in text and "## Training steps" in text
    for name in ("kernels", "attention", "step_1b"):
        rows = json.loads((tmp_path / "out" / f"{name}.json").read_text())["rows"]
        assert rows and not [row for row in rows if "error" in row]
