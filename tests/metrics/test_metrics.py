"""Intervals and PSNR against textbook values."""

import numpy as np
import pytest

from vidflow.errors import UsageError
from vidflow.metrics import image, intervals


def test_wilson_interval_of_a_textbook_case():
    # 8 of 10: Wilson's 95% interval is (0.4902, 0.9433).
    mean, low, high, n = intervals.proportion([1.0] * 8 + [0.0] * 2)
    assert (mean, n) == (0.8, 10)
    assert low == pytest.approx(0.4902, abs=2e-4) and high == pytest.approx(0.9433, abs=2e-4)


def test_a_perfect_score_is_not_certain():
    mean, low, high, _ = intervals.proportion([1.0] * 64)
    assert mean == high == 1.0 and low == pytest.approx(0.9434, abs=1e-3)


def test_dependent_samples_do_not_narrow_the_interval():
    many = intervals.proportion([1.0, 1.0, 1.0, 0.0] * 30, independent=40)
    assert many[1:3] == intervals.proportion([1.0, 1.0, 1.0, 0.0] * 10)[1:3] and many.n == 120


def test_student_interval_of_a_textbook_case():
    mean, low, high, n = intervals.mean([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5 and n == 4
    assert high - mean == pytest.approx(3.1824 * np.sqrt(5 / 3 / 4), rel=1e-4)
    assert mean - low == pytest.approx(high - mean)


@pytest.mark.parametrize("wrong", [np.inf, np.nan])
def test_a_value_that_is_no_number_is_not_left_out(wrong):
    found = intervals.mean([1.0, 2.0, wrong])
    assert not np.isfinite(found.mean) and np.isnan(found.low) and found.n == 3


def test_shares_that_differ_by_rounding_alone_are_the_same():
    thirds = [1 / 3, 2 / 3, 1.0, 1 / 3, 0.0, 2 / 3, 1 / 3] * 9
    one, other = np.mean(thirds), np.mean(sorted(thirds)) + np.spacing(0.5)
    assert one != other
    assert intervals.share([one, other, one], 64)[1:3] == pytest.approx(intervals.share([one] * 3, 64)[1:3])


def test_psnr_of_a_constant_error():
    a = np.full((2, 4, 4, 3), 100, np.uint8)
    b = a.copy()
    b[1] += 10
    np.testing.assert_allclose(image.psnr(a, b), [10 * np.log10(255**2 / 0.01), 10 * np.log10(255**2 / 100)])


def test_psnr_ends_at_that_of_equal_images():
    a = np.full((2, 32, 32, 3), 100, np.uint8)
    b = a.copy()
    b[1, 0, 0, 0] += 1  # a mean squared error of 1 / 3072
    np.testing.assert_allclose(image.psnr(a, b), 68.13, atol=0.005)


def test_ssim_is_that_of_scikit_image():
    """Version 0.26, structural_similarity: Gaussian weights of sigma 1.5, data_range 255, population variances."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (3, 24, 32, 3)).astype(np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-40, 41, a.shape), 0, 255).astype(np.uint8)
    y, x = np.mgrid[:24, :32]
    waves = [127 + 100 * np.sin(x / 4), 127 + 100 * np.cos(y / 5), 127 + 60 * np.sin((x + y) / 6)]
    a[2] = np.stack(waves, -1).astype(np.uint8)
    b[2] = np.roll(a[2], 2, axis=1)
    wanted = [0.9526819991269803, 0.9551368714243701, 0.8595134259891021]
    np.testing.assert_allclose(image.ssim(a, b), wanted, rtol=1e-10)
    np.testing.assert_allclose(image.ssim(a, a), 1.0)
    with pytest.raises(UsageError, match="at least 11 x 11 pixels, not 8 x 32"):
        image.ssim(a[:, :8], b[:, :8])
