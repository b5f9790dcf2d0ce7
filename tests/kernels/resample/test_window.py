"""Calibration, repair of defects."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.kernels.resample import window as kernels


@pytest.mark.parametrize("step", [1, 2])
def test_defects_become_the_median_of_good_neighbors(step):
    rng = np.random.default_rng(2)
    image = rng.normal(100, 5, (40, 50)).astype(np.float32)
    bad = [(10, 10), (10, 10 + step), (20, 0), (39, 49), (30, 20)]
    defects = np.array(sorted(y * 50 + x for y, x in bad), np.int32)
    window = image.copy()
    window.reshape(-1)[defects] = 9000
    assert kernels.repair_defects(window, 0, 0, 40, 50, defects, step, np.float32(0)) == len(bad)
    mask = np.zeros(image.shape, bool)
    mask.reshape(-1)[defects] = True
    np.testing.assert_array_equal(window[~mask], image[~mask])
    for y, x in bad:
        near = [
            image[y + a, x + b]
            for a in (-step, 0, step)
            for b in (-step, 0, step)
            if 0 <= y + a < 40 and 0 <= x + b < 50 and not mask[y + a, x + b]
        ]
        assert window[y, x] == np.float32(np.median(near))


def test_a_bad_column_three_wide_is_bridged():
    image = np.full((20, 20), 50, np.float32)
    image[:, 9:12] = 9000
    defects = np.array([y * 20 + x for y in range(20) for x in (9, 10, 11)], np.int32)
    kernels.repair_defects(image, 0, 0, 20, 20, defects, 1, np.float32(1))
    np.testing.assert_array_equal(image, 50)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_calibration_is_the_published_formula(dtype):
    rng = np.random.default_rng(4)
    raw = rng.integers(0, 30000, (9, 11)).astype(dtype)
    pedestal = rng.normal(200, 5, (30, 40)).astype(np.float32)
    gain = rng.normal(1, 0.1, (30, 40)).astype(np.float32)
    out = np.zeros((12, 15), np.float32)
    n = kernels.calibrate_into(raw, 2.0, 10.0, float(raw[2, 3]), pedestal, gain, 5, 6, out, 1, 2)
    expected = (raw * np.float32(2) + np.float32(10) - pedestal[5:14, 6:17]) * gain[5:14, 6:17]
    blank = raw == raw[2, 3]
    assert n == blank.sum()
    np.testing.assert_allclose(out[1:10, 2:13][~blank], expected[~blank], rtol=2e-6, atol=1e-3)
    assert (out[1:10, 2:13][blank] == kernels.MISSING).all()


def test_numbers_beyond_float32_keep_their_difference_to_the_pedestal():
    raw = np.array([[-(2**31) + 16_777_217 + 3]], np.int32)
    pedestal = np.array([[16_777_216.0]], np.float32)
    out = np.zeros((1, 1), np.float32)
    kernels.calibrate_into(raw, 1.0, 2.0**31, np.nan, pedestal, np.zeros((0, 0), np.float32), 0, 0, out, 0, 0)
    assert out[0, 0] == 4


def test_first_from_is_searchsorted():
    numbers = np.array([2, 3, 3, 3, 8, 9], np.int32)
    for least in range(12):
        assert kernels.first_from(numbers, least) == np.searchsorted(numbers, least)
    assert kernels.first_from(numbers[:0], 3) == 0
