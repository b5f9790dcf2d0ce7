"""Levels of rings against sorting each of them."""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.measure.rings import ring_levels


def by_hand(image: np.ndarray, x: float, y: float, inner: float, outer: float) -> tuple[float, float]:
    reach = int(outer)
    places = [
        (dy, dx)
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
        if inner**2 <= dx * dx + dy * dy <= outer**2
    ]
    jump = max(int(np.pi * (outer**2 - inner**2) / 40), 1)
    values = []
    for dy, dx in places[jump - 1 :: jump]:
        j, i = round(y) + dy, round(x) + dx
        if 0 <= j < image.shape[0] and 0 <= i < image.shape[1] and np.isfinite(image[j, i]):
            values.append(image[j, i])
    if len(values) < 8:
        return np.nan, np.nan
    values.sort()
    return values[len(values) // 2], values[7 * len(values) // 8]


def test_as_sorted_one_by_one_also_at_edges_and_beside_gaps():
    rng = np.random.default_rng(5)
    image = rng.normal(100, 10, (120, 150)).astype(np.float32)
    image[rng.random(image.shape) < 0.1] = np.nan
    image[:40, :40] = np.nan
    xy = rng.uniform(0, (149, 119), (300, 2))
    for inner, outer in ((3.0, 5.0), (8.6, 12.1)):
        levels = ring_levels(image, xy, inner_px=inner, outer_px=outer)
        expected = np.array([by_hand(image, x, y, inner, outer) for x, y in xy])
        np.testing.assert_array_equal(levels, expected)
        assert np.isnan(levels).any()


def test_no_positions():
    assert ring_levels(np.zeros((9, 9), np.float32), np.zeros((0, 2)), inner_px=2, outer_px=3).shape == (0, 2)
