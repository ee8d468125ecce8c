"""vidflow ablate: arms that differ in one value, tuned, repeated and compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats

from vidflow import ablate
from vidflow.errors import UsageError
from vidflow.metrics import intervals, paired
from vidflow.reporting import ablations
from vidflow.tasks import ablating
from vidflow.tasks.ablating import Ablation, Arm
from vidflow.training import run_folder

ROOT = Path(__file__).parents[1]
FILE = """
from vidflow import config as configs
from vidflow.tasks.ablating import Ablation, Arm

def get_config(arg=""):
    return configs.load("{root}/experiments/bounce/{experiment}:smoke")

def ablation():
    return Ablation(({arms}), matched="{matched}", rates=({rates}), seeds={seeds}, {more})
"""
LATER = 'Arm("first"), Arm("later", {"text.dropout": 0.2})'


def file(tmp_path, arms=LATER, matched="steps", rates="1e-3, 2e-3", seeds=2, experiment="text_to_video.py", more=""):
    path = tmp_path / "experiment.py"
    said = {"arms": arms, "matched": matched, "rates": rates, "seeds": seeds, "experiment": experiment, "more": more}
    path.write_text(FILE.format(root=ROOT, **said))
    return str(path)


def row(arm, seed, rate, loss, **more):
    common = {"arm": arm, "seed": seed, "loss": loss, "loss_of": "validation", "parameters": 10, "flops": 1e9}
    common |= {"tokens": 5, "changed": {} if arm == "first" else {"text.dropout": 0.2}, "together": "", "commit": "abc"}
    return common | {"config": {"optimizer.learning_rate": rate}} | more


def test_differences_are_paired():
    ours, theirs = [1.0, 2.0, 3.5], [0.5, 1.6, 2.9]
    found = paired.difference(ours, theirs)
    assert found.mean == pytest.approx(0.5) and found.low < 0.5 < found.high
    assert found.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found.p < 0.05 and stats.ttest_ind(ours, theirs).pvalue > 0.5  # seeds differ by more than arms


@pytest.mark.parametrize(
    ("ours", "theirs", "mean", "p"),
    [
        ([0.9], [1.0], -0.1, np.nan),
        ([191 / 192, 190 / 192, 189 / 192], [192 / 192, 191 / 192, 190 / 192], -1 / 192, np.nan),
        ([0.1 + 0.2, 0.5], [0.3, 0.5], 0.0, 1.0),  # nothing but rounding
    ],
)
def test_pairs_that_show_no_spread_have_no_interval(ours, theirs, mean, p):
    found = paired.difference(ours, theirs)
    assert found.mean == pytest.approx(mean) and np.isnan([found.low, found.high]).all()
    assert found.p == pytest.approx(p, nan_ok=True)


def test_net_wins_count_prompts_alike():
    assert paired.net_win_rate([[1.0, 1.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 1.0]]) == 0
    assert paired.net_win_rate([[1.0, 1.0], [1.0]], [[0.0, 1.0], [0.5]]) == pytest.approx((0.5 + 1) / 2)
    assert paired.net_win_rate([[1.0], [1.0], [0.0], [1.0]], [[0.0], [0.0], [1.0], [1.0]]) == pytest.approx(0.25)


def test_samples_are_paired_by_the_clip_that_they_tell_of_in_whatever_words():
    def rows(words, shares):
        scores = [{"colour": share > 0, "shape": share > 0.5} for share in shares]
        return [{"prompt": p, "seed": s, "scores": scores.pop(0)} for s in (0, 1) for p in words]

    ours = ablating.right(rows(["red ball", "red ball", "star"], [1.0, 0.0, 0.5, 1.0, 0.5, 0.0]))
    theirs = ablating.right(rows(["a red ball", "one red ball", "a star"], [1.0, 1.0, 0.5, 0.0, 0.5, 0.0]))
    assert ours == [[1.0, 1.0], [0.0, 0.5], [0.5, 0.0]]
    assert paired.net_win_rate(ours, theirs) == pytest.approx((1 - 1) / 6)
    assert paired.net_win_rate(ours, ablating.right(rows(["x", "y", "z"], [1.0, 0.0, 0.0, 1.0, 0.5, 0.0]))) > 0


def test_the_table_takes_the_best_rate_of_the_first_seed_and_pairs_seeds():
    rows = [row("first", 0, 1e-3, 2.0), row("first", 0, 2e-3, 1.0, right=[[1.0]]), row("first", 0, 4e-3, 3.0)]
    rows += [row("first", 1, 2e-3, 5.0, right=[[0.5]])]
    rows += [row("later", 0, 1e-3, 0.9, right=[[1.0]]), row("later", 0, 2e-3, float("nan"))]
    rows += [row("later", 1, 1e-3, 4.8, right=[[1.0]])]
    ablation = Ablation((Arm("first"), Arm("later")), "steps", (1e-3, 2e-3, 4e-3), measures=("loss",))
    means, said, differences, meant = ablations.as_markdown(rows, ablation).rstrip().split("\n\n")
    assert "best of 0.001, 0.002, 0.004 with the first seed" in said and "equal steps" in said
    first, later = means.splitlines()[2:]
    assert first.startswith("| first | – | 2 | 0.002 | 10 | 1e+09 | 3 [")
    assert later.startswith("| later | `text.dropout=0.2` | 2 | 0.001* | 10 | 1e+09 | 2.85 [")
    found = paired.difference([0.9, 4.8], [1.0, 5.0])
    (line,) = differences.splitlines()[2:]
    assert line.startswith(f"| later | -0.15 [{found.low:+.3g}, {found.high:+.3g}], p = {found.p:.2g} | +50.0% [")
    assert "Net wins" in meant
    other = [row | ({"right": [[1.0], [1.0]]} if row["arm"] == "later" else {}) for row in rows]
    assert "| – |\n" in ablations.as_markdown(other, ablation)


def test_contrasts_are_means_over_pairs_of_arms_seed_by_seed():
    losses = {"a": (1.0, 2.0), "b": (1.5, 2.7), "c": (4.0, 6.0), "d": (4.3, 6.1)}
    rows = [row(arm, seed, 1e-3, loss) for arm, both in losses.items() for seed, loss in enumerate(both)]
    arms = tuple(map(Arm, losses))
    contrasts = {"b for a, d for c": (("b", "a"), ("d", "c"))}
    ablation = Ablation(arms, "steps", (1e-3,), measures=("loss",), seeds=2, contrasts=contrasts)
    head, line = ablations.as_markdown(rows, ablation).rstrip().split("\n\n")[-2].splitlines()[::2]
    found = paired.difference([(0.5 + 0.3) / 2, (0.7 + 0.1) / 2], [0.0, 0.0])
    assert head == "| change | loss |" and found.mean == pytest.approx(0.4)
    assert line.startswith("| b for a, d for c | +0.4 [")


BOTH = (Arm("first"), Arm("later"))


def test_one_seed_and_equal_seeds_have_no_interval():
    rows = [row("first", 0, 1e-3, 2.0), row("later", 0, 1e-3, 1.9)]
    means, _, differences, _ = ablations.as_markdown(rows, Ablation(BOTH, "steps", (1e-3,), ("loss",))).split("\n\n")
    assert "| 2 [–] |" in means and "| later | -0.1 [–], p = – |" in differences
    rows += [row(arm, 1, 1e-3, loss, right=[[1.0]]) for arm, loss in (("first", 2.0), ("later", 1.9))]
    rows = [row | {"right": [[1.0]]} for row in rows]
    differences = ablations.as_markdown(rows, Ablation(BOTH, "steps", (1e-3,), ("loss",))).split("\n\n")[2]
    assert "| later | -0.1 [–], p = – | +0.0% [–] |" in differences


def test_shares_stay_between_0_and_1_and_equal_ones_are_not_certain():
    shares = {"first": (1.0, 1.0, 1.0), "later": (1.0, 1.0, 0.9896)}
    rows = [row(arm, seed, 1e-3, 2.0 + seed) for arm in shares for seed in range(3)]
    rows = [each | {"bounce/shape": shares[each["arm"]][each["seed"]], "right": 64 * [[1.0]]} for each in rows]
    ablation = Ablation(BOTH, "steps", (1e-3,), ("loss", "bounce/shape"))
    means, said = ablations.as_markdown(rows, ablation).split("\n\n")[:2]
    assert "3 [0.5159, 5.484] | 1 [0.9434, 1] |" in means and "Wilson's for the prompts of one" in said
    assert f"[{0.9965333 - 4.302653 * 0.0034667:.4g}, 1] |" in means
    named = [each | {"prompts": {"bounce/shape": 16}} for each in rows]  # by 16 of the 64 prompts
    low = intervals.proportion([1.0] * 16).low
    assert f"| 1 [{low:.4g}, 1] |" in ablations.as_markdown(named, ablation)
    without = [{key: value for key, value in each.items() if key != "right"} for each in rows]
    assert "| 1 [–] |" in ablations.as_markdown(without, ablation)


def test_a_row_says_how_many_prompts_are_behind_a_score(tmp_path, monkeypatch):
    """Of three prompts, each sampled with two seeds, two name a size."""
    (folder := tmp_path / "run" / "samples").mkdir(parents=True)
    shown = [{"prompt": p, "seed": s, "scores": {"shape": True}} for s in (0, 1) for p in "abc"]
    (folder / "scores.json").write_text(json.dumps(shown))
    (folder.parent / "evaluation.json").write_text('{"bounce/shape": {"n": 6}, "bounce/size": {"n": 4}}')
    (folder.parent / "metrics.jsonl").write_text('{"loss": 1.0}\n')
    monkeypatch.setattr("vidflow.tasks.sweeping.rows", lambda *_: [{}])
    point = ablating.Point("x.py", (), (), ConfigDict(), "as it is", "run")
    found = ablating.row(point, ablating.Planned("first", "x.py", {}, {}, ""), tmp_path, ["--only=samples"])
    assert found["prompts"] == {"bounce/shape": 3, "bounce/size": 2} and found["right"] == [[1.0, 1.0]] * 3


def test_samples_of_videos_without_a_known_truth_have_no_wins(tmp_path, monkeypatch):
    (folder := tmp_path / "run" / "samples").mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps([{"prompt": "a", "seed": 0, "scores": {}}]))
    (folder.parent / "evaluation.json").write_text("{}")
    (folder.parent / "metrics.jsonl").write_text('{"loss": 1.0}\n')
    monkeypatch.setattr("vidflow.tasks.sweeping.rows", lambda *_: [{}])
    point = ablating.Point("x.py", (), (), ConfigDict(), "as it is", "run")
    found = ablating.row(point, ablating.Planned("first", "x.py", {}, {}, ""), tmp_path, ["--only=samples"])
    assert "right" not in found


def test_steps_are_matched_to_the_flops_of_the_first_arm(tmp_path):
    arms = 'Arm("three"), Arm("two", {"model.design.mlp": "gelu"})'
    overrides = (("steps", "1000"),)
    ablation, (three, two) = ablating.plan(file(tmp_path, arms, matched="flops"), overrides)
    assert two.changed == {"model.design.mlp": "gelu"} and three.changed == {}
    first, other = (ablating.runs(ablation, [arm], overrides)[0].point.config for arm in (three, two))
    assert first.steps == 1000 < other.steps
    jobs = [ablating.planning.job(config, "train", ablating.planning.make_mesh()) for config in (first, other)]
    flops = [job.model_flops * config.steps for job, config in zip(jobs, (first, other), strict=True)]
    assert flops[1] == pytest.approx(flops[0], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": 'Arm("first"),'}, "needs two arms"),
        ({"arms": LATER.replace("0.2", "0.1")}, "'later' of .* differs from 'first' in nothing"),
        ({"arms": 'Arm("a"), Arm("b", {"steps": 3, "batch_size": 4})'}, "'b' .* 'a' in batch_size, steps: change one"),
        ({"arms": 'Arm("a"), Arm("b", {"model.size": "demo"})', "matched": "parameters"}, "'b' has .* or match steps"),
        ({"arms": 'Arm("a"), Arm("b", {"model.sice": "demo"})'}, "did you mean 'model.size'"),
        ({"matched": "hours"}, "not by 'hours'"),
        ({"more": 'contrasts={"both": (("first", "late"),)}'}, "A contrast of .* names 'late': did you mean 'later'"),
        ({"arms": f'{LATER}, Arm("later", {{"text.dropout": 0.3}})'}, "Two arms of .* have the name 'later'"),
    ],
)
def test_what_is_no_ablation_is_one_sentence(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        ablating.plan(file(tmp_path, **changes), ())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("first", 0, 1e-3, 1.0), row("last", 0, 1e-3, 1.0)], "has an arm 'last', which --config does not have"),
        ([row("first", 0, 1e-3, 1.0), row("later", 1, 1e-3, 1.0)], "has no run of 'later' with the first seed: finish"),
        ([row("first", 0, 1e-3, 1.0), row("later", 0, 1e-3, 1.0)], "A row has no metric 'bounce/colour'"),
    ],
)
def test_the_rows_of_another_table_are_one_sentence(tmp_path, rows, message):
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match=message):
        ablate.main([f"--config={file(tmp_path)}", f"--results={tmp_path / 'results.jsonl'}"])


def test_the_first_arm_of_a_table_is_that_of_the_ablation_in_whatever_order_rows_are():
    rows = [row("later", 0, 1e-3, 0.9), row("first", 0, 1e-3, 2.0)]
    rows += [row("later", 1, 1e-3, 0.8), row("first", 1, 1e-3, 2.2)]
    ablation = Ablation((Arm("first"), Arm("later")), "steps", (1e-3,), measures=("loss",))
    assert ablations.as_markdown(rows, ablation) == ablations.as_markdown(rows[::-1], ablation)


@pytest.mark.parametrize(
    ("table", "results"),
    [
        ("ablations/blocks", "ablations/results/blocks"),
        ("ablations/objective", "moviegen/results/objective"),
        ("autoencoder/ablation", "autoencoder/results/bounce"),
    ],
)
def test_the_tables_of_the_project_are_made_again_from_their_results(table, results, capsys):
    where = ROOT / "experiments"
    ablate.main([f"--config={where / table}.py", f"--results={where / results}.jsonl"])
    assert "| arm | changed |" in capsys.readouterr().out


def test_an_override_is_of_the_first_arm_too_and_an_arm_keeps_its_own_value(tmp_path):
    overrides = (("text.dropout", "0.3"),)
    ablation, arms = ablating.plan(file(tmp_path), overrides)
    found = [run.point.config.text.dropout for run in ablating.runs(ablation, arms, overrides)]
    assert found == [0.3] * 4 + [0.2] * 4 and arms[1].changed == {"text.dropout": 0.2}


@pytest.mark.parametrize("key", ["seed", "optimizer.learning_rate"])
def test_what_the_plan_varies_cannot_be_overridden(tmp_path, key):
    with pytest.raises(UsageError, match=f"--config.{key} is for the ablation to vary"):
        ablating.plan(file(tmp_path), ((key, "1"),))


@pytest.mark.parametrize(
    "changes", [{"arms": f'{LATER}, Arm("again", {{"text.dropout": 0.2}})'}, {"rates": "1e-3, 1e-3"}]
)
def test_a_run_that_an_ablation_has_twice_is_refused(tmp_path, changes):
    ablation, arms = ablating.plan(file(tmp_path, **changes), ())
    with pytest.raises(UsageError, match="one run twice, .* of '(first|later)' and .* of '(first|again)'"):
        ablating.runs(ablation, arms, ())


def test_a_rate_that_diverges_is_reported_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    def run(points, progress, jobs, done):
        """Of runs of 4 steps whose loss is their rate, and which diverge above 1."""
        for point in points:
            rate = point.config.optimizer.learning_rate
            (folder := progress.runs / point.folder).mkdir(exist_ok=True)
            lines = [{"step": step, "loss": rate, "skipped_in_a_row": 2 * (rate > 1)} for step in range(4)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            (folder / "provenance.json").write_text('{"commit": "abc", "device": "1 x cpu"}')
            if rate < 1:
                run_folder.mark_finished(folder, 4)
            done(point, codes.get(rate, 0))

    monkeypatch.setattr("vidflow.tasks.local_points.run", run)
    arms, more = 'Arm("first"), Arm("more", {"losses.kl": 1e-3})', 'measures=("loss",), evaluation=()'
    spec = file(tmp_path, arms, rates="3.0, 0.2, 0.1", experiment="autoencoder.py", more=more)
    workdir, codes = tmp_path / "runs", {3.0: 2}
    flags = [f"--config={spec}", f"--workdir={workdir}", "--config.steps=4", "--config.stability.max_skips=2"]
    ablate.main(flags)
    assert "optimizer.learning_rate=3.0,seed=0 has diverged: see" in capsys.readouterr().out
    rows = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
    assert [(row["arm"], row["seed"], row["loss"]) for row in rows if row["loss"] < 0.2] == [
        ("first", 0, 0.1), ("first", 1, 0.1), ("more", 0, 0.1), ("more", 1, 0.1)
    ]  # fmt: skip
    codes = {3.0: 1}
    with pytest.raises(UsageError, match="These runs failed"):
        ablate.main([flags[0], f"--workdir={tmp_path / 'others'}", *flags[2:]])
    codes = {3.0: 2}
    spec = file(tmp_path, arms, rates="3.0,", experiment="autoencoder.py", more=more)
    with pytest.raises(UsageError, match="'first' has no finite loss at any learning rate"):
        ablate.main([f"--config={spec}", f"--workdir={tmp_path / 'none'}", *flags[2:]])


def test_a_seed_that_diverges_later_is_missing_and_said_so(tmp_path, capsys, monkeypatch):
    def run(points, progress, jobs, done):
        for point in points:
            lost = point.config.seed == 1 and point.config.losses.kl == 1e-3
            (folder := progress.runs / point.folder).mkdir(exist_ok=True)
            lines = [{"step": step, "loss": 0.1, "skipped_in_a_row": 2 * lost} for step in range(4)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            (folder / "provenance.json").write_text('{"commit": "abc", "device": "1 x cpu"}')
            if not lost:
                run_folder.mark_finished(folder, 4)
            done(point, 2 * lost)

    monkeypatch.setattr("vidflow.tasks.local_points.run", run)
    arms, more = 'Arm("first"), Arm("more", {"losses.kl": 1e-3})', 'measures=("loss",), evaluation=()'
    spec = file(tmp_path, arms, rates="0.1,", seeds=3, experiment="autoencoder.py", more=more)
    ablate.main([f"--config={spec}", f"--workdir={tmp_path}", "--config.steps=4", "--config.stability.max_skips=2"])
    printed = capsys.readouterr().out
    assert "seed=1 has diverged: see" in printed
    assert "more has 2 of 3 seeds: the others diverged at this rate, or have not run." in printed
    assert "first has" not in printed and "| more | `losses.kl=0.001` | 2 |" in printed


def test_a_misspelt_measure_is_told_after_the_first_run(tmp_path, monkeypatch):
    monkeypatch.setattr("vidflow.tasks.local_points.run", lambda points, progress, jobs, done: done(points[0], 0))
    monkeypatch.setattr("vidflow.tasks.local_points.collect", lambda *_: [row("first", 0, 1e-3, 1.0)] * looked.pop(0))
    looked = [False, True]
    spec = file(tmp_path, more='measures=("los",)')
    with pytest.raises(UsageError, match="has no metric 'los': did you mean 'loss'"):
        ablate.main([f"--config={spec}", f"--workdir={tmp_path / 'runs'}"])
    assert looked == []


@pytest.mark.slow
def test_arms_are_trained_tuned_and_compared(tmp_path, capsys):
    arms = 'Arm("first"), Arm("more", {"losses.kl": 1e-3})'
    more = 'measures=("autoencoder/psnr",), evaluation=("--clips=2",)'
    spec = file(tmp_path, arms, rates="1e-3,", experiment="autoencoder.py", more=more)
    workdir = tmp_path / "runs"
    flags = [f"--config={spec}", f"--workdir={workdir}", "--config.steps=2"]
    ablate.main(flags)
    rows = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
    assert [(row["arm"], row["seed"], row["steps"]) for row in rows] == [
        ("first", 0, 2), ("first", 1, 2), ("more", 0, 2), ("more", 1, 2)
    ]  # fmt: skip
    assert all(np.isfinite(row["autoencoder/psnr"]) for row in rows)
    assert (workdir / "curves.png").stat().st_size > 5000
    times = {path: path.stat().st_mtime_ns for path in workdir.glob("*/finished.json")}
    capsys.readouterr()
    ablate.main([flags[0], f"--results={workdir / 'results.jsonl'}"])
    assert capsys.readouterr().out.rstrip() == (workdir / "table.md").read_text().rstrip()
    (tmp_path / "results.jsonl").write_text('{"parameters": 1, "flops": 1, "loss": 1}')
    with pytest.raises(UsageError, match="has runs of no arm"):
        ablate.main([flags[0], f"--results={tmp_path / 'results.jsonl'}"])
    ablate.main(flags)
    assert times == {path: path.stat().st_mtime_ns for path in workdir.glob("*/finished.json")}
    other, second = 'Arm("first"), Arm("less", {"losses.kl": 1e-5})', tmp_path / "second"
    (other_file := tmp_path / "other").mkdir()
    spec = file(other_file, other, rates="1e-3,", experiment="autoencoder.py", more=more)
    ablate.main([f"--config={spec}", f"--workdir={second}", f"--runs={workdir}", *flags[2:]])
    assert not list(second.glob("*/")) and len(list(workdir.glob("*/finished.json"))) == 6
    assert times.items() <= {path: path.stat().st_mtime_ns for path in workdir.glob("*/finished.json")}.items()
    shared = [json.loads(line) for line in (second / "results.jsonl").read_text().splitlines()]
    assert [row["arm"] for row in shared] == ["first", "first", "less", "less"] and shared[:2] == rows[:2]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("results.jsonl", "curves.png"):
        shutil.copy(workdir / name, elsewhere)
    before = (elsewhere / "curves.png").stat().st_mtime_ns
    ablate.main([flags[0], f"--workdir={elsewhere}", *flags[2:]])
    assert not list(elsewhere.glob("*/")) and (elsewhere / "curves.png").stat().st_mtime_ns > before
    assert [(elsewhere / name).read_text() for name in ("results.jsonl", "table.md")] == [
        (workdir / name).read_text() for name in ("results.jsonl", "table.md")
    ]


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "experiments/ablations").glob("*.py")), ROOT / "experiments/autoencoder/ablation.py"],
    ids=lambda path: path.stem,
)
def test_the_ablations_of_the_project_are_what_they_say(path):
    ablation, arms = ablating.plan(f"{path}:smoke", ())
    assert ablation.seeds >= 3 and len(arms) >= 2
    assert all(run.point.config.steps <= 40 for run in ablating.runs(ablation, arms, ()))
