"""The sky of masters: tiles that are sky are found, at any height, slope and color of what else there is."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.kernels.picture.sky import (
    TILE_PX,
    fit_slope,
    fog_of,
    nebula_tiles,
    neutralize,
    sky_of,
    sky_tiles,
    slope_at,
    tile_statistics,
)

SHAPE = (640, 768)
LEVEL, SIGMA = np.array([500.0, 620.0, 410.0]), np.array([5.0, 4.0, 6.0])


@pytest.fixture(scope="module")
def masters() -> np.ndarray:
    """Three channels: sky, a nebula over half of the field, stars; no data at one edge."""
    rng = np.random.default_rng(3)
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    nebula = 80 * np.exp(-(((ys - 300) / 150) ** 2) - ((xs - 250) / 180) ** 2)
    image = LEVEL[:, None, None] + SIGMA[:, None, None] * rng.standard_normal((3, *SHAPE))
    image += np.array([1.0, 0.3, 0.2])[:, None, None] * nebula
    for y, x in zip(rng.integers(0, SHAPE[0], 300), rng.integers(0, SHAPE[1], 300), strict=True):
        image[:, y : y + 3, x : x + 3] += rng.uniform(50, 5000)
    image[1, :, 740:] = np.nan
    return image.astype(np.float32)


def test_sky_is_found(masters):
    tiles = tile_statistics(masters)
    assert tiles.shape == (10, 12, 3, 3)
    where = sky_tiles(tiles)
    assert 5 <= where.sum() <= 60
    level, sigma = sky_of(tiles, where)
    # Rings of the nebula are thinner than a hundredth of its peak there.
    np.testing.assert_allclose(level, LEVEL, atol=1.5)
    np.testing.assert_allclose(sigma, SIGMA, rtol=0.06)
    dim = nebula_tiles(tiles, where)
    assert dim.any()
    assert not (dim & where).any()


def test_tiles_do_not_depend_on_pieces(masters):
    whole = tile_statistics(masters)
    upper, lower = tile_statistics(masters[:, : 4 * TILE_PX]), tile_statistics(masters[:, 4 * TILE_PX :])
    np.testing.assert_array_equal(np.concatenate([upper, lower]), whole)


def test_no_sky_without_common_data():
    pixels = np.full((2, 128, 128), np.nan, np.float32)
    pixels[0] = 1
    assert not sky_tiles(tile_statistics(pixels)).any()


def test_fog_is_in_sigma_of_a_pixel():
    rng = np.random.default_rng(5)
    difference = (2.0 + rng.standard_normal((1, 256, 256))).astype(np.float32)
    tiles = tile_statistics(difference)[:, :, 0]
    assert fog_of(tiles, np.ones((4, 4), bool)) == pytest.approx(2.0, abs=0.05)
    assert np.isnan(fog_of(tiles, np.zeros((4, 4), bool)))


def test_modes(masters):
    image = masters[:, :, :740]
    zero = neutralize(image, LEVEL)
    np.testing.assert_allclose(np.median(zero[:, :60, 600:], axis=(1, 2)), 0, atol=0.5)
    assert (zero < 0).any()
    unit = image / np.float32(6000)
    target = neutralize(unit, LEVEL / 6000, mode="target", target=0.01)
    assert float(np.median(target[:, :60, 600:])) == pytest.approx(0.01, abs=1e-3)
    assert target.min() >= 0
    truncated = neutralize(unit, LEVEL / 6000, mode="truncate")
    assert (truncated[:, :60, 600:] == 0).mean() == pytest.approx(0.5, abs=0.05)
    rescaled = neutralize(unit, LEVEL / 6000, mode="rescale")
    assert rescaled.min() == 0
    assert rescaled.max() == 1
    np.testing.assert_array_equal(neutralize(unit, LEVEL / 6000, mode="rescale-as-needed"), rescaled)
    small = image / np.float32(20_000) + np.float32(0.1)
    inside = neutralize(small, LEVEL / 20_000, mode="rescale-as-needed")
    np.testing.assert_allclose(inside, small - (LEVEL / 20_000)[:, None, None], atol=1e-6)


@pytest.mark.parametrize("degree", [1, 2])
def test_slopes_come_back_and_spare_the_mean(degree):
    shape = (64 * 10, 64 * 14)
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    v, u = 2 * ys / (shape[0] - 1) - 1, 2 * xs / (shape[1] - 1) - 1
    true = 3.0 + 2.0 * u - 1.5 * v + (0.0 if degree == 1 else 0.8 * u * v + 0.5 * v**2)
    tiles = tile_statistics(true[None].astype(np.float32))[:, :, 0, 0]
    where = np.ones(tiles.shape, bool)
    tiles[2:4, 3:6] += 50  # a nebula
    slope = fit_slope(tiles, where, shape, degree)
    found = slope_at(slope, 0, 0, shape)
    np.testing.assert_allclose(found, true - true.mean(), atol=0.03)
    assert abs(found.mean()) < 0.01
    np.testing.assert_array_equal(slope_at(slope, 100, 50, (20, 30)), found[100:120, 50:80])
    assert slope.range == pytest.approx(np.ptp(true), rel=0.02)
