"""Block statistics against a slow version."""

import numpy as np
import pytest

from lerar_dask.kernels.measure.background import background_grid
from lerar_dask.kernels.measure.blocks import block_statistics
from lerar_dask.kernels.robust.medians import median_of


@pytest.fixture
def sub():
    return np.random.default_rng(0).normal(500, 10, (100, 92)).astype(np.float32)


def test_means_and_counts_of_all_blocks_also_partial_ones(sub):
    blocks = block_statistics(sub, background_grid(sub, cfa=None), cfa=None)
    assert blocks.shape == (1, 13, 12, 3)
    for by, bx in ((0, 0), (5, 7), (12, 3), (12, 11)):
        part = sub[by * 8 : by * 8 + 8, bx * 8 : bx * 8 + 8]
        assert blocks[0, by, bx, 0] == pytest.approx(part.mean(), abs=1e-3)
        assert blocks[0, by, bx, 1] == part.size
    assert (blocks[..., 2] == 0).all()


def test_far_outliers_are_clipped_and_counted(sub):
    grid = background_grid(sub, cfa=None)
    clean = block_statistics(sub, grid, cfa=None)[0, 4, 4]
    sub[35, 36] += 5000
    sub[36, 36] -= 400
    blocks = block_statistics(sub, grid, cfa=None)[0]
    assert blocks[4, 4, 1] == 62
    assert blocks[4, 4, 0] == pytest.approx(clean[0], abs=1)
    assert blocks[4, 4, 2] == pytest.approx(5000, abs=40)
    assert (np.delete(blocks[..., 1].ravel(), 4 * 12 + 4)[: 11 * 12] >= 32).all()


def test_missing_pixels_are_not_counted(sub):
    grid = background_grid(sub, cfa=None)
    sub[8:16, 8:16] = np.nan
    sub[16, 16] = np.nan
    blocks = block_statistics(sub, grid, cfa=None)[0]
    assert np.isnan(blocks[1, 1, 0])
    assert blocks[1, 1, 1] == 0
    assert blocks[2, 2, 1] == 63
    assert blocks[2, 2, 0] == pytest.approx(np.nanmean(sub[16:24, 16:24]), abs=1e-3)


def test_a_faint_bump_stays_in_the_mean(sub):
    """The mean is linear in what is below the clip: nothing is invented, nothing is lost."""
    grid = background_grid(sub, cfa=None)
    before = block_statistics(sub, grid, cfa=None)[0, 4, 4, 0]
    sub[34:38, 34:38] += 15
    assert block_statistics(sub, grid, cfa=None)[0, 4, 4, 0] - before == pytest.approx(15 * 16 / 64, abs=1e-3)


def test_colors_are_averaged_apart(sub):
    sub[0::2, 1::2] += 300
    grid = background_grid(sub, cfa="GRBG")
    blocks = block_statistics(sub, grid, cfa="GRBG")
    red = sub[40:48, 40:48][0::2, 1::2]
    green = np.concatenate([sub[40:48, 40:48][0::2, 0::2], sub[40:48, 40:48][1::2, 1::2]])
    assert blocks[0, 5, 5, 0] == pytest.approx(red.mean(), abs=1e-3)
    assert blocks[1, 5, 5, 0] == pytest.approx(green.mean(), abs=1e-3)
    assert blocks[:, 5, 5, 1].tolist() == [16, 32, 16]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 63, 64, 1001, 1002])
def test_median_is_that_of_numpy(dtype, n):
    rng = np.random.default_rng(n)
    for values in (rng.normal(size=n), rng.integers(0, 3, n), np.arange(n), -np.arange(n)):
        values = values.astype(dtype)
        assert median_of(values.copy()) == np.median(values)
