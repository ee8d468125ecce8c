"""vidflow fit, from the results of a sweep to laws and figures."""

import json

import numpy as np
import pytest

from tests.scaling.synthetic import LIANG, isoflop
from vidflow import config as configs
from vidflow import fit
from vidflow.errors import UsageError
from vidflow.reporting import laws, losses
from vidflow.scaling.isoflop import Points
from vidflow.tasks import fitting, planning, results
from vidflow.tasks.nearest import nearest


def rows(**changes):
    points = isoflop(LIANG, seed=0)
    for index, (parameters, tokens, flops, loss) in enumerate(zip(*points[:4], strict=True)):
        row = {"name": f"point {index}", "parameters": parameters, "tokens": tokens, "flops": flops, "loss": loss}
        yield row | {"seed": 0, "commit": "0" * 40, "convention": "6ND", "bounce/shape": 0.3 * loss**-0.7} | changes


def write(tmp_path, rows):
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"--results={file}"


def call(tmp_path, rows, *flags):
    fit.main([write(tmp_path, rows), f"--out={tmp_path / 'laws'}", *flags])
    return json.loads((tmp_path / "laws" / "laws.json").read_text())


def test_laws_are_written_shown_and_tried_on_what_was_held_out(tmp_path, capsys):
    found = call(tmp_path, rows(), "--holdout=largest", "--metric=bounce/shape", "--predict=1e21")
    for name, exponent in (("parameters", 0.5681), ("tokens", 0.4319), ("loss", -0.0273), ("bounce/shape", 0.02)):
        assert found[name]["exponent"] == pytest.approx(exponent, abs=0.02)
        assert found[name]["low"] <= found[name]["exponent"] <= found[name]["high"]
        assert 0 < found[name]["coefficient_low"] <= found[name]["coefficient"] <= found[name]["coefficient_high"]
    assert found["runs"] == 35 and found["largest"] == pytest.approx(10**18.6, rel=0.01)
    held = {row["name"]: row for row in found["held_out"]}
    assert held["parameters"]["found"] == pytest.approx(0.0009 * 1e19**0.5681, rel=0.1)
    assert held["loss"]["predicted"] == pytest.approx(held["loss"]["found"], rel=2e-3)
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("  parameters") and "exponent in" in line]
    low, high = found["parameters"]["coefficient_low"], found["parameters"]["coefficient_high"]
    assert line.endswith(f"coefficient in [{low:.4g}, {high:.4g}]")
    assert "Liang et al. 2024: parameters 0.0009 C^0.5681, tokens 186.853 C^0.4319" in said
    assert "Liang et al. 2024, cross-attention: parameters C^0.54, tokens C^0.46" in said
    assert "held out: the budget of 1e+19" in said and "at 1e+21 FLOPs" in said
    assert "the nearest model is dit-xl, of " in said and "no model of the table is near" not in said
    assert "vidflow plan --config=experiments/moviegen/video.py:768px --config.model.size=dit-xl" in said
    assert "251 times the largest budget that was fitted and a guess" in said
    for name in ("losses", "laws", "residuals"):
        assert (tmp_path / "laws" / f"{name}.png").stat().st_size > 5000
    assert (tmp_path / "laws" / "losses.md").read_text().count("**") == 2 * 6  # the least of each budget


def test_the_losses_behind_the_laws_are_a_table():
    def row(size, flops, loss, rate, **more):
        config = {"optimizer.learning_rate": rate}
        return {"parameters": 2 * size, "transformer_parameters": size, "flops": flops, "loss": loss} | more | {
            "config": config
        }

    told = losses.as_markdown(
        [
            row(1000, 1.0e12, 0.5, 0.01),
            row(2000, 1.04e12, 0.4, 0.02, seed=0),
            row(2000, 1.04e12, 0.3, 0.01, seed=1),
            row(2000, 1.0e13, 0.2, 0.01),
        ]
    )
    assert told.splitlines() == [
        "| parameters | 1e+12 FLOPs | 1e+13 FLOPs |",
        "| --- | --- | --- |",
        "| 1,000 | 0.500 (0.01) | – |",
        "| 2,000 | **0.350** (0.01, 0.02, 2 seeds) | **0.200** (0.01) |",
    ]


@pytest.mark.parametrize("method", ["parametric", "envelope"])
def test_the_other_methods_write_their_laws_too(tmp_path, method, capsys):
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e8, 1e11, 12)))
    loss = 0.5 + 160 * n**-0.32 + 160 * d**-0.29
    columns = zip(n, d, 6 * n * d, loss, strict=True)
    found = call(
        tmp_path,
        [dict(zip(("parameters", "tokens", "flops", "loss"), row, strict=True)) for row in columns],
        f"--method={method}",
    )
    assert found["parameters"]["exponent"] == pytest.approx(0.29 / 0.61, abs=0.1)
    assert ("formula" in found) == (method == "parametric")
    assert (tmp_path / "laws" / "residuals.png").exists() == (method == "parametric")
    if method == "parametric":
        law, formula, said = found["loss"], found["formula"], capsys.readouterr().out
        assert law["floor_low"] <= law["floor"] <= law["floor_high"]
        for name, truth in (("floor", 0.5), ("a", 160), ("alpha", 0.32), ("b", 160), ("beta", 0.29)):
            assert formula[f"{name}_low"] <= formula[f"{name}_high"] and formula[name] == pytest.approx(truth, rel=1e-3)
            assert f"{name} in [{formula[f'{name}_low']:.4g}, " in said


def test_an_encoder_of_text_that_is_trained_along_is_no_part_of_the_size(tmp_path):
    def larger():
        for row in rows():
            encoder = row["parameters"] ** 0.5
            yield row | {"transformer_parameters": row["parameters"], "parameters": row["parameters"] + 1e4 * encoder}

    assert call(tmp_path, larger())["parameters"] == call(tmp_path, rows())["parameters"]


def test_flops_are_counted_as_asked(tmp_path):
    def counted():  # small models have more matrix products that 6ND leaves out
        for row in rows(convention="counted"):
            more = row["flops"] * (row["parameters"] / 1e9) ** -0.01
            yield row | {"flops": more, "flops_by": {"6ND": row["flops"], "counted": more}}

    plain, asked = call(tmp_path, counted()), call(tmp_path, counted(), "--convention=6ND")
    assert (asked["convention"], plain["convention"]) == ("6ND", "counted")
    assert asked["parameters"] == call(tmp_path, rows())["parameters"] != plain["parameters"]
    with pytest.raises(UsageError, match="--convention=6DN: point 0 has FLOPs only as 6ND, counted"):
        call(tmp_path, counted(), "--convention=6DN")


def test_a_budget_is_held_out_under_every_convention(tmp_path):
    """Budgets of equal FLOPs, counted with what 6ND leaves out, are not equal under 6ND, and are budgets still."""

    def of_chinchilla():
        for flops in np.geomspace(1e17, 1e19, 4):
            for n in 0.5 * flops**0.475 * np.exp(np.linspace(-1.5, 1.5, 7)):
                d = flops / (6 * n) * (n / 1e8) ** 0.1
                row = {"parameters": n, "tokens": d, "flops": flops, "loss": 0.5 + 160 * n**-0.32 + 160 * d**-0.29}
                yield row | {"convention": "counted", "flops_by": {"6ND": 6 * n * d, "counted": flops}}

    found = call(tmp_path, of_chinchilla(), "--convention=6ND", "--method=parametric", "--holdout=largest")
    held = {row["name"]: row["found"] for row in found["held_out"]}
    for row in found["held_out"]:
        assert row["predicted"] == pytest.approx(row["found"], rel=0.1)
        assert row["flops"] == pytest.approx(6 * held["parameters"] * held["tokens"], rel=0.02)
    with pytest.raises(UsageError, match="or count FLOPs as the sweep did"):
        call(tmp_path, of_chinchilla(), "--convention=6ND")


def test_whether_the_loss_ends_at_a_floor_is_said(tmp_path, capsys):
    for floor, said in ((0.0, "is not seen"), (0.05, "foretells too little"), (-0.02, "foretells too much")):
        call(tmp_path, [row | {"loss": row["loss"] ** 10 + floor} for row in rows()])
        assert said in capsys.readouterr().out


def test_the_many_points_of_an_envelope_say_nothing_of_a_floor(tmp_path, capsys):
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e8, 1e11, 12)))
    columns = zip(n, d, 6 * n * d, 160 * n**-0.32 + 160 * d**-0.29, strict=True)
    some = [dict(zip(("parameters", "tokens", "flops", "loss"), row, strict=True)) for row in columns]
    call(tmp_path, some, "--method=envelope")
    said = capsys.readouterr().out
    assert "floor" not in said and "foretells" not in said and "ever faster" not in said


def test_surfaces_through_all_of_their_pairs_give_no_rules(tmp_path, capsys):
    pairs = ((-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (0.2, 0.0), (0.0, 0.3))

    def tried():
        for row in rows():
            for x, y in pairs:
                config = {"optimizer.learning_rate": 1e-3 * np.exp(x), "batch_size": 64 * np.exp(y)}
                yield row | {"config": config, "loss": row["loss"] * (1 + 0.01 * (x * x + y * y))}

    assert "rules" not in call(tmp_path, tried())
    assert "go through all of their six pairs" in capsys.readouterr().out


def test_points_of_other_arguments_are_no_rates_of_one_model():
    def row(rate, loss, **arg):
        return {"parameters": 1, "tokens": 1, "flops": 1, "loss": loss, "config": {results.RATE: rate}} | arg

    some = [row(1e-3, 3.0, arg="text=a"), row(2e-3, 2.0, arg="text=a"), row(1e-3, 1.0, arg="text=b")]
    assert results.tuned(some) == some[1:]
    assert results.tuned([row(1e-3, 3.0), row(2e-3, 2.0)]) == [row(2e-3, 2.0)]  # of a table without arguments


def test_the_rate_tuned_for_a_model_counts_and_what_is_odd_is_told(tmp_path, capsys):
    several = [row | {"config": {"optimizer.learning_rate": 1e-3}} for row in rows()]
    several += [row | {"config": {"optimizer.learning_rate": 1e-2}, "loss": 1.1 * row["loss"]} for row in rows()]
    several[0]["commit"] = "f" * 40
    several.append(several[1] | {"loss": float("nan"), "name": "the lost one"})
    found = call(tmp_path, several)
    assert found["parameters"]["exponent"] == pytest.approx(0.5681, abs=0.01) and found["runs"] == 42
    said = capsys.readouterr().out
    assert "note: left out the lost one: its loss is nan" in said
    assert "note: runs of 2 commits are mixed: 000000000000, ffffffffffff" in said


def test_arms_that_are_fitted_as_one_are_told():
    some = [next(rows()) | {"config": {"flow.path": path, "seed": 0}} for path in ("linear", "cosine")]
    assert results.sound(some)[1] == [
        "runs that differ in flow.path are fitted as one: are these other sizes, or other arms?"
    ]
    assert not results.sound([row | {"config": {"seed": seed}} for seed, row in enumerate(rows())])[1]


def test_rates_and_batches_that_were_tried_give_their_rules(tmp_path, capsys):
    def tried():
        for row in rows():
            n, d = row["parameters"] / 1e7, row["tokens"] / 1e10
            rate, batch = 1e-3 * n**-0.2 * d**-0.05, 64 * n**0.2 * d**0.8
            for x in (-1.0, -0.4, 0.3, 1.0):
                for y in (-1.0, -0.3, 0.4, 1.0):
                    config = {"optimizer.learning_rate": rate * np.exp(x), "batch_size": batch * np.exp(y)}
                    yield row | {"config": config, "loss": row["loss"] * (1 + 0.01 * (x * x + y * y))}

    found = call(tmp_path, tried(), "--predict=1e19")
    assert found["runs"] == 42 and found["parameters"]["exponent"] == pytest.approx(0.5681, abs=0.02)
    value, low, high = found["rules"]["batch"]["of_tokens"]
    assert value == pytest.approx(0.8, abs=1e-3) and low <= value <= high
    assert found["rules"]["rate"]["of_parameters"][0] == pytest.approx(-0.2, abs=1e-3)
    said = capsys.readouterr().out
    n, d = 0.0009 * 1e19**0.5681, 186.85 * 1e19**0.4319
    (line,) = [line for line in said.splitlines() if line.startswith("  batch")]
    assert float(line.split()[1]) == pytest.approx(64 * (n / 1e7) ** 0.2 * (d / 1e10) ** 0.8, rel=0.05)


@pytest.mark.parametrize("in_whole_steps", [False, True])
def test_batches_that_take_other_steps_for_the_same_tokens_are_one_model(tmp_path, in_whole_steps):
    def tried():
        for row in rows():
            best = 64 * (row["parameters"] / 1e7) ** 0.2
            for batch in (max(1, round(best * part)) for part in (0.6, 1.0, 1.7)):
                steps = row["tokens"] / batch / 1e5
                steps = round(steps) if in_whole_steps else steps
                tokens = steps * batch * 1e5
                amounts = {"tokens": tokens, "flops": row["flops"] * tokens / row["tokens"], "steps": steps}
                loss = row["loss"] * (1 + 0.05 * np.log(batch / best) ** 2)
                yield row | amounts | {"config": {"batch_size": batch, "steps": steps}, "loss": loss}

    found = call(tmp_path, tried())
    assert found["runs"] == 42 and found["parameters"]["exponent"] == pytest.approx(0.5681, abs=0.02)


def test_lengths_along_a_run_are_no_batches_of_one(tmp_path):
    row = next(rows())
    lengths = [row | {"tokens": row["tokens"] * part, "steps": 100 * part, "config": {}} for part in (0.95, 1.0)]
    assert results.tuned(lengths) == lengths
    several = [each | {"config": {"batch_size": 64}} for each in lengths]
    assert results.tuned(several) == several


def test_rates_that_were_tried_at_one_size_give_no_rules_and_do_not_stop_the_laws(tmp_path, capsys):
    def some_tried():
        for index, row in enumerate(rows()):
            values = (0.5, 1.0, 2.0) if index % 7 == 3 else (1.0,)
            for rate, batch in ((rate, batch) for rate in values for batch in values):
                loss = row["loss"] * (1 + 0.01 * np.log(rate) ** 2 + 0.01 * np.log(batch) ** 2)
                yield row | {"config": {"optimizer.learning_rate": rate, "batch_size": batch}, "loss": loss}

    assert "rules" not in call(tmp_path, some_tried())
    said = capsys.readouterr().out
    assert "note: no rules of learning rate and batch size: A minimum over learning rates needs at least three" in said


@pytest.mark.parametrize(
    ("lines", "flags", "message"),
    [
        ([], [], "has no finished point"),
        ([{"parameters": 1.0}], [], "line 1 needs a positive number as 'tokens', and has None"),
        (list(rows())[:7], [], "One budget shows no law"),
        (list(rows())[:14], ["--holdout=largest"], "leaves 1 of 2 budgets"),
        ([next(rows()), next(rows(convention="counted"))], [], "mixes FLOPs counted as 6ND and counted"),
        ([next(rows(loss=float("nan")))], [], "No run has a finite loss"),
        ([row | {"loss": row["loss"] - 3} for row in rows()], ["--method=parametric"], "is of positive losses"),
        (list(rows()), ["--metric=bounce/shap"], "has no metric 'bounce/shap': did you mean 'bounce/shape'"),
        (list(rows()), ["--method=isoflops"], "use one of isoflop, parametric, envelope"),
        (list(rows()), ["--metric=bounce/shape", "--method=envelope"], "is fitted by --method=isoflop alone"),
        (list(rows()), ["--predict=much"], "--predict=much is not a budget"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, lines, flags, message):
    with pytest.raises(UsageError, match=message):
        call(tmp_path, lines, *flags)
    assert not (tmp_path / "laws" / "laws.json").exists()


def test_a_line_that_is_no_row_is_named(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"parameters"')
    with pytest.raises(UsageError, match="results.jsonl line 1 is not JSON"):
        fit.main([f"--results={tmp_path / 'results.jsonl'}", f"--out={tmp_path}"])
    with pytest.raises(UsageError, match="is not there"):
        fit.main([f"--results={tmp_path / 'none'}", f"--out={tmp_path}"])


def test_a_folder_for_a_file_and_a_file_for_a_folder_are_named(tmp_path):
    with pytest.raises(UsageError, match="is a folder: name the results.jsonl in it"):
        fit.main([f"--results={tmp_path}", f"--out={tmp_path}"])
    for taken in (tmp_path / "results.jsonl", tmp_path / "results.jsonl" / "laws"):
        with pytest.raises(UsageError, match=f"{taken} cannot be a folder"):
            fit.main([write(tmp_path, rows()), f"--out={taken}"])


def test_an_envelope_is_drawn_over_its_curves():
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e8, 1e11, 12)))
    points = Points(n, d, 6 * n * d, 0.5 + 160 * n**-0.32 + 160 * d**-0.29)
    found = fitting.fit(points, "envelope")
    drawn = laws.figures(found, points)["losses"].axes[0].lines
    assert len(drawn) == 6 + 1 and drawn[-1].get_label() == "envelope"
    np.testing.assert_array_equal(drawn[0].get_ydata(), points.loss[n == n.min()])


def test_what_was_held_out_is_drawn_beside_its_law():
    n, budget = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 7), np.geomspace(1e18, 1e20, 4)))
    points = Points(n, budget / (6 * n), budget, 0.5 + 160 * n**-0.32 + 160 * (budget / (6 * n)) ** -0.29)
    largest = fitting.of_the_largest(points)
    found = fitting.fit(points.only(~largest), "isoflop")
    trials = fitting.tried(found, points.only(largest))
    for axes, trial in zip(laws.figures(found, points.only(~largest), trials)["laws"].axes, trials, strict=True):
        (drawn,) = [line for line in axes.lines if line.get_label() == "held out"]
        assert axes.get_title() == trial.name and drawn.get_ydata() == [trial.found]


@pytest.mark.parametrize(
    ("parameters", "size"), [(6e4, "ladder-32"), (1e6, "ladder-96"), (5.4e6, "ladder-192"), (9.3e8, "1b")]
)
def test_the_nearest_model_has_the_parameters_that_its_plan_has(parameters, size):
    found = nearest(parameters)
    assert found.size == size and found.transformer == pytest.approx(parameters, rel=0.1)
    spec, model, *_ = found.plan.split()
    config = configs.load(spec.removeprefix("--config="))
    configs.override(config, [tuple(model.removeprefix("--config.").split("="))])
    assert planning.job(config, "train", planning.make_mesh()).parameters == found.parameters


def test_a_size_that_the_table_lacks_is_told(tmp_path, capsys):
    call(tmp_path, rows(), "--predict=1e10")
    assert "no model of the table is near: ladder-32 has" in capsys.readouterr().out
