"""Corners: a pedestal that stayed in is found with its size; gradients, nebulae and noise are not taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.kernels.calibrate.corners import gain_cells, over_corrected

Y, X = np.mgrid[-1 : 1 : 16 * 1j, -1 : 1 : 24 * 1j]
GAIN = 1 / (1 - 0.2 * (X**2 + Y**2))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), pedestal=st.floats(60, 900), slant=st.floats(-0.2, 0.2))
def test_a_pedestal_that_stayed_in_is_measured(seed, pedestal, slant):
    rng = np.random.default_rng(seed)
    sky = 400 * (1 + slant * X - slant / 2 * Y) + pedestal * GAIN + rng.normal(0, 1, X.shape)
    found = over_corrected(sky, GAIN)
    middle = np.median(sky)
    assert found is not None
    assert found.slope == pytest.approx(pedestal / middle, rel=0.1, abs=0.02)
    assert found.excess[3] == pytest.approx(pedestal * (GAIN[-1, -1] - GAIN.min()) / middle, rel=0.1, abs=0.01)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), slant=st.floats(-0.5, 0.5), cloud=st.floats(0, 2))
def test_gradients_and_bright_things_are_no_pedestal(seed, slant, cloud):
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(-0.8, 0.8, 2)
    nebula = cloud * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / 0.05)
    sky = 400 * (1 + slant * X + nebula) + rng.normal(0, 2, X.shape)
    assert over_corrected(sky, GAIN) is None


def test_what_says_nothing():
    assert over_corrected(np.full(GAIN.shape, np.nan), GAIN) is None
    assert over_corrected(np.full(GAIN.shape, -3.0), GAIN) is None
    assert over_corrected(np.full(GAIN.shape, 100.0), np.ones(GAIN.shape)) is None


@given(shape=st.tuples(st.integers(1, 70), st.integers(1, 70)), cell=st.integers(1, 40))
def test_cells_are_means(shape, cell):
    gain = np.random.default_rng(1).uniform(0.5, 2, shape).astype(np.float32)
    cells = gain_cells(gain, cell)
    assert cells.shape == (-(-shape[0] // cell), -(-shape[1] // cell))
    assert cells[-1, 0] == pytest.approx(gain[(cells.shape[0] - 1) * cell :, :cell].mean(dtype=float), rel=1e-6)
