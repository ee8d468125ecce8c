"""Every bad input gets one sentence and exit code 2."""

import shutil
from pathlib import Path

import pytest

from tests.real_clips import real_clip
from tests.tasks.experiments import AUTOENCODER, TEXT_TO_VIDEO
from vidflow import cli, encode, evaluate, export, sample, train
from vidflow.training import run_folder


def refusal(capsys, main, *argv):
    """The sentence on stderr of a call that must exit with 2."""
    with pytest.raises(SystemExit) as exit_info:
        cli.run(main, list(argv))
    assert exit_info.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vidflow: error:")]
    assert len(lines) == 1
    return lines[0]


def test_spikes_are_looked_for_among_several_losses(capsys, tmp_path):
    flags = [f"--config={TEXT_TO_VIDEO}", f"--workdir={tmp_path}", "--config.stability.loss_spike=3"]
    assert "one loss has no spread" in refusal(capsys, train.main, *flags, "--config.stability.window=1")


def test_an_autoencoder_of_another_shape_than_the_config_plans_with_is_refused(capsys, tmp_path, smoke_run):
    flags = [f"--config={TEXT_TO_VIDEO}", f"--workdir={tmp_path}", f"--config.autoencoder.run={smoke_run}"]
    said = refusal(capsys, train.main, *flags, "--config.autoencoder.train.model.channels=8")
    assert "has Compression(time=2, height=4, width=4, channels=4" in said and "channels=8" in said
    assert not (tmp_path / "config.json").exists() and not (tmp_path / "autoencoder").exists()


def test_configs(capsys, tmp_path, smoke_run):
    config, workdir = f"--config={TEXT_TO_VIDEO}", f"--workdir={tmp_path / 'run'}"

    def refused(*argv):
        return refusal(capsys, train.main, *argv)

    assert "'batch_size'" in refused(config, workdir, "--config.batchsize=3")
    assert "--workdir" in refused(config, "--workdri=x")
    assert "smoke" in refused(f"--config={TEXT_TO_VIDEO.replace('smoke', 'smok')}", workdir)
    assert "/proc/nowhere/run cannot be a folder" in refused(config, "--workdir=/proc/nowhere/run")
    ready = [config, workdir, f"--config.autoencoder.run={smoke_run}"]
    assert "Unknown model size 'hugh'" in refused(*ready, "--config.model.size=hugh")
    tape = refused(*ready, "--config.data.source=tape", f"--workdir={tmp_path / 'a'}")
    assert "There are bounce, folder, and functions of your own" in tape


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--config.task=vidflow.tasks.video"], "names 'vidflow.tasks.video.build', which cannot be imported"),
        (["--config=bare.py", "--workdir="], "--workdir is empty"),
        (["--config=bare.py"], "bare.py has no config.task, which every run has"),
    ],
)
def test_what_is_no_run_makes_no_folder(capsys, tmp_path, monkeypatch, flags, why):
    monkeypatch.chdir(tmp_path)
    Path("bare.py").write_text("from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict()\n")
    assert why in refusal(capsys, train.main, f"--config={TEXT_TO_VIDEO}", "--workdir=run", *flags)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.py"]


@pytest.mark.parametrize(
    ("main", "flags", "why"),
    [
        (evaluate.main, ["--run=x", "--config.sampling.steps=5"], "--config.sampling.steps is not for --run"),
        (evaluate.main, ["--autoencoder=x", "--config=x.py", "--only=loss"], "--only is for a run, of which"),
        (evaluate.main, ["--autoencoder=x", "--config=x.py", "--seeds=5"], "--seeds is for a run, of which"),
        (export.main, ["--run=x", "--out=y", "--dtype=float32"], "--dtype is of what --encoder names"),
        (export.main, ["--encoder=x", "--out=y", "--step=3"], "--step is of what --run names"),
        (export.main, ["--encoder=x", "--out=y", "--best=loss"], "--best is of what --run names"),
    ],
)
def test_flags_that_would_do_nothing(capsys, tmp_path, monkeypatch, main, flags, why):
    monkeypatch.chdir(tmp_path)
    assert why in refusal(capsys, main, *flags)


def test_sizes_and_lengths(capsys, tmp_path, smoke_run):
    common = [f"--config={TEXT_TO_VIDEO}", f"--config.autoencoder.run={smoke_run}", "--config.data.clips=1"]

    def refused(name, *options):
        return refusal(capsys, train.main, *common, f"--workdir={tmp_path / name}", *options)

    assert "height of 30 pixels is not a positive multiple" in refused("a", "--config.data.height=30")
    assert "do not divide into patches" in refused("b", "--config.data.width=36")
    assert "position table holds 4" in refused("c", "--config.data.frames=24")
    run = f"--run={smoke_run}"

    def sampling(*options):
        return refusal(capsys, sample.main, run, "--prompt=a red circle", f"--out={tmp_path / 'x.mp4'}", *options)

    assert "position table holds 8" in sampling("--width=80")
    assert "at least 1 frame" in sampling("--frames=0")
    assert "at least 2 sampling step(s), not 1" in sampling("--steps=1")
    assert "bytes and the model reads" in refusal(capsys, sample.main, run, "--prompt=" + "x" * 1000)
    assert not (tmp_path / "x.mp4").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("optimizer.name=adam", "use 'adamw' or 'muon'"),
        ("optimizer.decay=step", "Unknown config.optimizer.decay"),
        ("gradient_dtype=float16", "Unknown config.gradient_dtype"),
        ("batch_size=0", "config.batch_size"),
        ("flow.path=linear_", "config.flow.path"),
        ("autoencoder.train.optimizer.name=adam", "use 'adamw' or 'muon'"),
        ("mesh.fsdp=3", "does not cover the 1 device"),
    ],
)
def test_a_command_that_is_refused_leaves_its_folder_to_the_corrected_one(capsys, tmp_path, wrong, said):
    command = [f"--config={TEXT_TO_VIDEO}", f"--workdir={tmp_path / 'run'}"]
    assert said in refusal(capsys, train.main, *command, f"--config.{wrong}")
    assert {path.name for path in tmp_path.rglob("*")} <= {"run", ".lock"}  # and nothing was trained for it


def test_a_run_that_stops_where_it_began_to_be_longer_is_what_it_was(capsys, tmp_path, smoke_run):
    shutil.copytree(smoke_run, run := tmp_path / "run")
    before = (run / "config.json").read_text()
    again = [f"--config={TEXT_TO_VIDEO}", f"--workdir={run}", "--config.steps=30", "--config.mesh.fsdp=3"]
    assert "does not cover the 1 device" in refusal(capsys, train.main, *again)
    assert (run / "config.json").read_text() == before and (run / "finished.json").exists()


def test_a_run_cannot_be_shortened(capsys, tmp_path, smoke_run):
    shutil.copytree(smoke_run, tmp_path / "run")
    again = [f"--config={TEXT_TO_VIDEO}", f"--workdir={tmp_path / 'run'}", "--config.steps=7"]
    assert "has taken 20 steps already" in refusal(capsys, train.main, *again)


def test_meshes(capsys, tmp_path, smoke_run):
    def refused(*settings):
        run = tmp_path / "-".join(settings)
        ready = [f"--config={TEXT_TO_VIDEO}", f"--config.autoencoder.run={smoke_run}", f"--workdir={run}"]
        return refusal(capsys, train.main, *ready, *(f"--config.{setting}" for setting in settings))

    for sizes in (["fsdp=2"], ["data=2"], ["data=0"], ["data=-2"], ["data=-1", "fsdp=-1"]):
        said = refused(*(f"mesh.{size}" for size in sizes))
        assert "does not cover the 1 device(s)" in said and "make the product of its axes 1" in said, sizes
    assert "use one of everywhere, fsdp, replicated" in refused("rules=some")


def test_the_metric_of_the_best_checkpoint(capsys, tmp_path):
    best = [f"--config={AUTOENCODER}", f"--workdir={tmp_path}", "--config.checkpoint.best=losss"]
    said = refusal(capsys, train.main, *best)
    assert "no metric 'losss' (config.checkpoint.best): use one of gradient_norm, kl, l1, l2, learning_rate" in said
    assert not (tmp_path / "metrics.jsonl").exists()


def test_folders_of_videos(capsys, tmp_path):
    def refused(run, folder):
        data = ["--config.data.source=folder", f"--config.data.path={folder}"]
        return refusal(capsys, train.main, f"--config={AUTOENCODER}", f"--workdir={tmp_path / run}", *data)

    assert "config.data.path is empty" in refused("a", "")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in refused("b", empty)
    shutil.copy(real_clip("carphone_distorted.mp4"), empty / "a.mp4")
    (empty / "captions.jsonl").write_text('{"file": "absent.mp4", "caption": "x"}\n')
    assert "absent.mp4" in refused("b", empty)
    assert not list(tmp_path.glob("*/config.json"))  # another folder can be given to the same run


def test_runs(capsys, tmp_path, smoke_run):
    assert "no run folder" in refusal(capsys, evaluate.main, f"--run={tmp_path}")
    (tmp_path / "file").touch()
    assert "config.json is not what was written" in refusal(capsys, evaluate.main, f"--run={tmp_path / 'file'}")
    assert "no run folder" in refusal(capsys, sample.main, f"--run={tmp_path}", "--prompt=x")
    assert "Give one prompt" in refusal(capsys, sample.main)
    assert "text-to-video run" in refusal(
        capsys, sample.main, f"--run={smoke_run / 'autoencoder_run'}", "--prompt=x"
    )
    assert "add --config.autoencoder.run" in refusal(
        capsys, encode.main, f"--config={TEXT_TO_VIDEO}", f"--out={tmp_path / 'c'}"
    )
    ready = [f"--config={TEXT_TO_VIDEO}", f"--out={tmp_path / 'c'}", f"--config.autoencoder.run={tmp_path}"]
    assert "no trained autoencoder" in refusal(capsys, encode.main, *ready)


@pytest.mark.parametrize("flag", ["--prompts=0", "--seeds=0", "--clips=0", "--clips=-1"])
def test_counts_of_an_evaluation(capsys, smoke_run, flag):
    assert f"{flag} counts from 1" in refusal(capsys, evaluate.main, f"--run={smoke_run}", "--only=loss", flag)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--run="], "--run is empty: name a run folder, or leave --run out"),
        (["--out=x.gif"], "--out=x.gif cannot be written: name an .mp4 file"),
        (["--out=nowhere/x.mp4"], "--out=nowhere/x.mp4 cannot be written: name an .mp4 file in a folder that is there"),
        (["--seed=9223372036854775808"], "--seed=9223372036854775808 is no seed: give a number from 0 to 4294967295"),
        (["--guidance=nan"], "--guidance=nan is no number"),
        (["--negative=a star", "--guidance=1"], "a guidance of 1 is none: add --guidance=3"),
    ],
)
def test_flags_of_a_sample(capsys, tmp_path, monkeypatch, smoke_run, flags, said):
    def sampled(*_, **__):
        raise AssertionError("sampled before the flags were looked at")

    monkeypatch.setattr("vidflow.tasks.generation.Generator.__call__", sampled)
    run = [f"--run={smoke_run}", f"--out={tmp_path / 'x.mp4'}"]
    assert said in refusal(capsys, sample.main, "--prompt=a red circle", *run, *flags)


def test_files_of_another_model_or_cut_short(capsys, tmp_path, smoke_run):
    run = tmp_path / "run"
    shutil.copytree(smoke_run, run)
    weights = run / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "not a whole safetensors file" in refusal(capsys, sample.main, f"--run={run}", "--prompt=x")
    weights.write_bytes(whole)
    config = run / "config.json"
    config.write_text(config.read_text().replace('"size": "smoke"', '"size": "demo"'))
    assert "config.json is not what was written there (it was altered)" in refusal(
        capsys, sample.main, f"--run={run}", "--prompt=x"
    )
    other = run_folder.read_config(smoke_run).unlock()
    other.model.size = "demo"
    run_folder.write_config(run, other)
    assert "of another model" in refusal(capsys, sample.main, f"--run={run}", "--prompt=x")
    weights.unlink()
    assert "of another model" in refusal(capsys, sample.main, f"--run={run}", "--prompt=x")
    again = [f"--config={TEXT_TO_VIDEO}", f"--workdir={run}", "--config.model.size=demo"]
    (run / "finished.json").unlink()
    assert "is of another model" in refusal(capsys, train.main, *again)
    auto = run / "autoencoder" / "weights.safetensors"
    auto.write_bytes(auto.read_bytes()[:-1])
    assert "vouches for" in refusal(capsys, sample.main, f"--run={run}", "--prompt=x")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("steps=0", "config.steps is 0 and must be 1 or more"),
        ("batch_size=0", "config.batch_size is 0 and must be 1 or more"),
        ("seed=99999999999999999999", "config.seed is 99999999999999999999 and must be a number from 0 to 4294967295"),
        ("seed=-1", "config.seed is -1"),
        ("ema_decay=2", "config.ema_decay is 2.0 and must be a number from 0 to 1"),
        ("ema_decay=nan", "config.ema_decay is nan"),
        ("checkpoint.every=0", "config.checkpoint.every is 0"),
        ("checkpoint.keep=0", "config.checkpoint.keep is 0"),
        ("checkpoint.keep=-1", "config.checkpoint.keep is -1"),
        ("data.clips=-3", "config.data.clips is -3"),
        ("sampling.batch=0", "config.sampling.batch is 0"),
        ("sampling.batch=-1", "config.sampling.batch is -1"),
        ("model.patch=2,2", "config.model.patch is (2, 2) and must be three numbers, for time, height and width"),
        ("model.patch=0,2,2", "config.model.patch is (0, 2, 2) and must be 1 or more"),
        ("model.positions=4,8", "config.model.positions is (4, 8) and must be three numbers"),
        ("model.positions=4", "config.model.positions is (4,) and must be three numbers"),
        ("model.dtype=float8", "config.model.dtype is 'float8' and must be one of float32, bfloat16, float16"),
        ("model.dtype=int32", "config.model.dtype is 'int32'"),
        ("text.stride=0", "config.text.stride is 0"),
        ("text.width=0", "config.text.width is 0"),
        ("text.dropout=2", "config.text.dropout is 2.0"),
        ("data.fps=-8", "config.data.fps is -8.0 and must be a positive number, or None"),
        ("text.heads=5", "config.text.width = 96 is not a multiple of config.text.heads = 5"),
        ("autoencoder.train.steps=0", "config.autoencoder.train.steps is 0"),
        ("model.remat=named", "config.model.remat is 'named' and config.model.saved is empty"),
        ("model.saved=('gaet',)", "Unknown tensor 'gaet' in config.model.saved; did you mean 'gate'"),
        ("model.saved=('gate',)", "config.model.saved names tensors and config.model.remat is 'none'"),
        ("model.kernel=splash", "is for devices of JAX's platform 'tpu', and these are 'cpu'"),
        ("model.kernel=flash", "Unknown attention kernel 'flash' in config.model.kernel"),
        ("gradient_dtype=bfloat16", "config.gradient_dtype is bfloat16, to which matrices are rounded"),
        ("flow.path=.x", "config.flow.path names '.x', which is no dotted name"),
        ("flow.path=liner", "Unknown config.flow.path 'liner'"),
        ("flow.target=noise", "'noise' cannot be sampled at t = 0"),
        ("sampling.solver=hune", "Unknown config.sampling.solver 'hune'; did you mean 'heun'"),
        ("sampling.solver=euler_maruyama:churn=-1", "A churn of -1 is no amount of noise"),
        ("sampling.solver=dormand_prince:tolerance=-1", "No error keeps to a tolerance of -1"),
        ("sampling.schedule=linear_quadratic:reference=3", "needs a reference of at least"),
        ("sampling.guidance_shape=intervall", "Unknown config.sampling.guidance_shape 'intervall'"),
        ("sampling.start=1.5", "Sampling goes from 0 <= start < end <= 1"),
        ("sampling.steps=1", "needs at least 2 sampling step(s)"),
    ],
)
def test_values_of_a_config_before_anything_is_trained(capsys, tmp_path, setting, said):
    ready = [f"--config={TEXT_TO_VIDEO}", "--config.autoencoder.run=nowhere"]
    assert said in refusal(capsys, train.main, *ready, f"--workdir={tmp_path / 'run'}", f"--config.{setting}")
