"""Plans by the real TPU compiler, without a TPU. It is part of the test requirements (libtpu)."""

import json
import re

import jax
import pytest

from vidflow import config as configs
from vidflow import plan as verb
from vidflow.errors import UsageError
from vidflow.parallel import rules, topologies
from vidflow.parallel.topologies import parse
from vidflow.reporting import plans
from vidflow.tasks import layouts, planning, searching

EXPERIMENT = "experiments/moviegen/video.py"
ALONE = {"data": 1, "fsdp": 1, "sequence": 1, "tensor": 1}


@pytest.fixture(scope="module", autouse=True)
def compiler():
    topologies.devices(parse("v5e:2x2"))  # fails where libtpu is missing
    skipped = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", skipped)


def tiny(**changes):
    """Movie Gen's model in small: 1,024 tokens, heads of 128, as splash wants them."""
    config = configs.load(f"{EXPERIMENT}:1b,256px")
    values = {"model.size": "base", "data.frames": 32, "batch_size": 1, **changes}
    return configs.override(config, [(key, str(value)) for key, value in values.items()])


@pytest.fixture(scope="module")
def planned():
    """One step on four chips."""
    return searching.plan(tiny(), "train", parse("v5e:2x2"), ALONE | {"sequence": 4})


def test_a_plan_says_what_the_issue_of_a_pod_is(planned):
    assert planned["fits"] and planned["devices"] == 4 and planned["tokens"] == 1024
    memory = planned["hbm_gib"]
    assert memory["total"] == memory["arguments"] + memory["temporaries"] <= memory["limit"]
    state = 16 * planned["parameters"] / 4 / 2**30
    assert memory["arguments"] == pytest.approx(state, rel=0.05)
    assert set(planned["seconds"]) == {"compute", "hbm", "ici", "dcn"} and planned["bound"] in planned["seconds"]
    assert 0 < planned["mfu_without_overlap"] < planned["mfu_bound"] < 1
    assert all(row["axes"] == ["sequence"] for row in planned["collectives"])
    json.dumps(planned)


def test_a_plan_reads_as_a_page(planned):
    text = plans.as_text(planned)
    assert text.startswith("train step on v5e:2x2, 4 devices: sequence=4, remat=attention\n")
    for line in ("fits              yes: ", "bound by          ", "GiB  all-to-all over sequence, ", "compiled in "):
        assert line in text


@pytest.mark.slow
def test_a_search_compiles_the_best_and_finds_the_smallest_slice():
    found = searching.search(tiny(batch_size=4), "train", parse("v5e:2x2"), None)
    assert 1 <= len(found["tried"]) <= searching.TRIES and found["fits"]
    assert found["mfu_without_overlap"] == max(tried["mfu_without_overlap"] for tried in found["tried"])
    assert found["smallest"]["fits"] and found["smallest"]["devices"] <= 4
    assert "smallest slice:" in plans.as_text(found)
    with pytest.raises(UsageError, match="drop --mesh"):
        searching.search(tiny(), "train", parse("v5e:2x2"), ALONE)


@pytest.mark.slow
def test_the_same_plan_compiles_twice(planned):
    """A cache of compiled programs would leave nothing to read."""
    again = searching.plan(tiny(), "train", parse("v5e:2x2"), ALONE | {"sequence": 4})
    assert again["collectives"] == planned["collectives"]


def test_gathers_are_those_of_the_kernels(planned):
    """Two a layer, in bf16, forward and again for the backward pass; heads and tokens change places by all-to-all."""
    gib = {row["operation"]: row["bytes"] / 2**30 for row in planned["collectives"]}
    kernels = 2 * planned["parameters"] * 2 * 3 / 4 / 2**30
    assert gib["all-gather"] == pytest.approx(kernels, rel=0.1)
    layers, tokens, width = 12, 1024, 768
    exchanged = 12 * layers * tokens / 4 * width * 2 * 3 / 4 / 2**30
    assert gib["all-to-all"] == pytest.approx(exchanged, rel=0.05)


@pytest.mark.slow
def test_splash_counts_what_plain_attention_does(planned):
    """XLA sees the products of its own attention; of splash, which it does not see inside, they are counted by hand."""
    plain = searching.plan(tiny(**{"model.kernel": "xla"}), "train", parse("v5e:2x2"), ALONE | {"sequence": 4})
    assert planned["hardware_flops"] == pytest.approx(plain["hardware_flops"], rel=0.05)


@pytest.mark.slow
def test_saving_matmuls_recomputes_less_and_needs_more_memory(planned):
    saved = searching.plan(tiny(**{"model.remat": "matmuls"}), "train", parse("v5e:2x2"), ALONE | {"sequence": 4})
    assert saved["hardware_flops"] < planned["hardware_flops"]
    assert saved["hbm_gib"]["temporaries"] > planned["hbm_gib"]["temporaries"]


@pytest.mark.slow
def test_layers_add_up():
    """A loop over layers counts as often as it runs."""
    flops = {}
    for size in ("base", "1b"):
        config = tiny(**{"model.size": size})
        flops[size] = searching.plan(config, "train", parse("v5e:2x2"), ALONE | {"sequence": 4})
    ratio = {size: plan["hardware_flops"] / plan["model_flops"] for size, plan in flops.items()}
    assert ratio["base"] == pytest.approx(ratio["1b"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["sample", "encode", "decode"])
def test_the_other_steps(step):
    config = tiny(**{"data.frames": 8, "data.height": 64, "data.width": 64, "sampling.steps": 4})
    mesh = ALONE | ({"sequence": 4} if step == "sample" else {"data": 4})
    plan = searching.plan(config, step, parse("v5e:2x2"), mesh)
    assert plan["fits"] and plan["hardware_flops"] > 0


@pytest.mark.slow
def test_two_slices_exchange_over_the_network():
    plan = searching.plan(tiny(batch_size=8), "train", parse("v5p:2x2x1", 2), ALONE | {"data": 2, "fsdp": 4})
    assert plan["devices"] == 8 and plan["seconds"]["dcn"] > 0


def test_a_step_that_does_not_fit_says_by_how_much_and_what_would(tmp_path, capsys):
    command = [f"--config={EXPERIMENT}:30b,256px-images", "--topology=v5e:2x2", "--config.batch_size=4"]
    with pytest.raises(SystemExit) as exit_:
        verb.main([*command, f"--json={tmp_path}/plan.json"])
    assert exit_.value.code == 1
    said = capsys.readouterr().out
    assert "no:" in said and "too many" in said and "--topology=v5e:" in said
    assert json.loads((tmp_path / "plan.json").read_text())["fits"] is False


@pytest.mark.parametrize("file", ["", "absent/plan.json"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_compiled(monkeypatch, tmp_path, file):
    monkeypatch.delattr(searching, "plan")
    with pytest.raises(UsageError, match="is no file in a folder that exists"):
        verb.main([f"--config={EXPERIMENT}:smoke", "--topology=v5e:2x2", f"--json={tmp_path / file}"])


@pytest.mark.parametrize(
    ("change", "most"),
    [
        ({"model.strategy": "ulysses"}, 4),  # 12 heads
        ({"model.design.time": "in_context"}, 1),  # 1,024 tokens and one
        ({"model.design.text": "in_context", "text.encoders.byt5.tokens": 102}, 2),  # and 300 + 256 + 102
    ],
)
def test_a_mesh_divides_all_that_is_spread_over_it(change, most):
    found = layouts.candidates(tiny(batch_size=8, **change), parse("v5e:2x4"), free=False)
    assert max(c.layout.sequence * c.layout.tensor for c in found) == most


def test_a_search_of_which_nothing_fits_says_what_would(monkeypatch):
    """As the formulas say less than the compiler wants."""

    def refused(config, step, slice_, mesh):
        memory = {"arguments": None, "temporaries": None, "total": 40.0, "limit": slice_.generation.hbm_bytes / 2**30}
        shape = {"topology": slice_.name, "slices": 1, "devices": slice_.devices, "step": step, "mesh": mesh}
        ours = {"remat": config.model.remat, "microbatches": config.microbatches, "parameters": 1, "tokens": 1}
        return {**shape, **ours, "fits": False, "hbm_gib": memory}

    monkeypatch.setattr(planning, "plan", refused)
    monkeypatch.setattr(layouts, "SLICES", {"v5e": ("2x2",)})
    found = searching.search(tiny(batch_size=4), "train", parse("v5e:2x2"), None)
    assert found["smallest"] is None and found["advice"].startswith("It wants 40.0 GiB of a device's 15.8, 24.2 too")
    said = plans.as_text(found)
    assert found["advice"] in said and "smallest slice:\n  none of this generation" in said


def test_advice_takes_a_layout_that_needs_less_before_a_larger_slice():
    """The compiler may want more than the formulas say; on the slice named, the quickest layout then does not fit."""
    worse = 1.5
    config = configs.override(configs.load(f"{EXPERIMENT}:30b,768px"), [("batch_size", "1")])
    slice_, mesh = parse("v5p:2x2x1"), ALONE | {"sequence": 4}
    estimate = layouts.estimate(config, layouts.workload(config), layouts.of(config, mesh), slice_)
    said = searching.advise(config, "train", slice_, mesh, worse * estimate.bytes)
    (named,) = re.findall(r"--topology=(\S+)", said)
    smaller = [parse(f"v5p:{shape}") for shape in layouts.SLICES["v5p"]]
    fits = {
        s.name: any(c.bytes * worse <= s.generation.hbm_bytes for c in layouts.candidates(config, s, free=True))
        for s in smaller
        if slice_.devices < s.devices <= parse(named).devices
    }
    assert [name for name, fit in fits.items() if fit] == [named]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sequence=3", r"has 3 devices.*has 4"),
        ("sequences=4", r"'sequences=4' is not an axis \(data, fsdp, sequence, tensor\)"),
        ("tensor", r"'tensor' is not an axis"),
        ("tensor=0", r"'tensor=0' is not an axis"),
        ("tensor=2,tensor=4", "--mesh=tensor=2,tensor=4 names 'tensor' twice"),
    ],
)
def test_a_wrong_mesh_is_an_error(text, message):
    with pytest.raises(UsageError, match=message):
        searching.parse_mesh(text, parse("v5e:2x2"))


def test_sizes_that_do_not_divide_are_an_error():
    with pytest.raises(UsageError, match="config.mesh"):
        searching.plan(tiny(), "train", parse("v5e:2x2"), ALONE | {"data": 4})
    with pytest.raises(UsageError, match="batch 1 in 3 parts"):
        searching.choose_mesh(tiny(microbatches=3), "train", parse("v5e:2x2"))


def test_a_step_that_the_task_lacks_is_an_error():
    config = configs.load("experiments/moviegen/autoencoder.py:smoke")
    with pytest.raises(UsageError, match="--step=sample is not a step of vidflow.tasks.autoencoder"):
        planning.job(config, "sample", planning.make_mesh())


def test_a_slice_that_cannot_be_is_an_error():
    with pytest.raises(UsageError, match="knows no slice v5p:3x5x7"):
        topologies.devices(parse("v5p:3x5x7"))


# What benchmarks/RESULTS.md says. Each compiles within two minutes on two quiet cores.

TARGETS = {
    "8 v5p": ("v5p:2x2x2", 8, {}, 84.0),
    "16 v5p": ("v5p:2x2x4", 16, {"model.remat": "matmuls"}, 95.7),
    "32 v6e": ("v6e:4x8", 32, {}, 23.0),
    "64 v5e": ("v5e:8x8", 64, {}, 13.0),
    "32 v5e": ("v5e:4x8", 32, {"model.remat": "full", "host_memory": "ema,mu"}, 15.75),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_thirty_billion_parameters_and_73728_tokens_fit(name):
    topology, sequence, changes, most = TARGETS[name]
    values = {"batch_size": 1, **changes}
    config = configs.override(configs.load(f"{EXPERIMENT}:30b,768px"), [(k, str(v)) for k, v in values.items()])
    plan = searching.plan(config, "train", parse(topology), ALONE | {"sequence": sequence})
    assert plan["fits"] and plan["hbm_gib"]["total"] <= most and plan["tokens"] == 73_728
    if name == "16 v5p":
        assert plan["hardware_flops"] <= 1.15 * plan["model_flops"]


@pytest.mark.slow
def test_wan_sends_less_than_its_peer():
    values = {"batch_size": "1", "model.size": "wan-14b", "model.remat": "matmuls", "data.frames": "168"}
    values |= {"data.height": "720", "data.width": "1280"}
    config = configs.override(configs.load(f"{EXPERIMENT}:30b,768px"), list(values.items()))
    plan = searching.plan(config, "train", parse("v5p:2x2x4"), ALONE | {"sequence": 16})
    assert plan["tokens"] == 75_600 and plan["hardware_flops"] <= 1.15 * plan["model_flops"]
    assert sum(row["bytes"] for row in plan["collectives"]) <= 110 * 2**30


@pytest.mark.parametrize("name", ["8 v5p"])
@pytest.mark.slow
def test_no_array_has_a_number_for_every_pair_of_tokens(name):
    topology, sequence, changes, _ = TARGETS[name]
    config = configs.override(configs.load(f"{EXPERIMENT}:30b,768px"), [("batch_size", "1")])
    slice_ = parse(topology)
    mesh = planning.make_mesh(sequence=sequence, devices=topologies.devices(slice_))
    with rules.in_force():
        compiled = planning.compile_job(planning.job(config, "train", mesh), mesh, slice_.generation.hbm_bytes)
    largest = max(array.size for instruction, _ in compiled.program.instructions() for array in instruction.results)
    assert largest < 73_728**2


def test_a_text_encoder_is_spread_over_the_chips_that_hold_it():
    """ByT5 small on four chips; UL2's 8.7 billion parameters want more than one (benchmarks/RESULTS.md)."""
    found = searching.plan(tiny(), "text:byt5", parse("v5e:2x2"), None)
    assert found["mesh"] == ALONE | {"fsdp": 4} and found["fits"]
    assert found["parameters"] == 384 * 1472 + 12 * (4 * 1472 * 384 + 3 * 1472 * 3584 + 2 * 1472) + 1472 + 32 * 6
    assert found["hbm_gib"]["arguments"] < 1.05 * 2 * found["parameters"] / 4 / 2**30 + 0.02
    assert found["hardware_flops"] == pytest.approx(found["model_flops"], rel=0.02)


@pytest.mark.parametrize(
    ("change", "step", "why"),
    [
        ({}, "text:t5", "this config's text encoders are byt5, metaclip, ul2"),
        ({"text.encoders.byt5.tower": "byt6"}, "text:byt5", "no published tower 'byt6': use one of ul2"),
    ],
)
def test_a_plan_of_an_unknown_text_encoder_is_refused(change, step, why):
    with pytest.raises(UsageError, match=why):
        searching.plan(tiny(**change), step, parse("v5e:2x2"), None)
