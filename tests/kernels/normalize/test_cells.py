"""Cells against plain averages; the star mask against a mask of pixels."""

import numpy as np

from lerar_dask.kernels.normalize.cells import bin_cells, cell_edges, cell_size, mask_blocks, mask_radius


def _blocks(image):
    h, w = image.shape
    by, bx = -(-h // 8), -(-w // 8)
    out = np.zeros((by, bx, 3), np.float32)
    for i in range(by):
        for j in range(bx):
            part = image[i * 8 : i * 8 + 8, j * 8 : j * 8 + 8]
            out[i, j, :2] = part.mean(), part.size
    return out


def test_cells_are_means_of_their_pixels():
    image = np.random.default_rng(0).normal(100, 5, (72, 100)).astype(np.float32)
    none = np.zeros((9, 13), bool)
    value, weight = bin_cells(_blocks(image), none, np.full((2, 2), 5.0), shape=(72, 100), cell_px=16, noise_cell_px=64)
    rows, columns = cell_edges(72, 16), cell_edges(100, 16)
    assert value.shape == (len(rows) - 1, len(columns) - 1)
    np.testing.assert_allclose(value[0, 0], image[:16, :16].mean(), rtol=1e-5)
    np.testing.assert_allclose(weight[0, 0], 256 / 25, rtol=1e-5)
    np.testing.assert_allclose(value[-1, -1], image[rows[-2] * 8 :, columns[-2] * 8 :].mean(), rtol=1e-5)


def test_masked_blocks_do_not_move_a_gradient():
    y, x = np.mgrid[:160, :160]
    image = (1000 + 3.0 * x - 2.0 * y).astype(np.float32)
    masked = np.random.default_rng(1).random((20, 20)) < 0.3
    value, weight = bin_cells(_blocks(image), masked, np.ones((3, 3)), shape=(160, 160), cell_px=16, noise_cell_px=64)
    centers = np.arange(10) * 16 + 7.5
    expected = 1000 + 3.0 * centers[None, :] - 2.0 * centers[:, None]
    good = weight > 0
    assert 60 < good.sum() <= 100
    # Without the correction a lost block moves a cell by up to 10.
    np.testing.assert_allclose(value[good], expected[good], atol=0.5)


def test_mask_takes_blocks_under_a_star():
    masked = mask_blocks(np.array([50.0]), np.array([40.0]), np.array([12.0]), shape=(96, 96))
    y, x = np.mgrid[:96, :96]
    share = ((y - 40.0) ** 2 + (x - 50.0) ** 2 <= 144).reshape(12, 8, 12, 8).mean(axis=(1, 3))
    assert masked[share > 0.2].all()
    assert not masked[share < 0.06].any()


def test_brighter_stars_are_masked_further_out():
    radius = mask_radius(np.array([10.0, 1e3, 1e5, 1e12]), fwhm_px=3.0, faintest=0.1)
    assert (np.diff(radius) > 0).all()
    assert radius[0] >= 3.0
    assert radius[-1] == 60.0
    alpha = 0.9808 * 3
    left = 1e5 * 2 / (np.pi * alpha**2) * (1 + (radius[2] / alpha) ** 2) ** -3
    np.testing.assert_allclose(left, 0.1, rtol=1e-6)


def test_thousands_of_subs_get_larger_cells():
    assert cell_size((4176, 6248), 100) == 32
    assert cell_size((4176, 6248), 5000) > 32
