"""Background grid against numpy's percentiles, and where percentiles have nothing to say."""

import numpy as np
import pytest

from lerar_dask.kernels.measure.background import background_grid, interpolate_grid, step_of


def noise(shape=(256, 320), level=1000.0, sigma=30.0, seed=0):
    return np.random.default_rng(seed).normal(level, sigma, shape).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.7, 3.0, 30.0])
def test_level_and_noise_of_plain_sky(sigma):
    grid = background_grid(noise(sigma=sigma), cfa=None)
    assert grid.shape == (1, 4, 5, 2)
    assert grid[..., 0].mean() == pytest.approx(1000.0, abs=0.03 * sigma)
    assert grid[..., 0].std() < 0.06 * sigma
    assert grid[..., 1].mean() == pytest.approx(sigma, rel=0.02)


def test_cells_agree_with_percentiles():
    image = noise()
    grid = background_grid(image, cfa=None)
    cell = image[64:128:2, 128:192]
    assert grid[0, 1, 2, 0] == pytest.approx(np.median(cell), abs=1.5)


def test_steps_of_integers_do_not_shift_the_level():
    rng = np.random.default_rng(3)
    image = np.round(rng.normal(20.3, 0.8, (512, 512))).astype(np.float32)
    grid = background_grid(image, cfa=None, step_adu=step_of(image))
    assert step_of(image) == 1.0
    assert grid[..., 0].mean() == pytest.approx(20.3, abs=0.05)
    # Bins as wide as the noise: linear inside a bin is good to a tenth.
    assert grid[..., 1].mean() == pytest.approx(np.hypot(0.8, 12**-0.5), rel=0.1)


def test_a_constant_sub_has_the_noise_of_its_steps():
    image = np.full((128, 128), 5.0, np.float32)
    image[::50, ::50] = 6.0
    grid = background_grid(image, cfa=None, step_adu=1.0)
    np.testing.assert_allclose(grid[..., 0], 5.0, atol=0.1)
    np.testing.assert_allclose(grid[..., 1], 12**-0.5, rtol=1e-5)


def test_a_tenth_of_stars_moves_the_level_little():
    image = noise((512, 512))
    rng = np.random.default_rng(1)
    bright = rng.random(image.shape) < 0.1
    image[bright] += rng.exponential(3000, bright.sum()).astype(np.float32)
    grid = background_grid(image, cfa=None)
    assert abs(np.median(grid[..., 0]) - 1000) < 3
    assert np.median(grid[..., 1]) == pytest.approx(30, rel=0.05)


def test_holes_take_their_neighbors_and_nothing_stays_nothing():
    image = noise()
    image[64:192, 64:192] = np.nan
    grid = background_grid(image, cfa=None)
    assert np.isfinite(grid).all()
    assert abs(grid[0, 1, 1, 0] - 1000) < 6
    assert np.isnan(background_grid(np.full((128, 128), np.nan, np.float32), cfa=None)).all()


def test_a_step_in_level_from_cell_to_cell_is_followed():
    image = noise()
    image[128:] += 5000
    image[:, 192:] *= 3
    grid = background_grid(image, cfa=None)
    np.testing.assert_allclose(grid[0, :2, :3, 0], 1000, atol=6)
    np.testing.assert_allclose(grid[0, 2:, :3, 0], 6000, atol=6)
    np.testing.assert_allclose(grid[0, 2:, 3:, 0], 18000, atol=18)


def test_colors_are_measured_apart():
    image = noise()
    image[0::2, 0::2] += 500
    image[1::2, 1::2] *= 2
    grid = background_grid(image, cfa="RGGB")
    np.testing.assert_allclose(np.median(grid[..., 0], axis=(1, 2)), (1500, 1000, 2000), atol=6)
    np.testing.assert_allclose(np.median(grid[..., 1], axis=(1, 2)), (30, 30, 60), rtol=0.06)


def test_interpolation_is_exact_for_planes():
    ys, xs = np.meshgrid([31.5, 95.5, 113.5], [31.5, 95.5], indexing="ij")
    field = (2 * ys + xs).astype(np.float32)
    found = interpolate_grid(field, np.array([40.0]), np.array([100.0]), shape=(100 + 0, 128), cell_px=64)
    assert field.shape == (3, 2)
    assert np.isfinite(found).all()
    inside = interpolate_grid(field[:2], np.array([50.0]), np.array([70.0]), shape=(128, 128), cell_px=64)
    assert inside[0] == pytest.approx(2 * 70 + 50, abs=1e-3)
