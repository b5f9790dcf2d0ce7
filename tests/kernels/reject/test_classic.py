"""Classic rejection against one pixel at a time in plain numpy, and the properties that all rules share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from lerar_dask.constants import MISSING, PRESENT
from lerar_dask.kernels.reject.classic import METHODS, reject_bounds
from lerar_dask.kernels.robust.winsorized import keep_winsorized
from tests.kernels import oracles


def contaminated(n, pixels, seed=0):
    """Normal samples with outliers of 5 to 50 sigma in 3 % and gaps in 5 %, (1, n, pixels)."""
    rng = np.random.default_rng(seed)
    cube = rng.normal(100, 10, (1, n, pixels)).astype(np.float32)
    hit = rng.random(cube.shape) < 0.03
    cube[hit] += rng.uniform(50, 500, hit.sum()).astype(np.float32)
    cube[rng.random(cube.shape) < 0.05] = MISSING
    return cube


def kept_by_oracle(x, method, low, high):
    if method == "minmax":
        return oracles.keep_minmax(x, low, high)
    if method == "percentile":
        return oracles.keep_percentile(x, low, high)
    spread = {
        "sigma": oracles.standard_deviation,
        "mad": oracles.scaled_mad,
        "winsorized": oracles.winsorized_deviation,
    }[method]
    return oracles.clip_sigma(x, low, high, spread=spread)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 21, 60, 130])
@pytest.mark.parametrize("method", ["minmax", "percentile", "sigma", "mad", "winsorized"])
def test_bounds_keep_what_the_published_rule_keeps(method, n):
    low, high = {"minmax": (1, 2), "percentile": (0.2, 0.15)}.get(method, (2.5, 3.0))
    cube = contaminated(n, 300, seed=n)
    lowest, highest = reject_bounds(cube, 0, n, method=method, low=low, high=high, columns=300)
    kept = (cube >= lowest[:, None]) & (cube <= highest[:, None])
    wrong = 0
    for i in range(300):
        x = cube[0, :, i].astype(float)
        x = x[x < 1e29]
        if x.size:
            wrong += kept[0, :, i].sum() != len(kept_by_oracle(x, method, low, high))
    # a tie within the last digit may fall on either side
    assert wrong <= (1 if method in ("mad", "sigma") else 0)


@njit
def bounds_by_the_rule(cube, low, high):
    """As `reject_bounds`, each pixel through `keep_winsorized`."""
    lowest, highest = np.empty(cube.shape[2], np.float32), np.empty(cube.shape[2], np.float32)
    for x in range(cube.shape[2]):
        samples = np.sort(cube[0, :, x])
        samples = samples[samples < np.float32(1e29)]
        lowest[x], highest[x] = -np.inf, PRESENT
        if samples.size > 0:
            column = samples.astype(np.float64)
            a, b = keep_winsorized(column, low, high, np.empty((2, samples.size + 1)))
            lowest[x], highest[x] = samples[a], samples[b - 1]
    return lowest, highest


def with_outliers(rng, x):
    return x + 30 * (rng.random(x.shape) < rng.uniform(0, 0.2))


SHAPES = {
    "normal": lambda rng, x: x,
    "long tails": lambda rng, x: rng.standard_t(2, x.shape),
    "skew": lambda rng, x: np.exp(x),
    "outliers": with_outliers,
    "ties": lambda rng, x: np.round(x),
    "two noises": lambda rng, x: x * np.where(rng.random(x.shape) < 0.3, 5, 1),
}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 70),
    shape=st.sampled_from(sorted(SHAPES)),
    noise=st.sampled_from([0.01, 1.0, 500.0]),
    level=st.sampled_from([0.0, 100.0, 30_000.0]),
    limits=st.tuples(*[st.sampled_from([1.5, 2.5, 3.0, 3.3, 5.0])] * 2),
    absent=st.sampled_from([0.0, 0.3]),
)
def test_winsorized_bounds_are_those_of_the_rule(seed, n, shape, noise, level, limits, absent):
    rng = np.random.default_rng(seed)
    cube = (level + noise * SHAPES[shape](rng, rng.normal(size=(1, n, 500)))).astype(np.float32)
    cube[rng.random(cube.shape) < absent] = MISSING
    lowest, highest = reject_bounds(
        cube, 0, n, method="winsorized", low=limits[0], high=limits[1], columns=cube.shape[2]
    )
    expected = bounds_by_the_rule(cube, *limits)
    np.testing.assert_array_equal(lowest[0], expected[0])
    np.testing.assert_array_equal(highest[0], expected[1])


def test_percentile_uses_the_absolute_median_and_never_takes_all():
    cube = np.array([-10, -9.5, -10.5, -30, 40], np.float32).reshape(1, 5, 1)
    lowest, highest = reject_bounds(cube, 0, 5, method="percentile", low=0.2, high=0.1, columns=1)
    np.testing.assert_array_equal(((cube >= lowest[:, None]) & (cube <= highest[:, None]))[0, :, 0], [1, 1, 1, 0, 0])
    zero = np.array([-1, 0, 1], np.float32).reshape(1, 3, 1)
    lowest, highest = reject_bounds(zero, 0, 3, method="percentile", low=0.2, high=0.1, columns=1)
    assert ((zero >= lowest[:, None]) & (zero <= highest[:, None])).sum() >= 1


@pytest.mark.parametrize("method", ["minmax", "percentile", "sigma", "mad", "winsorized", "none"])
def test_all_equal_and_absent_pixels_lose_nothing(method):
    cube = np.full((2, 7, 3), 5, np.float32)
    cube[0, :, 1] = MISSING
    cube[1, 3:, 2] = MISSING
    lowest, highest = reject_bounds(cube, 0, 7, method=method, low=3, high=3, columns=3)
    kept = (cube >= lowest[:, None]) & (cube <= highest[:, None])
    np.testing.assert_array_equal(kept, cube < 1e29)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), method=st.sampled_from(sorted(METHODS)))
def test_order_of_subs_and_neighbors_do_not_matter(seed, n, method):
    cube = contaminated(n, 150, seed)
    low, high = (0.2, 0.2) if method == "percentile" else (2, 2)
    bounds = reject_bounds(cube, 0, n, method=method, low=low, high=high, columns=150)
    shuffled = np.ascontiguousarray(cube[:, np.random.default_rng(seed).permutation(n)])
    for a, b in zip(bounds, reject_bounds(shuffled, 0, n, method=method, low=low, high=high, columns=150), strict=True):
        np.testing.assert_array_equal(a, b)
    part = np.ascontiguousarray(cube[:, :, 37:61])
    for a, b in zip(bounds, reject_bounds(part, 0, n, method=method, low=low, high=high, columns=24), strict=True):
        np.testing.assert_array_equal(a[:, 37:61], b)
