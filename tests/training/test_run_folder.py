"""The run folder, its metrics and its weights."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vidflow.errors import UsageError
from vidflow.training import run_folder, weights
from vidflow.training.telemetry import Telemetry, read_metrics


def config(**leaves):
    return ConfigDict({"task": "x", "init_from": "", "steps": 10, "model": {"width": 8}, **leaves})


def test_a_new_folder_holds_config_and_provenance(tmp_path):
    run = tmp_path / "a" / "b"
    run_folder.prepare(run, config())
    assert run_folder.read_config(run).to_dict() == config().to_dict()
    provenance = json.loads((run / "provenance.json").read_text())
    assert {"commit", "command", "packages", "python"} <= set(provenance)
    assert provenance["packages"]["jax"]


def test_the_same_config_resumes_with_more_steps_and_another_is_refused(tmp_path):
    run_folder.prepare(tmp_path, config())
    run_folder.prepare(tmp_path, config(steps=20))
    assert run_folder.read_config(tmp_path).steps == 20
    with pytest.raises(UsageError, match=r"model.width = 8 and this config has 16"):
        run_folder.prepare(tmp_path, config(model={"width": 16}))


def test_where_and_how_a_run_computes_may_change_and_what_it_computes_may_not(tmp_path):
    def whole(mesh, threads, seed):
        own = {"mesh": {"data": mesh}, "data": {"threads": threads, "seed": seed}}
        return config(**own, autoencoder={"train": own})

    run_folder.prepare(tmp_path, whole(1, 2, 3))
    run_folder.prepare(tmp_path, whole(8, 4, 3))
    assert run_folder.read_config(tmp_path).mesh.data == 8
    with pytest.raises(UsageError, match="autoencoder.train.data.seed = 3 and this config has 4"):
        run_folder.prepare(tmp_path, whole(8, 4, 4))


def test_an_autoencoder_that_was_trained_is_trained_no_further(tmp_path):
    run_folder.prepare(tmp_path, config(autoencoder={"train": {"steps": 20}}))
    with pytest.raises(UsageError, match=r"autoencoder.train.steps = 20 and this config has 30"):
        run_folder.prepare(tmp_path, config(autoencoder={"train": {"steps": 30}}))


def test_a_length_of_text_may_be_corrected_until_a_step_is_kept(tmp_path):
    run_folder.prepare(tmp_path, config(text={"length": 64}))
    (tmp_path / "latents").mkdir()
    run_folder.prepare(tmp_path, config(text={"length": 128}))
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"text.length = 128 and this config has 64"):
        run_folder.prepare(tmp_path, config(text={"length": 64}))


@pytest.mark.parametrize(
    ("leaves", "may_change"),
    [
        ({"flow": {"coupling": "independent"}}, True),
        ({"flow": {"coupling": "optimal_transport"}}, False),
        ({"losses": {"adversarial": 0.1}, "discriminator": {"adaptive": True}}, False),
        ({"losses": {"adversarial": 0.1}, "discriminator": {"adaptive": False}}, True),
        ({"losses": {"adversarial": 0.0}, "discriminator": {"adaptive": True}}, True),
    ],
)
def test_microbatches_may_change_where_rows_do_not_depend_on_each_other(tmp_path, leaves, may_change):
    for name, wrap in (("own", lambda x: x), ("autoencoder", lambda x: {"autoencoder": {"train": x}})):
        run_folder.prepare(tmp_path / name, config(**wrap({"microbatches": 1, **leaves})))
        changed = config(**wrap({"microbatches": 2, **leaves}))
        if may_change:
            run_folder.prepare(tmp_path / name, changed)
        else:
            with pytest.raises(UsageError, match="microbatches = 1 and this config has 2"):
                run_folder.prepare(tmp_path / name, changed)


def test_a_resumed_run_remembers_how_it_was_started_before(tmp_path, monkeypatch):
    run_folder.prepare(tmp_path, config())
    run_folder.prepare(tmp_path, config())
    assert "earlier" not in json.loads((tmp_path / "provenance.json").read_text())
    monkeypatch.setattr("sys.argv", ["train.py", "--config=x y"])
    run_folder.prepare(tmp_path, config())
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert provenance["command"] == "train.py '--config=x y'" and len(provenance["earlier"]) == 1


def test_a_finished_run_is_not_relabelled_by_a_start_that_trains_nothing(tmp_path, monkeypatch):
    run_folder.prepare(tmp_path, config())
    run_folder.mark_finished(tmp_path, 10)
    before = (tmp_path / "provenance.json").read_text()
    monkeypatch.setattr("sys.argv", ["train.py", "--config=x y"])
    run_folder.prepare(tmp_path, config())
    assert (tmp_path / "provenance.json").read_text() == before
    run_folder.prepare(tmp_path, config(steps=20))
    assert len(json.loads((tmp_path / "provenance.json").read_text())["earlier"]) == 1


def test_an_evaluation_counts_for_its_own_flags_once_it_is_whole(tmp_path):
    flags = ["--only=loss"]
    with run_folder.evaluating(tmp_path, flags):
        assert not run_folder.is_evaluated(tmp_path, flags)
    assert run_folder.is_evaluated(tmp_path, flags) and not run_folder.is_evaluated(tmp_path, ["--only=samples"])
    with pytest.raises(UsageError), run_folder.evaluating(tmp_path, ["--only=samples"]):
        raise UsageError("no such part")
    assert not run_folder.is_evaluated(tmp_path, flags) and not run_folder.is_evaluated(tmp_path, ["--only=samples"])


@pytest.mark.parametrize(
    ("made", "is_kept"), [((), False), (("checkpoints/",), False), (("latents/recipe.json",), True)]
)
def test_a_command_that_is_refused_before_it_has_made_anything_has_no_run(tmp_path, made, is_kept):
    with pytest.raises(UsageError), run_folder.beginning(tmp_path):
        run_folder.prepare(tmp_path, config())
        for name in made:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
        raise UsageError("no such optimizer")
    assert (tmp_path / "config.json").exists() == is_kept
    with pytest.raises(UsageError), run_folder.beginning(tmp_path / "old"):
        raise UsageError("before there is a folder")
    run_folder.prepare(tmp_path, config())
    with pytest.raises(UsageError), run_folder.beginning(tmp_path):
        raise UsageError("of a run that was there before")
    assert (tmp_path / "config.json").exists()


def test_scores_of_a_run_that_ends_meanwhile_are_set_aside(tmp_path):
    run_folder.prepare(tmp_path, config())
    with pytest.raises(UsageError, match="was trained further meanwhile"), run_folder.evaluating(tmp_path, []):
        run_folder.mark_finished(tmp_path, 10)
        (tmp_path / "evaluation.json").write_text("{}")
    assert (tmp_path / "evaluation_unfinished.json").exists() and not (tmp_path / "evaluation.json").exists()
    assert not run_folder.is_evaluated(tmp_path, [])


@pytest.mark.parametrize("text", [None, "{", ""])
def test_a_folder_that_is_no_run_is_a_sentence(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"no run folder|config\.json is not what was written there"):
        run_folder.read_config(tmp_path)


def test_finished_means_finished_for_that_many_steps(tmp_path):
    assert not run_folder.is_finished(tmp_path, 10)
    run_folder.mark_finished(tmp_path, 10)
    assert run_folder.is_finished(tmp_path, 10) and not run_folder.is_finished(tmp_path, 20)


def test_scores_of_a_run_that_is_trained_further_are_not_taken_for_its_own(tmp_path):
    def names(*parts):
        return {path.name for path in tmp_path.iterdir() if path.name.startswith(parts)}

    for _ in range(2):
        run_folder.prepare(tmp_path, config())
        run_folder.mark_finished(tmp_path, 10)
        with run_folder.evaluating(tmp_path, []):
            (tmp_path / "evaluation.json").write_text("{}")
            (tmp_path / "samples").mkdir()
            (tmp_path / "samples" / "index.json").write_text("[]")
        run_folder.prepare(tmp_path, config())
        assert run_folder.is_evaluated(tmp_path, [])
        assert {"evaluation.json", "samples"} <= names("evaluation", "samples")
        run_folder.prepare(tmp_path, config(steps=20))
        assert names("evaluat", "samples", "finished") == {"evaluation_10.json", "samples_10"}
    run_folder.mark_finished(tmp_path, 20)
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(UsageError, match="has taken 20 steps already"):
        run_folder.prepare(tmp_path, config())
    assert names("evaluation", "finished") == {"evaluation.json", "evaluation_10.json", "finished.json"}
    assert run_folder.read_config(tmp_path).steps == 20


def test_scores_of_a_run_that_goes_on_before_its_end_are_set_aside(tmp_path):
    run_folder.prepare(tmp_path, config())
    (tmp_path / "evaluation.json").write_text("{}")
    run_folder.prepare(tmp_path, config())
    assert not (tmp_path / "evaluation.json").exists() and (tmp_path / "evaluation_unfinished.json").exists()


def test_scores_of_a_checkpoint_are_not_taken_for_those_of_the_end(tmp_path):
    run_folder.prepare(tmp_path, config())
    with run_folder.evaluating(tmp_path, []):
        (tmp_path / "evaluation.json").write_text("{}")
    run_folder.mark_finished(tmp_path, 10)
    assert not run_folder.is_evaluated(tmp_path, []) and not (tmp_path / "evaluation.json").exists()
    assert (tmp_path / "evaluation_unfinished.json").exists()
    (tmp_path / "evaluation.json").write_text("{}")
    run_folder.mark_finished(tmp_path, 10)
    assert (tmp_path / "evaluation.json").exists()


def telemetry(folder, start=0, every=2):
    rest = {"rows": 4, "flops": 1e9, "peak": None, "max_skips": 3, "examples": lambda step: [step, 7]}
    return Telemetry(folder, start=start, steps=10, every=every, window=2, **rest)


def metrics(loss, skips=0):
    counts = {"skipped": jnp.int32(skips), "skipped_in_a_row": jnp.int32(skips), "data": jnp.uint32(2**32 - 1)}
    by_time = jnp.array([jnp.inf if skips else loss, jnp.nan])
    return {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(1.0), "loss_by_time": by_time, **counts}


def test_metrics_are_one_line_a_step_with_null_where_there_is_no_number(tmp_path):
    log = telemetry(tmp_path)
    for step in range(3):
        log.step(step, metrics(step + 0.5))
    log.close()
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [0, 1, 2] and lines[2]["loss"] == 2.5
    assert lines[0]["loss_by_time/0"] == 0.5 and lines[0]["loss_by_time/1"] is None
    assert lines[0]["percent_of_peak"] is None and lines[0]["clips_per_second"] > 0
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_resuming_drops_lines_of_steps_that_run_again_and_a_line_cut_short(tmp_path):
    log = telemetry(tmp_path, every=1)
    for step in range(5):
        log.step(step, metrics(step))
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    log = telemetry(tmp_path, start=3, every=1)
    log.step(3, metrics(30.0))
    log.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(0, 0), (1, 1), (2, 2), (3, 30.0)]


def test_a_last_line_that_lost_its_end_alone_is_a_line(tmp_path):
    log = telemetry(tmp_path, every=1)
    for step in range(3):
        log.step(step, metrics(step))
    log.close()
    lines = tmp_path / "metrics.jsonl"
    lines.write_text(lines.read_text().rstrip("\n"))
    log = telemetry(tmp_path, start=3, every=1)
    log.step(3, metrics(3.0))
    log.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3]


def test_too_many_skips_in_a_row_stop_the_run_and_name_the_first_step_its_examples_and_times(tmp_path):
    log = telemetry(tmp_path, every=4)
    for step, skips in enumerate((0, 1, 2)):
        log.step(step, metrics(np.nan if skips else 1.0, skips))
    with pytest.raises(UsageError, match=r"1 to 3 were all skipped.* times 0 to 0.5\. Step 1 read examples 1, 7"):
        log.step(3, metrics(np.nan, 3))
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.0, None, None, None]  # all are on record


def test_the_mean_of_a_metric_looks_back_beyond_a_resume(tmp_path):
    log = telemetry(tmp_path, every=1)
    for step in range(3):
        log.step(step, metrics(step))
    log.close()
    log = telemetry(tmp_path, start=2, every=1)
    assert log.mean("loss") == 0.5
    log.step(2, metrics(6.0))
    assert log.mean("loss") == 3.5
    with pytest.raises(UsageError, match="'los' .config.checkpoint.best. was a number nowhere"):
        log.mean("los")


def test_whole_numbers_stay_whole(tmp_path):
    log = telemetry(tmp_path, every=1)
    log.step(0, metrics(1.0))
    assert read_metrics(tmp_path)[0]["data"] == 2**32 - 1
    assert '"skipped": 0,' in (tmp_path / "metrics.jsonl").read_text()


def test_weights_come_back_in_float32_under_their_names(tmp_path):
    params = {"a": {"kernel": np.ones((2, 3), np.float16)}, "b": np.arange(3, dtype=np.float32)}
    weights.save(tmp_path / "w.safetensors", params, {"steps": "7"})
    loaded, metadata = weights.load(tmp_path / "w.safetensors")
    assert metadata == {"steps": "7"} and loaded["a"]["kernel"].dtype == np.float32
    np.testing.assert_array_equal(loaded["b"], params["b"])
    weights.check_shapes(loaded, params, tmp_path)
    with pytest.raises(UsageError, match=r"'a/kernel' is \(2, 3\) there and \(3, 3\)"):
        weights.check_shapes(loaded, {**params, "a": {"kernel": np.ones((3, 3))}}, tmp_path)
    with pytest.raises(UsageError, match="'b' is"):
        weights.check_shapes({"a": loaded["a"]}, params, tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 50, -1])
def test_weights_cut_short_are_a_sentence(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    weights.save(path, {"a": np.ones((20, 20), np.float32)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        weights.load(path)
    with pytest.raises(UsageError, match="no weights at"):
        weights.load(tmp_path / "absent")
