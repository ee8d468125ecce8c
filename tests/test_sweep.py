"""vidflow sweep: its points, its rows, and what a kill leaves."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from tests.tasks.experiments import TEXT_TO_VIDEO
from vidflow import config as configs
from vidflow import files, sweep, train
from vidflow.errors import UsageError
from vidflow.reporting import points
from vidflow.tasks import branching, frozen_autoencoder, local_points, results, sweeping
from vidflow.training import run_folder, weights

ROOT = Path(__file__).parents[1]
FILE = """
from vidflow import config as configs

def get_config(arg=""):
    return configs.load("{root}/experiments/bounce/autoencoder.py:smoke")

def sweep(add):
    {body}
"""
TWO = "for seed in (0, 1): add({'seed': seed, 'steps': 2})"


def file(tmp_path, body=TWO):
    path = tmp_path / "experiment.py"
    path.write_text(FILE.format(root=ROOT, body=body))
    return str(path)


def test_points_have_names_folders_and_the_config_that_results(tmp_path):
    first, second = sweeping.points(file(tmp_path), (("batch_size", "4"),))
    assert (first.name, second.name) == ("seed=0,steps=2", "seed=1,steps=2") and first.folder != second.folder
    assert (second.config.seed, second.config.steps, second.config.batch_size) == (1, 2, 4)
    spec, *said = second.command(Path("runs"))
    values = [("batch_size", "4"), ("seed", "1"), ("steps", "2")]
    assert said == [f"--workdir=runs/{second.folder}", *(f"--config.{key}={value}" for key, value in values)]
    assert configs.digest(configs.override(configs.load(spec.removeprefix("--config=")), values)) == second.folder


@pytest.mark.parametrize(
    ("body", "flags", "message"),
    [
        ("add({'seed': 1}); add({'seed': 1})", [], "one point twice: seed=1 and seed=1"),
        ("add({'sed': 1})", [], "'sed' is unknown; did you mean 'seed'"),
        ("add({'batch_size': 0})", [], "config.batch_size is 0 and must be 1 or more"),
        ("pass", [], "adds no point"),
        (TWO, ["--only=seed=7"], "is in no point's name; the first is: seed=0,steps=2"),
        (TWO, ["--backend=slurm"], "is not one of local, tpu, print"),
        (TWO, ["--jobs=0"], "count from 1"),
        (TWO, ["--config.batch_size=x"], "must be an integer"),
        (TWO, ["--evaluate=loss,los"], "--evaluate=loss,los names 'los': use autoencoder, loss, samples"),
        (TWO, ["--evaluate=loss"], "seed=0,steps=2 is of an autoencoder and has no loss to score"),
        (TWO, ["--curve=2", "--evaluate=loss"], "leave one out"),
        (TWO, ["--curve=2"], "add --config.optimizer.decay=constant"),
        (TWO, ["--curve=3", "--config.optimizer.decay=constant"], "--curve=3 is more than the 2 steps of seed=0"),
        (TWO, ["--config.steps=3"], "--config.steps is for the sweep of .* to set"),
    ],
)
def test_what_cannot_be_swept_is_one_sentence(tmp_path, body, flags, message):
    with pytest.raises(UsageError, match=message):
        sweep.main([f"--config={file(tmp_path, body)}", f"--workdir={tmp_path / 'sweep'}", *flags])


def test_a_file_without_a_sweep_is_told_what_to_define(tmp_path):
    with pytest.raises(UsageError, match="has no sweep; define `def sweep.add.` in it"):
        sweep.main([f"--config={ROOT}/experiments/bounce/autoencoder.py", f"--workdir={tmp_path}"])


def test_commands_can_be_printed_instead(tmp_path, capsys):
    sweep.main([f"--config={file(tmp_path)}", f"--workdir={tmp_path / 'sweep'}", "--backend=tpu", "--only=seed=1"])
    said, line = capsys.readouterr().out.splitlines()
    assert said.startswith("# One after another") and "launch/tpu_vm.sh status" in said
    assert line.startswith("launch/tpu_vm.sh run -- vidflow train --config=")
    assert line.endswith("--config.steps=2 --distributed")
    assert not (tmp_path / "sweep").exists()


def test_printed_commands_evaluate_too_as_the_sweep_would(tmp_path, capsys):
    flags = [f"--config={file(tmp_path)}", f"--workdir={tmp_path / 'sweep'}", "--only=seed=1", "--evaluate=autoencoder"]
    point = sweeping.points(file(tmp_path))[1]
    evaluate = f"vidflow evaluate --run={tmp_path / 'sweep' / point.folder} --only=autoencoder"
    for backend, words in (("print", evaluate), ("tpu", f"launch/tpu_vm.sh run -- {evaluate} --distributed")):
        sweep.main([*flags, f"--backend={backend}"])
        train, line = capsys.readouterr().out.splitlines()[-2:]
        assert " train " in train and line == words


def test_a_row_counts_what_was_trained(smoke_run):
    config = configs.load(TEXT_TO_VIDEO)
    point = sweeping.Point(TEXT_TO_VIDEO, (("steps", "20"),), (("seed", "0"),), config, "seed=0", smoke_run.name)
    (row,) = sweeping.rows(point, smoke_run.parent)
    tokens = 2 * 4 * 4  # of 8 x 32 x 32 pixels, in latents of a fourth each way, in patches of 2 x 2 x 2
    assert row["tokens"] == tokens * 8 * 20 and row["seed"] == 0
    assert row["config"] == {"seed": 0} and row["arg"] == "smoke"
    lines = [json.loads(line)["loss"] for line in (smoke_run / "metrics.jsonl").read_text().splitlines()]
    assert row["loss"] == pytest.approx((lines[-1] + lines[-2]) / 2) and row["loss_of"] == "training"
    assert row["flops"] > 3 * 2 * tokens * 8 * 20 * 2 * 64 * 128  # more than a matrix of its feed-forward
    assert row["convention"] == "counted" and row["flops_by"]["counted"] == row["flops"]
    params, _ = weights.load(smoke_run / "weights.safetensors")
    transformer = sum(leaf.size for leaf in jax.tree.leaves(params["params"]["backbone"]))
    assert row["flops_by"]["6ND"] == 6 * transformer * row["tokens"]
    assert row["transformer_parameters"] == transformer < row["parameters"]
    curve = sweeping.rows(point, smoke_run.parent, curve=4)
    assert [row["steps"] for row in curve] == [5, 10, 15, 20] and curve[-1]["flops"] == row["flops"]


def wait_for(condition, limit=300):
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "killed_after"), [(2, 1), (40, 13)])
def test_a_killed_sweep_goes_on_without_what_is_finished_and_gives_the_same_table(tmp_path, count, killed_after):
    body = f"for seed in range({count}): add({{'seed': seed, 'steps': 2}})"
    config = f"--config={file(tmp_path, body)}"
    killed, whole = tmp_path / "killed", tmp_path / "whole"

    def finished():
        return {path: path.stat().st_mtime_ns for path in killed.glob("*/finished.json")}

    command = [sys.executable, "-m", "vidflow.sweep", config, f"--workdir={killed}", "--jobs=2"]
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    wait_for(lambda: len(finished()) >= killed_after, limit=3600)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = finished()
    sweep.main([config, f"--workdir={killed}", "--jobs=2"])
    assert before.items() <= finished().items() and len(finished()) == count
    sweep.main([config, f"--workdir={whole}", "--jobs=2"])
    tables = [(folder / "results.jsonl").read_text() for folder in (killed, whole)]
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == count


def test_rows_stand_for_their_runs_if_they_are_what_is_asked_for(tmp_path):
    (point,) = sweeping.points(file(tmp_path, "add({'steps': 2})"))
    row = {"folder": point.folder, "flops": 1.0, "loss": 0.5, "evaluation": ["--only=loss"]}
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n")

    def finished(*of):
        return local_points.Progress.of(tmp_path, *of).is_finished(point)

    assert finished(["--only=loss"]) and not finished([]) and not finished(["--only=loss"], 2)
    progress = local_points.Progress.of(tmp_path, ["--only=loss"])
    assert local_points.collect([point], progress, lambda _: []) == [row]


def test_rows_of_other_runs_are_kept_under_another_name(tmp_path, caplog):
    (point,) = sweeping.points(file(tmp_path, "add({'steps': 2})"))
    mine, other = ({"folder": name, "flops": 1.0, "loss": 0.5, "evaluation": []} for name in (point.folder, "else"))
    table = tmp_path / "results.jsonl"
    table.write_text(before := f"{json.dumps(other)}\n{json.dumps(mine)}\n")
    progress = local_points.Progress.of(tmp_path, [])
    for _ in range(2):
        assert local_points.collect([point], progress, lambda _: []) == [mine]
    assert table.read_text() == json.dumps(mine) + "\n"
    assert [path.read_text() for path in tmp_path.glob("results-*.jsonl")] == [before]
    assert f"had runs that this command does not ask for: it is kept as {tmp_path / 'results-1.jsonl'}" in caplog.text
    table.write_text(json.dumps(other) + "\n")
    assert local_points.collect([point], progress._replace(before={}), lambda _: []) == []
    assert len(list(tmp_path.glob("results-*.jsonl"))) == 2


def test_a_sweep_goes_on_from_rows_of_training_and_of_validation(tmp_path):
    rows = [{"folder": name, "flops": 1.0, "loss": 0.5, "loss_of": name} for name in ("training", "validation")]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(local_points.Progress.of(tmp_path, []).before) == ["training", "validation"]


def test_scores_are_in_a_row_if_they_are_asked_for(tmp_path, smoke_run):
    run = Path(shutil.copytree(smoke_run, tmp_path / "run"))
    scores = {"validation/flow_loss": {"mean": 0.25}, "bounce/shape": {"mean": 0.75}}
    (run / "evaluation.json").write_text(json.dumps(scores))
    point = sweeping.Point(TEXT_TO_VIDEO, (), (), configs.load(TEXT_TO_VIDEO), "as it is", run.name)
    (trained,), (scored,) = (sweeping.rows(point, tmp_path, flags) for flags in ([], ["--only=loss,samples"]))
    assert trained["loss_of"] == "training" and "bounce/shape" not in trained
    assert (scored["loss_of"], scored["loss"], scored["bounce/shape"]) == ("validation", 0.25, 0.75)
    (run / "evaluation.json").write_text(json.dumps(scores | {"validation/flow_loss": {"mean": None}}))
    (diverged,) = sweeping.rows(point, tmp_path, ["--only=loss,samples"])
    assert "nan" in points.line(diverged)  # of the table, which goes on
    (tmp_path / "results.jsonl").write_text(json.dumps(diverged) + "\n" + json.dumps(scored) + "\n")
    kept, said = results.sound(results.read(tmp_path / "results.jsonl"))
    assert kept == [scored] and said == ["left out as it is: its loss is nan"]


def test_a_run_that_several_commits_trained_says_so(tmp_path, smoke_run):
    run = Path(shutil.copytree(smoke_run, tmp_path / "run"))
    earlier = [{"commit": "old", "device": "1 x cpu"}]
    provenance = {"commit": "new", "device": "1 x cpu", "earlier": earlier}
    (run / "provenance.json").write_text(json.dumps(provenance))
    (row,) = sweeping.rows(sweeping.Point(TEXT_TO_VIDEO, (), (), configs.load(TEXT_TO_VIDEO), "it", "run"), tmp_path)
    assert row["commit"] == "new" and results.sound([row])[1] == ["runs of 2 commits are mixed: new, old"]


def test_a_run_that_was_evaluated_otherwise_is_not_finished(tmp_path):
    (point,) = sweeping.points(file(tmp_path, "add({'steps': 2})"))
    (folder := tmp_path / point.folder).mkdir()
    run_folder.mark_finished(folder, 2)
    with run_folder.evaluating(folder, ["--only=loss"]):
        (folder / "evaluation.json").write_text("{}")
    flags = (["--only=loss"], [], ["--only=samples"])
    assert [local_points.Progress.of(tmp_path, some).has_run(point) for some in flags] == [True, True, False]


def test_a_longer_run_goes_on_from_a_shorter_one_with_the_bits_of_one_from_the_start(tmp_path):
    body = """
    for steps in (5, 10):
        add({'steps': steps, 'optimizer.decay': 'stable', 'checkpoint.every': 2, 'checkpoint.keep_every': 4})
    add({'steps': 10, 'optimizer.decay': 'stable', 'seed': 1})
    """
    short, long, other = sweeping.points(file(tmp_path, body))
    everything = (short, long, other)
    together, apart = tmp_path / "together", tmp_path / "apart"
    assert branching.begin(short, everything, together) == 0
    train.main(short.command(together))
    altered(together / short.folder / "provenance.json", commit="of the short one")
    assert branching.begin(other, everything, together) == 0  # another seed
    assert branching.begin(long, everything, together) == 4  # not 5: the short one has decayed by then
    assert branching.begin(long, everything, together) == 0  # it has begun
    for workdir in (together, apart):
        train.main(long.command(workdir))
    ends = [(workdir / long.folder / "autoencoder/weights.safetensors").read_bytes() for workdir in (together, apart)]
    assert ends[0] == ends[1]
    losses = [
        [json.loads(line)["loss"] for line in (workdir / long.folder / "metrics.jsonl").read_text().splitlines()]
        for workdir in (together, apart)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 10
    (provenance,) = json.loads((together / long.folder / "provenance.json").read_text())["earlier"]
    assert provenance["commit"] == "of the short one"


def test_a_branch_learns_from_the_autoencoder_that_its_trunk_learnt_from(tmp_path, smoke_run):
    body = """
    for steps in (5, 10):
        add({'steps': steps, 'optimizer.decay': 'stable'})
    """
    spec = Path(file(tmp_path, body))
    spec.write_text(spec.read_text().replace("autoencoder.py", "text_to_video.py"))
    short, long = sweeping.points(str(spec))
    trunk = tmp_path / short.folder
    (trunk / "checkpoints" / "4").mkdir(parents=True)
    (trunk / "metrics.jsonl").write_text("{}\n" * 5)
    (trunk / "provenance.json").write_text("{}")
    shutil.copytree(smoke_run / "autoencoder", trunk / "autoencoder")
    assert branching.begin(long, (short, long), tmp_path) == 4
    own, theirs = (frozen_autoencoder.load(folder / "autoencoder") for folder in (tmp_path / long.folder, smoke_run))
    assert own.digest == theirs.digest


def test_values_of_a_point_may_be_numpys(tmp_path):
    body = "import numpy; add({'optimizer.learning_rate': numpy.geomspace(1, 4, 3)[1], 'data.fps': numpy.float64(8)})"
    (point,) = sweeping.points(file(tmp_path, body))
    assert point.config.optimizer.learning_rate == pytest.approx(2) and point.config.data.fps == 8.0
    assert point.name == "optimizer.learning_rate=2.0,data.fps=8.0"


def test_a_step_that_was_skipped_leaves_the_loss_of_the_others(tmp_path, smoke_run):
    run = shutil.copytree(smoke_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "latents"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[-2]["loss"] = None
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = configs.load(TEXT_TO_VIDEO)
    point = sweeping.Point(TEXT_TO_VIDEO, (("steps", "20"),), (("seed", "0"),), config, "seed=0", "run")
    (row,) = sweeping.rows(point, tmp_path)
    assert row["loss"] == pytest.approx(lines[-1]["loss"])


def altered(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_sweep_that_is_told_to_stop_stops_its_points_and_says_so(tmp_path):
    command = [sys.executable, "-m", "vidflow.sweep", f"--config={file(tmp_path, 'add({})')}"]
    child = subprocess.Popen([*command, f"--workdir={tmp_path / 'sweep'}"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "sweep" / sweeping.points(command[-1][9:])[0].folder
    wait_for((folder / "config.json").exists)
    child.terminate()
    said = child.communicate(timeout=120)[1]
    assert child.returncode == 75 and "the same command goes on" in said
    assert not (folder / "finished.json").exists() and (tmp_path / "sweep" / "results.jsonl").read_text() == ""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say which cores are whose")
def test_jobs_share_the_cores(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    for jobs in (1, len(cores), len(cores) + 1):
        shares = local_points._shares(jobs)
        found = [shares.get() for _ in range(jobs)]
        assert set().union(*found) == set(cores)
        assert sum(map(len, found)) == len(cores) * (jobs if jobs > len(cores) else 1)
    command = [sys.executable, "-m", "vidflow.sweep", f"--config={file(tmp_path, 'add({})')}"]
    child = subprocess.Popen([*command, f"--workdir={tmp_path / 'sweep'}", f"--jobs={len(cores)}"], cwd=ROOT)
    folder = tmp_path / "sweep" / sweeping.points(command[-1][9:])[0].folder
    wait_for((folder / "config.json").exists)
    trainer = int((folder / ".lock").read_text().split()[1])
    assert os.sched_getaffinity(trainer) == {cores[0]}
    child.terminate()
    child.wait(timeout=120)


HOLD = """
import sys, time
from pathlib import Path
from vidflow import files
with files.held(Path(sys.argv[1])):
    time.sleep(60)
"""


def test_a_point_that_still_runs_is_waited_for(tmp_path):
    workdir = tmp_path / "sweep"
    (point,) = sweeping.points(file(tmp_path, "add({'steps': 2})"))
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(workdir / point.folder)], cwd=ROOT)
    wait_for(lambda: files.is_held(workdir / point.folder))
    begun = []
    threading.Timer(3.0, lambda: (begun.extend(workdir.glob("*.log")), holder.kill())).start()
    codes = []
    local_points.run([point], local_points.Progress.of(workdir, []), 1, lambda _, code: codes.append(code))
    assert holder.wait(10) == -signal.SIGKILL and begun == [] and codes == [0]


def test_a_point_that_another_sweep_finishes_meanwhile_is_not_evaluated_again(tmp_path):
    (point,) = sweeping.points(file(tmp_path, "add({'steps': 2})"))
    flags, codes, log = ["--only=loss"], [], tmp_path / f"{point.folder}.log"
    (folder := tmp_path / point.folder).mkdir()
    other = log.open("a")
    fcntl.flock(other, fcntl.LOCK_EX)

    def finish():
        run_folder.mark_finished(folder, 2)
        with run_folder.evaluating(folder, flags):
            pass
        other.close()

    threading.Timer(1.0, finish).start()
    progress = local_points.Progress.of(tmp_path, flags)
    local_points.run([point], progress, 1, lambda _, code: codes.append(code))
    assert codes == [0] and log.read_text() == ""


def test_a_point_that_fails_is_named_and_the_others_go_on(tmp_path, capsys):
    body = "add({'data.source': 'folder', 'data.path': '/nowhere'}); add({'steps': 2})"
    with pytest.raises(SystemExit) as exit_:
        sweep.main([f"--config={file(tmp_path, body)}", f"--workdir={tmp_path / 'sweep'}", "--jobs=2"])
    assert exit_.value.code == 1
    said = capsys.readouterr()
    assert "data.path=/nowhere (exit 2): see " in said.err and "1 rows" in said.out


def test_runs_at_a_time_share_the_memory_of_a_gpu(monkeypatch):
    name = "XLA_PYTHON_CLIENT_MEM_FRACTION"
    monkeypatch.delenv(name, raising=False)
    assert local_points.environment(6)[name] == "0.150"
    monkeypatch.setenv(name, "0.4")
    assert local_points.environment(6)[name] == "0.4"
