"""From an experiment file to a video, with the real verbs."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.tasks.experiments import AUTOENCODER, ROOT, TEXT_TO_VIDEO
from vidflow import encode, evaluate, files, report, sample, train
from vidflow.data import video
from vidflow.errors import UsageError
from vidflow.tasks import generation
from vidflow.tasks.shipping import ship
from vidflow.training import run_folder
from vidflow.training.telemetry import read_metrics


def process(*arguments, devices=1):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_a_run_has_a_line_for_every_step_and_finite_losses(smoke_run):
    lines = read_metrics(smoke_run)
    assert [line["step"] for line in lines] == list(range(20))
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert np.mean([line["loss"] for line in lines[-5:]]) < np.mean([line["loss"] for line in lines[:5]])
    assert all(line["model_tflops_per_second"] > 0 and line["percent_of_peak"] is None for line in lines)
    buckets = [line[f"loss_by_time/{i}"] for line in lines for i in range(10)]
    assert any(value is not None for value in buckets)
    for name in ("config.json", "provenance.json", "weights.safetensors", "finished.json", "latents/latents.json"):
        assert (smoke_run / name).exists(), name


def test_a_second_call_finishes_at_once(smoke_run, capsys):
    before = (smoke_run / "weights.safetensors").stat().st_mtime_ns
    train.main([f"--config={TEXT_TO_VIDEO}", f"--workdir={smoke_run}"])
    assert "is finished" in capsys.readouterr().out
    assert (smoke_run / "weights.safetensors").stat().st_mtime_ns == before


def test_a_killed_run_resumes_to_the_same_bits(smoke_run, tmp_path):
    """SIGKILL between two checkpoints, in the text-to-video part; then the same command again."""
    run = tmp_path / "killed"
    child = process("vidflow.train", f"--config={TEXT_TO_VIDEO}", f"--workdir={run}")
    deadline = time.monotonic() + 300
    while len(read_metrics(run)) < 5 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (run / "finished.json").exists(), "the process finished before it could be killed"
    train.main([f"--config={TEXT_TO_VIDEO}", f"--workdir={run}"])
    undisturbed, resumed = load_file(smoke_run / "weights.safetensors"), load_file(run / "weights.safetensors")
    assert undisturbed.keys() == resumed.keys()
    for name, value in undisturbed.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)
    losses = [[line["loss"] for line in read_metrics(folder)] for folder in (smoke_run, run)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(smoke_run, tmp_path):
    child = process(
        "vidflow.train",
        f"--config={TEXT_TO_VIDEO}",
        f"--workdir={tmp_path / 'eight'}",
        "--config.mesh.data=8",
        f"--config.autoencoder.run={smoke_run}",
        "--config.data.source=cache",
        f"--config.data.path={smoke_run / 'latents'}",
        devices=8,
    )
    output = child.communicate(timeout=600)[0].decode()
    assert child.returncode == 0, output[-2000:]
    one, eight = ([line["loss"] for line in read_metrics(run)] for run in (smoke_run, tmp_path / "eight"))
    np.testing.assert_allclose(eight, one, atol=1e-5, rtol=0)


def test_sampling_is_a_function_of_weights_prompt_and_seed(smoke_run, tmp_path):
    outs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.mp4"
        sample.main([f"--run={smoke_run}", "--prompt=a red circle moves left", f"--out={out}", f"--seed={seed}"])
        info = video.probe(out)
        assert (info.frames, info.fps) == (8, 8.0)
        outs.append(out.read_bytes())
    assert outs[0] == outs[1] != outs[2]


def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(smoke_run):
    generator = generation.load(smoke_run)
    options = {"seed": 0, "steps": 4, "guidance": 2.0, "frames": 8, "height": 32, "width": 32}
    prompts = ["a red circle moves left", "a blue star moves up", "a green square stays still"]
    three = generator(prompts, **options)
    one = generator(prompts[:1], **options)
    assert np.abs(three[0].astype(int) - one[0].astype(int)).max() <= 1  # rounding of one level at most
    generator.config.unlock()
    generator.config.sampling.batch = 2  # two batches, the last padded
    again = generator(prompts, **options)
    assert np.abs(three.astype(int) - again.astype(int)).max() <= 1


def test_a_prompt_to_lead_away_from_changes_a_sample(smoke_run):
    generator = generation.load(smoke_run)
    options = {"seed": 0, "steps": 2, "guidance": 3.0, "frames": 8, "height": 32, "width": 32}
    plain, without = (generator(["a red circle moves left"], negative=text, **options) for text in ("", "a blue star"))
    assert (plain != without).any()


def test_a_model_that_is_not_finite_is_told_with_step_and_time(smoke_run):
    generator = generation.load(smoke_run)
    generator.params["params"]["backbone"]["head"]["kernel"] *= np.nan
    with pytest.raises(UsageError, match=r"not finite at step 1, t = 0\.0"):
        generator(["x"], seed=0, steps=2, guidance=1.0, frames=8, height=32, width=32)


def test_a_solver_that_leaves_what_is_finite_is_told(smoke_run):
    generator = generation.load(smoke_run)
    generator.config.unlock()
    generator.config.sampling.schedule = "uniform"
    with pytest.raises(UsageError, match=r"Samples are not finite .*config\.sampling\.end"):
        generator(["x"], seed=0, steps=1, guidance=float("inf"), frames=8, height=32, width=32)


def test_noise_of_sampling_is_of_the_seed_and_of_the_row(smoke_run):
    generator = generation.load(smoke_run)
    generator.config.unlock()
    generator.config.sampling.solver = "euler_maruyama"
    options = {"steps": 4, "guidance": 1.0, "frames": 8, "height": 32, "width": 32}
    prompts = ["a red circle moves left", "a blue star moves up", "a green square stays still"]
    three = generator(prompts, seed=0, **options).astype(int)
    generator.config.sampling.batch = 2
    assert np.abs(three - generator(prompts, seed=0, **options)).max() <= 1
    assert np.abs(three - generator(prompts, seed=1, **options)).max() > 1


def test_a_noise_target_must_start_within_its_path(smoke_run):
    generator = generation.load(smoke_run)
    generator.config.unlock()
    generator.config.flow.target = "noise"
    options = {"seed": 0, "steps": 2, "guidance": 1.0, "frames": 8, "height": 32, "width": 32}
    with pytest.raises(UsageError, match="'noise' cannot be sampled at t = 0"):
        generator(["x"], **options)
    generator.config.sampling.start = 0.01
    assert generator(["x"], **options).shape == (1, 8, 32, 32, 3)


def test_a_run_of_another_path_target_coupling_and_design_trains_and_samples(smoke_run, tmp_path):
    """What Movie Gen does not do: one config value each."""
    other = {
        "flow.path": "variance_preserving:zero_terminal_snr=true",
        "flow.target": "rotation",
        "flow.times": "uniform",
        "flow.coupling": "optimal_transport",
        "flow.stratified": "true",
        "flow.per_frame": "true",
        "sampling.solver": "dpm_solver",
        "sampling.schedule": "cosine",
        "sampling.guidance_shape": "interval:low=0.2,high=0.8",
        "sampling.guidance_rescale": "0.5",
        "model.design.positions": "rotary",
        "model.design.norm": "layer",
        "model.design.text": "in_context",
    }
    flags = [f"--config.{name}={value}" for name, value in other.items()]
    data = ["--config.data.source=cache", f"--config.data.path={smoke_run / 'latents'}"]
    common = [f"--config={TEXT_TO_VIDEO}", f"--workdir={tmp_path}", f"--config.autoencoder.run={smoke_run}"]
    train.main([*common, *data, *flags, "--config.steps=2"])
    sample.main([f"--run={tmp_path}", "--prompt=a red circle moves left", f"--out={tmp_path / 'x.mp4'}"])
    assert video.probe(tmp_path / "x.mp4").frames == 8


def test_a_finished_run_that_goes_on_is_sampled_from_its_checkpoints(smoke_run, tmp_path):
    run = tmp_path / "longer"
    shutil.copytree(smoke_run, run, ignore=shutil.ignore_patterns("latents", "autoencoder_run"))
    config = run_folder.read_config(run).unlock()
    config.steps = 40
    run_folder.write_config(run, config)
    (run / "weights.safetensors").write_bytes(b"older than the checkpoints")
    assert generation.load(run).steps == 20


def test_other_lengths_and_sizes_within_the_tables_sample(smoke_run):
    generator = generation.load(smoke_run)
    options = {"seed": 0, "steps": 2, "guidance": 1.0}
    assert generator(["x"], frames=3, height=16, width=32, **options).shape == (1, 3, 16, 32, 3)


def test_evaluation_scores_and_the_report_shows_them(smoke_run, tmp_path):
    run = tmp_path / "moved"  # a moved run still samples
    shutil.copytree(smoke_run, run, ignore=shutil.ignore_patterns("latents", "autoencoder_run", "checkpoints"))
    evaluate.main([f"--run={run}", "--prompts=4", "--seeds=2"])
    scores = json.loads((run / "evaluation.json").read_text())
    own = ("bounce/colour", "bounce/shape", "bounce/direction", "validation/flow_loss")
    for name in (*own, "autoencoder/psnr", "reader/ground_truth/shape"):
        assert set(scores[name]) == {"mean", "low", "high", "n"} and scores[name]["n"] > 0
        assert scores[name]["low"] <= scores[name]["mean"] <= scores[name]["high"]
    assert scores["bounce/shape"]["n"] == 8 and scores["chance/shape"]["mean"] == 0.25
    assert scores["reader/ground_truth/shape"]["mean"] > 0.95
    rows = json.loads((run / "samples" / "scores.json").read_text())
    assert len(rows) == 8 and {row["seed"] for row in rows} == {0, 1}
    assert scores["bounce/shape"]["mean"] == np.mean([row["scores"]["shape"] for row in rows])
    report.main([f"--run={run}"])
    page = (run / "report.html").read_text()
    assert rows[0]["prompt"] in page and "data:video/mp4" in page
    (run / "protocol.json").unlink()
    evaluate.main(["--run", str(run), "--only", "loss"])
    assert json.loads((run / "evaluation.json").read_text()) == {name: scores[name] for name in own[-1:]}
    assert run_folder.is_evaluated(run, ["--only=loss"])
    said = json.loads((run / "protocol.json").read_text())
    assert (said["split"], said["clips"]) == ("held out", scores["validation/flow_loss"]["n"])
    with pytest.raises(UsageError, match="--only= names '': use autoencoder"):
        evaluate.main([f"--run={run}", "--only="])
    with pytest.raises(UsageError, match="--only=los names 'los': use autoencoder, loss, samples"):
        evaluate.main([f"--run={run}", "--only=los"])
    for parts in ("loss", "autoencoder,loss"):
        with pytest.raises(UsageError, match="is of an autoencoder and has no loss to score"):
            evaluate.main([f"--run={smoke_run / 'autoencoder_run'}", f"--only={parts}"])


def test_a_shipped_run_is_small_and_samples_nearly_the_same(smoke_run, tmp_path):
    (tmp_path / "shipped" / "samples").mkdir(parents=True)
    (tmp_path / "shipped" / "samples" / "of_another_run.mp4").touch()
    ship(smoke_run, tmp_path / "shipped", recipe="a script")
    assert not (tmp_path / "shipped" / "samples" / "of_another_run.mp4").exists()
    provenance = json.loads((tmp_path / "shipped" / "provenance.json").read_text())
    assert provenance["recipe"] == "a script" and "command" not in provenance
    assert str(tmp_path.parent) not in (tmp_path / "shipped" / "config.json").read_text()
    options = {"seed": 0, "steps": 4, "guidance": 2.0, "frames": 8, "height": 32, "width": 32}
    whole, half = (generation.load(run)(["a red star"], **options) for run in (smoke_run, tmp_path / "shipped"))
    assert np.abs(whole.astype(int) - half.astype(int)).mean() < 1.0  # float16 weights, 8-bit levels


def test_a_run_samples_where_its_kernel_is_not(smoke_run, tmp_path):
    shutil.copytree(smoke_run, tmp_path / "run")
    config = run_folder.read_config(smoke_run)
    config.model.kernel = "splash"
    run_folder.write_config(tmp_path / "run", config)
    options = {"seed": 0, "steps": 2, "guidance": 2.0, "frames": 8, "height": 32, "width": 32}
    here, there = (generation.load(run)(["a red star"], **options) for run in (smoke_run, tmp_path / "run"))
    np.testing.assert_array_equal(here, there)


def test_a_run_that_is_not_finished_is_not_shipped(smoke_run, tmp_path):
    shutil.copytree(smoke_run, tmp_path / "run")
    (tmp_path / "run" / "finished.json").unlink()
    with pytest.raises(UsageError, match="is not finished: train it for its 20 steps"):
        ship(tmp_path / "run", tmp_path / "shipped", recipe="a script")
    assert not (tmp_path / "shipped").exists()


def with_other_statistics(autoencoder, out):
    """The same weights, whose latents another normalisation scales."""
    shutil.copytree(autoencoder, out)
    card = files.read_record(out / "autoencoder.json")
    card["statistics"]["std"] = [2 * value for value in card["statistics"]["std"]]
    files.write_record(out / "autoencoder.json", card)


def test_a_cache_made_once_serves_a_run_and_refuses_another_autoencoder(smoke_run, tmp_path):
    cache, common = tmp_path / "cache", [f"--config={TEXT_TO_VIDEO}", f"--config.autoencoder.run={smoke_run}"]
    encode.main([*common, f"--out={cache}"])
    data = ["--config.data.source=cache", f"--config.data.path={cache}"]
    train.main([*common, *data, f"--workdir={tmp_path / 'run'}", "--config.steps=2"])
    # The same clips in the same order as in a run that encodes for itself.
    own, cached = read_metrics(smoke_run)[0], read_metrics(tmp_path / "run")[0]
    assert own["loss"] == cached["loss"]
    train.main([f"--config={AUTOENCODER}", f"--workdir={tmp_path / 'other'}", "--config.steps=1", "--config.seed=5"])
    other = [f"--config={TEXT_TO_VIDEO}", f"--config.autoencoder.run={tmp_path / 'other'}"]
    with pytest.raises(Exception, match="another autoencoder"):
        train.main([*other, *data, f"--workdir={tmp_path / 'bad'}"])
    for name, value, was in (("frames", 16, 8), ("fps", 4.0, 8.0), ("width", 40, 32)):
        with pytest.raises(UsageError, match=f"clips with {name} = {was}.*give --config.data.{name}={was}"):
            train.main([*common, *data, f"--workdir={tmp_path / name}", f"--config.data.{name}={value}"])
    with pytest.raises(UsageError, match=r"clips with captions = short.*give --config.data.captions=short"):
        train.main([*common, *data, f"--workdir={tmp_path / 'long'}", "--config.data.captions=long"])
    with pytest.raises(UsageError, match="of an autoencoder that is trained already: name its run"):
        train.main([common[0], *data, f"--workdir={tmp_path / 'unnamed'}"])
    shutil.rmtree(cache)
    encode.main([*common, f"--out={cache}", "--config.seed=1"])
    with pytest.raises(UsageError, match="The cache of latents is not the one that .*/run began with"):
        train.main([*common, *data, f"--workdir={tmp_path / 'run'}", "--config.steps=3"])
    with_other_statistics(smoke_run / "autoencoder", tmp_path / "scaled" / "autoencoder")
    with pytest.raises(UsageError, match="another autoencoder"):
        train.main(
            [f"--config={TEXT_TO_VIDEO}", f"--config.autoencoder.run={tmp_path / 'scaled'}", *data]
            + [f"--workdir={tmp_path / 'scaled_run'}"]
        )


def test_own_videos_train_from_a_folder(smoke_run, tmp_path):
    from tests.real_clips import real_clip

    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("bikes", "carphone_pristine"):
        shutil.copy(real_clip(f"{name}.mp4"), folder / f"{name}.mp4")
        (folder / f"{name}.txt").write_text(f"a clip of {name}")
    (folder / "broken.mp4").write_bytes((folder / "bikes.mp4").read_bytes()[:20_000])
    (folder / "broken.txt").write_text("cut short")
    data = ["--config.data.source=folder", f"--config.data.path={folder}"]
    auto, run = tmp_path / "autoencoder", tmp_path / "run"
    train.main([f"--config={AUTOENCODER}", f"--workdir={auto}", "--config.steps=2", *data])
    command = [f"--config={TEXT_TO_VIDEO}", f"--workdir={run}", f"--config.autoencoder.run={auto}", *data]
    train.main([*command, "--config.steps=2"])
    captions = json.loads((run / "latents" / "part-00000.json").read_text())["captions"]
    assert set(captions) == {"a clip of bikes", "a clip of carphone_pristine"}
    sample.main([f"--run={run}", "--prompt=a clip of bikes", f"--out={tmp_path / 'x.mp4'}"])
    assert video.probe(tmp_path / "x.mp4").frames == 8
    evaluate.main([f"--run={run}"])
    scores = json.loads((run / "evaluation.json").read_text())
    assert scores["autoencoder/psnr"]["n"] > 10 and not any(name.startswith("bounce") for name in scores)
    rows = json.loads((run / "samples" / "index.json").read_text())
    assert len(rows) == min(scores["autoencoder/psnr"]["n"], 16) and {row["prompt"] for row in rows} == set(captions)
    assert json.loads((run / "protocol.json").read_text())["split"] == "the first ones, not held out"
    others = tmp_path / "others"
    others.mkdir()
    shutil.copy(folder / "bikes.mp4", others / "bikes.mp4")
    (others / "bikes.txt").write_text("a clip of bikes")
    train.main([*command, "--config.steps=3", f"--config.data.test_path={others}"])
    evaluate.main([f"--run={run}", "--only=loss", "--clips=1"])
    said = json.loads((run / "protocol.json").read_text())
    assert (said["source"], said["split"]) == (str(others), "held out")
    found = json.loads((run / "evaluation.json").read_text())["validation/flow_loss"]
    assert said["clips"] == found["n"] == 1 and found["low"] is None  # one clip tells nothing of their spread


@pytest.mark.slow
def test_a_state_that_rests_in_host_memory_trains_and_resumes_to_the_same_bits(tmp_path):
    losses = {}
    for names in ("()", "ema,mu"):
        run = tmp_path / names
        for steps in (5, 8):
            command = [f"--config={AUTOENCODER}", f"--workdir={run}", f"--config.steps={steps}"]
            train.main([*command, f"--config.host_memory={names}"])
        losses[names] = [line["loss"] for line in read_metrics(run)]
    assert losses["ema,mu"] == losses["()"] and len(losses["()"]) == 8
