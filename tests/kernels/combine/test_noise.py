"""Weights, noise grids and the factors of the interpolation kernels."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.kernels.combine.noise import (
    KERNEL_NOISE,
    blur_terms,
    cell_weights,
    fill_gaps,
    growth_of_variance,
    phase_factor,
    sample_variance,
)
from tests.kernels.oracles import lanczos_weights


def test_kernel_factors_are_those_of_the_weights():
    t = (np.arange(2000) + 0.5) / 2000
    w = lanczos_weights(t)
    np.testing.assert_allclose(phase_factor(t, kernel="lanczos3"), (w**2).sum(axis=0), atol=1e-3)
    np.testing.assert_allclose(phase_factor(t, kernel="bilinear"), t**2 + (1 - t) ** 2)
    for kernel, weights in (("lanczos3", w), ("bilinear", np.stack([1 - t, t]))):
        lags = [np.mean((weights[: len(weights) - k] * weights[k:]).sum(axis=0)) for k in range(3)]
        pixel, first, second = KERNEL_NOISE[kernel]
        assert phase_factor(t + 7, kernel=kernel).mean() == pytest.approx(pixel, abs=1e-3)
        assert lags[1] / lags[0] == pytest.approx(first, abs=1e-3)
        assert lags[2] / lags[0] == pytest.approx(second, abs=2e-3)


def test_variance_is_bilinear_between_cell_centers_and_flat_beyond():
    variance = np.add.outer(np.arange(4) * 10.0, np.arange(5) * 1.0)[None] + 3
    ys, xs = np.array([[31.5, 63.5, -50.0, 500.0]]), np.array([[31.5, 31.5, 95.5, 500.0]])
    np.testing.assert_allclose(sample_variance(variance, ys, xs, cell_px=64), [[3, 8, 4, 37]])
    single = sample_variance(np.full((2, 1, 1), 4.0), np.zeros((2, 3)), np.zeros((2, 3)), cell_px=64)
    np.testing.assert_array_equal(single, 4)


def test_gaps_take_the_median():
    grid = np.array([[1, 2], [np.nan, 0], [2, 4]])
    np.testing.assert_array_equal(fill_gaps(grid), [[1, 4], [4, 4], [4, 16]])
    np.testing.assert_array_equal(fill_gaps(np.full((2, 2), np.nan)), 1)


def test_weights_by_name():
    typical = np.array([1.0, 4.0, 1.0])
    variance = np.array([[[1.0, 2.0]], [[4.0, 4.0]]])
    members, ones = np.array([0, 1]), np.ones(3)
    np.testing.assert_allclose(
        cell_weights(variance, typical, ones, members=members, mode="inverse-variance"), [[[1, 0.5]], [[0.25, 0.25]]]
    )
    np.testing.assert_allclose(
        cell_weights(variance, typical, ones, members=members, mode="noise"), [[[1, 1]], [[0.25, 0.25]]]
    )
    factor = np.array([2.0, 3.0, 1.0])
    np.testing.assert_allclose(
        cell_weights(variance, typical, factor, members=members, mode="none"), [[[2, 2]], [[3, 3]]]
    )
    extreme = cell_weights(np.array([[[1e-6]], [[1e6]]]), typical, ones, members=members, mode="inverse-variance")
    np.testing.assert_allclose(extreme.ravel(), [10, 0.02])


def test_growth_is_the_gain_or_at_most_the_sky():
    sky, sigma = np.array([100.0, 100.0, -5.0]), np.array([10.0, 10.0, 10.0])
    growth = growth_of_variance(sky, sigma, np.array([2.0, 0.0, 0.0]), np.array([1.0, 2.0, 1.0]))
    np.testing.assert_allclose(growth, [0.5, 0.5, 10.0])


def test_blur_grows_with_the_difference_of_seeing():
    terms = blur_terms(np.array([3.0, 3.0, 4.0, np.nan]), np.array([0.1, np.nan, 0.0, 0.2]), lattice=False)
    assert terms.shape == (2, 4)
    assert np.isfinite(terms).all()
    assert terms[1, 2] > terms[1, 0]
    equal = blur_terms(np.full(3, 3.0), np.full(3, 0.1), lattice=False)
    np.testing.assert_allclose(equal[0], 0.01)
    np.testing.assert_allclose(np.sqrt(equal[1]), 0.04 * (3 / 2.3548) ** 2)
    assert (blur_terms(np.full(2, np.nan), np.full(2, 0.1), lattice=True)[1] > 0).all()
