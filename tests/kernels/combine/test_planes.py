"""Combination within bounds against plain sums, and what happens where no sample is left."""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING
from lerar_dask.kernels.combine.planes import combine_between, finish_planes


def test_weighted_mean_noise_and_maps():
    rng = np.random.default_rng(0)
    rows, n, columns = 5, 70, 300
    cube = rng.normal(50, 10, (rows, n, columns)).astype(np.float32)
    cube[rng.random(cube.shape) < 0.1] = MISSING
    cube[2, :, 7] = MISSING
    lowest, highest = np.full((rows, columns), 35, np.float32), np.full((rows, columns), 70, np.float32)
    model = rng.uniform(0.5, 2, (3, 1, 4, n)).astype(np.float32)
    planes, counts = np.zeros((5, rows, columns), np.float32), np.zeros((n, 2), np.int64)
    marks = np.zeros((n, rows, columns), np.uint8)
    owner = np.arange(n)
    combine_between(
        cube,
        0,
        lowest=lowest,
        highest=highest,
        model=model,
        level=20.0,
        row_cell=3,
        owner=owner,
        planes=planes,
        counts=counts,
        marks=marks,
    )
    present = cube < 1e29
    kept = (cube >= 35) & (cube <= 70)
    cell = np.arange(columns) // 128
    weight, variance, growth = (model[cell, 0, i].T[None].astype(float) for i in range(3))
    w = kept * weight
    with np.errstate(invalid="ignore"):
        mean = (w * np.where(kept, cube, 0)).sum(axis=1) / w.sum(axis=1)
        noise = np.sqrt((w**2 * (variance + growth * np.maximum(mean - 20, 0)[:, None])).sum(axis=1)) / w.sum(axis=1)
    some = kept.any(axis=1)
    np.testing.assert_allclose(planes[0][some], mean[some], rtol=3e-6)
    np.testing.assert_allclose(planes[1][some], noise[some], rtol=1e-5)
    np.testing.assert_array_equal(planes[2], kept.sum(axis=1))
    np.testing.assert_array_equal(planes[3], (cube < 35).sum(axis=1))
    np.testing.assert_array_equal(planes[4], (present & (cube > 70)).sum(axis=1))
    np.testing.assert_array_equal(marks, ((cube < 35) | (present & (cube > 70))).transpose(1, 0, 2))
    np.testing.assert_array_equal(counts[:, 0], (cube < 35).sum(axis=(0, 2)))
    np.testing.assert_array_equal(counts[:, 1], (present & (cube > 70)).sum(axis=(0, 2)))


def test_ten_thousand_planes_are_summed_exactly():
    values = np.random.default_rng(1).normal(1000, 10, (1, 10_000, 1)).astype(np.float32)
    model = np.ones((1, 1, 4, 10_000), np.float32)
    planes, counts = np.zeros((5, 1, 1), np.float32), np.zeros((10_000, 2), np.int64)
    marks = np.zeros((0, 0, 0), np.uint8)
    bounds = np.full((1, 1), -np.inf, np.float32), np.full((1, 1), 1e29, np.float32)
    combine_between(
        values, 0, lowest=bounds[0], highest=bounds[1], model=model, level=0.0, row_cell=0, owner=np.arange(10_000),
        planes=planes, counts=counts, marks=marks,
    )  # fmt: skip
    assert abs(planes[0, 0, 0] / values.astype(float).mean() - 1) < 3e-7
    assert planes[2, 0, 0] == 10_000


def test_spare_samples_fill_only_what_is_empty():
    planes = np.zeros((5, 1, 3), np.float32)
    planes[:, 0, 0] = 8, 1, 4, 0, 0
    dropped = np.zeros((3, 5), np.int32)
    dropped[1, 1], dropped[1, 2] = 2, 1
    fallback = np.zeros((4, 3, 5))
    fallback[:, 1, 1] = 100, 1, 1, 1
    fallback[:, 1, 2] = 12, 2, 2, 8
    finish_planes(planes, dropped, fallback, 1, np.float32(100))
    np.testing.assert_allclose(planes[:, 0, 0], [108, 1, 4, 0, 2])
    np.testing.assert_allclose(planes[:, 0, 1], [106, np.sqrt(8) / 2, 2, 0, 1])
    assert np.isnan(planes[:2, 0, 2]).all()
    np.testing.assert_array_equal(planes[2:, 0, 2], 0)
