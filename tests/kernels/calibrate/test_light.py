"""Calibration against the formula in float64, for every type of pixel."""

import numpy as np
import pytest

from lerar_dask.kernels.calibrate.light import calibrate, calibrate_window

SHAPE = (17, 23)


def sky(dtype, seed=0):
    return np.random.default_rng(seed).integers(0, 200, SHAPE).astype(dtype)


@pytest.fixture
def maps():
    rng = np.random.default_rng(1)
    return rng.normal(100, 3, SHAPE).astype(np.float32), rng.uniform(0.8, 1.2, SHAPE).astype(np.float32)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize(("with_pedestal", "with_gain"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_formula(dtype, with_pedestal, with_gain, maps):
    raw = sky(dtype)
    pedestal, gain = maps[0] if with_pedestal else None, maps[1] if with_gain else None
    expected = raw.astype(float) * 0.5 + 10
    expected = (expected - (pedestal if with_pedestal else 0)) * (gain if with_gain else 1)
    found = calibrate(raw, pedestal, gain, scale=0.5, zero=10.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-5)


def test_a_window_is_a_piece_of_the_whole(maps):
    raw = sky("uint16")
    whole = calibrate(raw, *maps)
    piece = np.ascontiguousarray(raw[3:12, 5:20])
    out = np.empty(piece.shape, np.float32)
    calibrate_window(piece, *maps, y0=3, x0=5, scale=1.0, zero=0.0, blank=None, out=out)
    assert np.array_equal(out, whole[3:12, 5:20])


def test_blank_pixels_have_no_value(maps):
    raw = sky("int16")
    raw[4, 5] = -7
    found = calibrate(raw, *maps, blank=-7)
    assert np.isnan(found[4, 5])
    assert np.isnan(found).sum() == 1


def test_large_integers_lose_nothing_before_the_pedestal_is_off():
    raw = np.full(SHAPE, 2**31 + 3, np.uint32)
    found = calibrate(raw, np.full(SHAPE, 2**31, np.float32), None)
    assert (found == 3).all()
