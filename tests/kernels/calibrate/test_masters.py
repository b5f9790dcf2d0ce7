"""The mean of calibration frames against the rule walked to its end, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.constants import MISSING
from lerar_dask.kernels.calibrate.masters import combine_winsorized
from tests.kernels import oracles

KINDS = ("normal", "wild", "few values", "skewed")


def samples(kind, shape, seed):
    rng = np.random.default_rng(seed)
    if kind == "normal":
        values = rng.normal(1000, 12, shape)
    elif kind == "wild":
        values = rng.standard_t(1.5, shape)
    elif kind == "few values":
        values = rng.integers(0, 5, shape)
    else:
        values = 1e4 + rng.exponential(5, shape)
    return values.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    limits=st.sampled_from([(3.0, 3.0), (1.5, 2.0), (2.0, 4.0)]),
)
def test_mean_of_what_the_rule_keeps(kind, n, seed, limits):
    stack = samples(kind, (2, n, 140), seed)
    mean = combine_winsorized(stack, low=limits[0], high=limits[1])
    for y in range(2):
        for x in range(0, 140, 7):
            kept = oracles.clip_sigma(stack[y, :, x].astype(float), *limits, spread=oracles.winsorized_deviation)
            assert mean[y, x] == pytest.approx(kept.mean(), rel=1e-6, abs=1e-6)


def test_samples_that_are_not_there():
    stack = samples("normal", (1, 15, 200), 0)
    stack[0, :, 7] = MISSING
    stack[0, 3, 8], stack[0, 4, 9], stack[0, 5, 9] = np.nan, np.inf, -np.inf
    mean = combine_winsorized(stack, low=3, high=3)
    assert np.isnan(mean[0, 7])
    assert np.isfinite(np.delete(mean[0], 7)).all()
    for x in (8, 9):
        there = stack[0, np.isfinite(stack[0, :, x]), x].astype(float)
        kept = oracles.clip_sigma(there, 3, 3, spread=oracles.winsorized_deviation)
        assert mean[0, x] == pytest.approx(kept.mean(), rel=1e-6)


def test_neighbors_and_rows_do_not_matter():
    stack = samples("wild", (5, 20, 300), 1)
    mean = combine_winsorized(stack, low=3, high=3)
    np.testing.assert_array_equal(combine_winsorized(stack[2:3, :, 100:190], low=3, high=3), mean[2:3, 100:190])


def test_hundreds_of_frames():
    stack = samples("normal", (1, 700, 40), 2)
    stack[0, :50] += 500
    mean = combine_winsorized(stack, low=3, high=3)
    assert abs(mean - 1000).max() < 4 * 12 / np.sqrt(650)
