"""Levels of rings against those of all their pixels."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.kernels.measure.rings import ring_levels


def pixels_of_the_ring(image: np.ndarray, x: float, y: float, inner: float, outer: float) -> np.ndarray:
    """All of them; the kernel looks at some 40."""
    i, j = np.mgrid[: image.shape[0], : image.shape[1]]
    r = np.hypot(i - round(y), j - round(x))
    values = image[(r >= inner) & (r <= outer)]
    return values[np.isfinite(values)]


@pytest.mark.parametrize(("inner", "outer"), [(3.0, 5.0), (8.6, 12.1), (20.0, 30.0)])
def test_levels_are_those_of_the_whole_ring_within_their_error(inner, outer):
    """Of normal noise: the median of n values is good to 1.25 sigma / sqrt(n), the 7/8 quantile to 1.6 / sqrt(n)."""
    rng = np.random.default_rng(5)
    image = rng.normal(100, 10, (150, 180)).astype(np.float32)
    image[rng.random(image.shape) < 0.1] = np.nan
    image[:50, :50] = np.nan
    xy = rng.uniform(0, (179, 149), (400, 2))
    levels = ring_levels(image, xy, inner_px=inner, outer_px=outer)
    whole = [pixels_of_the_ring(image, x, y, inner, outer) for x, y in xy]
    n = np.array([len(values) for values in whole])
    seen = n >= 0.7 * len(pixels_of_the_ring(np.zeros((150, 180)), 90, 75, inner, outer))  # not cut by edge or gap
    assert np.isfinite(levels[seen]).all()
    assert np.isnan(levels[n < 8]).all()
    for column, quantile, error in ((0, 0.5, 1.25), (1, 0.875, 1.6)):
        expected = np.array([np.quantile(values, quantile) if len(values) else np.nan for values in whole])
        away = (levels[:, column] - expected)[seen] / (10 * error / np.sqrt(np.minimum(n[seen], 30)))
        assert np.abs(away).max() < 4.5
        assert abs(away.mean()) < 0.35
        assert away.std() < 1.3


def test_a_neighbor_lifts_the_upper_level_alone():
    image = np.full((60, 60), 50, np.float32)
    image[25:36, 38:44] = 900  # a quarter of the ring, on one side
    ((level, upper),) = ring_levels(image, np.array([[30.0, 30.0]]), inner_px=8, outer_px=11)
    assert (level, upper) == (50, 900)


def test_no_positions():
    assert ring_levels(np.zeros((9, 9), np.float32), np.zeros((0, 2)), inner_px=2, outer_px=3).shape == (0, 2)
