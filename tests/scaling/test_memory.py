"""Closed formulas of parameters and memory."""

import math

import jax
import pytest

from vidflow import config as configs
from vidflow.models.sizes import size
from vidflow.parallel import rules
from vidflow.scaling import flops, memory, parameters
from vidflow.scaling.memory import Layout, Workload
from vidflow.tasks import layouts, text_to_video

GIB = 2**30
EXPERIMENT = "experiments/moviegen/video.py"
PARTS = flops.transformer(size("30b"), tokens=73_728, text_tokens=656, text_width=6144, features=64)
TRAINING = {part: 3.0 * value for part, value in PARTS._asdict().items()} | {"text_encoder": 1e12}
THIRTY = Workload(
    size("30b"), 29_379_336_192, rows=1, tokens=73_728, text_tokens=656, gradient_bytes=2, flops=TRAINING
)


@pytest.mark.parametrize("name", ["1b", "30b"])
def test_parameters_are_those_of_the_model(name):
    config = configs.load(f"{EXPERIMENT}:{name}")
    params = rules.unbox(jax.eval_shape(text_to_video.outline(config).init, jax.random.key(0)))["params"]
    formula = parameters.transformer(
        size(name), positions=config.model.positions, text_width=size(name).width, features=64
    )
    assert formula == sum(leaf.size for leaf in jax.tree.leaves(params["backbone"]))
    if name == "30b":
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == THIRTY.parameters
        assert 29e9 <= THIRTY.parameters <= 31e9


@pytest.mark.parametrize(
    ("layout", "changes", "compiled", "below"),  # GiB, and the share by which the formulas say less
    [
        (Layout(1, 1, 8, 1, "attention", 1), {}, 83.0, 0.01),
        (Layout(1, 1, 16, 1, "matmuls", 1), {}, 82.1, 0.05),
        (Layout(1, 1, 32, 1, "attention", 1), {}, 22.5, 0.03),
        (Layout(1, 1, 64, 1, "attention", 1), {}, 12.3, 0.04),
        (Layout(1, 1, 32, 1, "full", 1), {"state_bytes": 8}, 14.4, 0.04),
        (Layout(1, 1, 8, 1, "offload", 1), {}, 73.3, 0.02),
        (Layout(8, 8, 8, 1, "attention", 1), {"rows": 64}, 23.4, 0.05),
        (Layout(4, 4, 8, 1, "attention", 1), {"rows": 16}, 35.1, 0.12),
    ],
)
def test_bytes_are_a_little_below_the_compilers(layout, changes, compiled, below):
    """Those of benchmarks/RESULTS.md."""
    said = memory.bytes_per_device(THIRTY._replace(**changes), layout) / GIB
    assert 1 - said / compiled == pytest.approx(below, abs=0.006)


def test_what_rests_in_the_hosts_memory_is_not_a_devices():
    config = configs.override(configs.load(f"{EXPERIMENT}:1b"), [("host_memory", "ema,mu")])
    assert layouts.workload(config).state_bytes == memory.STATE_BYTES - 8


@pytest.mark.parametrize(("table", "axes", "parts"), [("everywhere", 2, 32), ("fsdp", 1, 4), ("replicated", 0, 1)])
def test_a_table_that_spreads_parameters_over_fewer_devices_needs_more_of_each(table, axes, parts):
    config = configs.override(configs.load(f"{EXPERIMENT}:1b"), [("rules", table)])
    work, layout = layouts.workload(config), Layout(1, 4, 8, 1, "full", 1)
    assert work.spread == ("fsdp", "sequence")[:axes] and layout.over(work.spread) == parts
    all_spread = work._replace(spread=("fsdp", "sequence"))
    more = memory.bytes_per_device(work, layout) - memory.bytes_per_device(all_spread, layout)
    assert more == pytest.approx((16 + 2 + 2) * work.parameters * (1 / parts - 1 / 32))
    summed = memory.bytes_sent(work._replace(rows=0), layout)
    gathered = 6 * work.parameters * (1 - 1 / parts)
    assert summed - gathered == pytest.approx(4 * work.parameters / parts if parts < 32 else 0)


def test_state_and_communication_shrink_with_devices_and_microbatches_save_memory():
    one, two = (Layout(1, n, 8, 1, "full", 1) for n in (1, 2))
    work = THIRTY._replace(rows=8)
    assert memory.bytes_per_device(work, two) < memory.bytes_per_device(work, one)
    assert memory.bytes_sent(work, two) < memory.bytes_sent(work, one)
    parts = one._replace(microbatches=8)
    assert memory.bytes_per_device(work, parts) < memory.bytes_per_device(work, one)
    assert memory.bytes_sent(work, parts) > memory.bytes_sent(work, one)


def test_saving_more_recomputes_less():
    again = [memory.recomputed(THIRTY, remat) for remat in ("full", "attention", "matmuls")]
    assert again == [sum(PARTS), sum(PARTS) - PARTS.attention, 0]
    kept = [memory.bytes_per_device(THIRTY, Layout(1, 1, 16, 1, r, 1)) for r in ("full", "attention", "matmuls")]
    assert kept[0] < kept[1] < kept[2]


def test_every_remat_has_a_row():
    from vidflow.models.rematerialisation import CHOICES

    assert set(memory.KEPT) == set(CHOICES)
    assert all(math.isfinite(memory.recomputed(THIRTY, remat)) for remat in CHOICES)
