"""The parts of a report: curves, numbers, axes."""

import math
import re

import numpy as np
import pytest

from vidflow.reporting import inputs, plots, text


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("window", [1, 2, 5, 200])
def test_running_mean(count, window):
    values = np.random.default_rng(0).normal(size=count)
    before, after = (window - 1) // 2, window // 2
    wanted = [values[max(k - before, 0) : k + after + 1].mean() for k in range(count)]
    np.testing.assert_allclose(plots.running_mean(values, window), wanted, atol=1e-12)


def test_a_running_mean_forgets_a_huge_value():
    values = np.full(1000, 0.5)
    values[10] = 1e20
    found = plots.running_mean(values, 33)
    np.testing.assert_allclose(found[27:], 0.5, rtol=1e-12)
    assert found[26] > 1e18


def test_thinned_keeps_the_ends():
    points = np.stack([np.arange(5000.0)] * 2, axis=1)
    few = plots.thinned(points)
    assert len(few) == 600 and few[0, 0] == 0 and few[-1, 0] == 4999
    assert np.diff(few[:, 0]).min() > 0 and np.diff(few[:, 0]).max() <= 9
    assert len(plots.thinned(points[:600])) == 600


def test_series_leaves_out_what_is_no_number():
    lines = [{"step": k, "x": value} for k, value in enumerate([1.5, None, math.nan, True, "2", 3])]
    assert inputs.series(lines, "x").tolist() == [[0.0, 1.5], [5.0, 3.0]]
    assert inputs.series(lines, "y").shape == (0, 2)


def test_a_drawing_is_small_and_follows_the_page():
    rng = np.random.default_rng(0)
    points = np.stack([np.arange(20000.0), np.exp(rng.normal(size=20000))], axis=1)
    svg = plots.curve("noise", points)
    assert len(svg) < 40_000
    assert "var(--accent)" in svg and "#01010" not in svg and "#000000" not in svg
    assert svg.count("h0") == 600, "one dot a point"
    assert "<style" not in svg and "<metadata" not in svg


def ticks(values: list[float], scale: plots.Scale = "logarithmic") -> list[str]:
    points = np.stack([np.arange(len(values), dtype=float), np.array(values, float)], axis=1)
    return re.findall(r"<text[^>]*>([^<]*)", plots.curve("x", points, scale))


def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios():
    svg = plots.curve("x", np.array([[0, 0.01], [1, 0.1], [2, 1.0]]))
    heights = {label: float(y) for y, label in re.findall(r' y="([\d.]+)"[^>]*>([^<]*)</text>', svg)}
    assert heights["0.01"] - heights["0.1"] == pytest.approx(heights["0.1"] - heights["1"], abs=0.1)


@pytest.mark.filterwarnings("error")
def test_axes_suit_their_values():
    assert {"0.01", "0.1", "1"} <= set(ticks([0.01, 0.1, 1.0]))
    assert {"0.5", "1", "2"} <= set(ticks([0.4, 1.0, 2.1]))
    assert {"10", "15", "20"} <= set(ticks([6.0, 31.0], "linear"))
    assert {"0", "100"} <= set(ticks([140.0, 150.0], "from zero"))
    assert {"1.2", "1.4"} <= set(ticks([1.2, 1.4]))
    assert {"0", "40"} <= set(ticks([-1.0, 0.0, 100.0]))
    assert {"0.001", "0.0018"} <= set(ticks([0.001, 0.002], "linear"))
    for alone in ([5.0], [0.0], [2.0, 2.0]):
        assert len(ticks(alone)) > 3 and len(ticks(alone, "from zero")) > 3


@pytest.mark.parametrize(
    "seconds, shown",
    [(5.31, "5.3 s"), (59.99, "60.0 s"), (60, "1 min 0 s"), (754.4, "12 min 34 s"), (3720, "1 h 2 min")],
)
def test_durations(seconds, shown):
    assert text.duration(seconds) == shown


def test_numbers():
    assert [text.count(n) for n in (48208, 1_234_567, 30e9)] == ["48,208", "1.23 million", "30 billion"]
    assert [text.count(n) for n in (999_600_000, 1e12)] == ["1 billion", "1 trillion"]
    assert [text.plain(x) for x in (None, 3.0, 31.2345, 1e-5, 1e20)] == ["–", "3", "31.23", "1e-05", "1e+20"]
