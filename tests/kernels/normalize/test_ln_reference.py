"""Skies of a night brought to an image of the same field: against what the image is without its noise."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from lerar_dask.kernels.normalize.cells import cell_edges
from lerar_dask.kernels.normalize.channel import Cells, solve_skies
from lerar_dask.kernels.normalize.ln_reference import adopt_reference
from lerar_dask.kernels.normalize.surface import evaluate_surface

SHAPE, CELL, TILE, NOISE, N = (480, 640), 16, 128, 3.0, 12
MIDDLE = np.array([319.5, 239.5])
RNG = np.random.default_rng(3)
NEBULA = sum(a * gaussian_filter(RNG.standard_normal((400, 440)), s) * s * 3.5 for a, s in ((20.0, 60), (8.0, 20)))


def _centers(length):
    edges = np.minimum(cell_edges(length, CELL) * 8, length)
    return (edges[:-1] + edges[1:] - 1) / 2


Y, X = np.meshgrid(_centers(SHAPE[0]), _centers(SHAPE[1]), indexing="ij")


def scene(x, y):
    return map_coordinates(NEBULA, [y / 2 + 80, x / 2 + 60], order=1, mode="nearest")


def sub_sky(k, x):
    return 800 * (1 + 0.02 * k) * (1 + 0.1 * np.cos(0.3 * k) * (x - 320) / 400)


def reference_sky(x, y):
    """Of the image R, in its own pixels: steep and curved, in another unit."""
    u, v = (x - 320) / 400, (y - 240) / 400
    return 0.05 * (1 + 0.3 * u - 0.2 * v + 0.1 * u * v + 0.1 * (v * v - u * u))


def placed(sign, shift, size=1.0):
    reference_to_sub = np.diag([sign * size, sign * size, 1.0])
    reference_to_sub[:2, 2] = MIDDLE - sign * size * MIDDLE + shift
    return reference_to_sub


def back(reference_to_sub, x, y):
    points = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(reference_to_sub).T
    return points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]


def night(away=(0, 0)):
    """Cells, transforms and scales of subs; some lie `away` from the others."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(0, 0.1, N))
    value, transforms = [], []
    for k in range(N):
        shift = rng.uniform(-20, 20, 2) + (np.array(away) if k >= N // 2 else 0)
        reference_to_sub = placed(-1.0 if k % 2 else 1.0, shift if k % 2 == 0 else -shift)
        value.append(
            scale[k] * scene(*back(reference_to_sub, X, Y)) + sub_sky(k, X) + NOISE * rng.standard_normal(X.shape)
        )
        transforms.append(reference_to_sub)
    value = np.array(value, np.float32)
    cells = Cells(np.arange(N), SHAPE, value, np.full(value.shape, 1 / NOISE**2, np.float32))
    return cells, np.array(transforms), scale


def image_of(reference_to_sub, scale):
    """Cells of R."""
    noise = scale * NOISE
    value = scale * scene(*back(reference_to_sub, X, Y)) + reference_sky(X, Y)
    value = (value + noise * np.random.default_rng(9).standard_normal(X.shape)).astype(np.float32)
    return Cells(np.zeros(1, np.int64), SHAPE, value[None], np.full((1, *X.shape), 1 / noise**2, np.float32))


def solved(cells, transforms, scale):
    return solve_skies(
        [cells], transforms, ln_scale=np.log(scale), scale_error=np.full(N, 0.002), exposure_s=np.full(N, 60.0),
        time_s=np.arange(N) * 150.0, cell_px=CELL, tile_px=TILE, reference=0,
    )  # fmt: skip


def adopted(skies, image, reference_to_sub, transforms, ln_scale, **more):
    return adopt_reference(
        skies,
        image,
        reference_to_sub,
        transforms=transforms,
        shapes=[SHAPE] * N,
        ln_scale=ln_scale,
        tile_px=TILE,
        **more,
    )


def errors(skies, transforms, scale, reference_to_sub, s_r, k):
    """Of what becomes of sub k without noise, less R without noise, in sigma of a cell of R; and the places in R."""
    x, y = back(transforms[k], X, Y)
    light = scale[k] * scene(x, y) + sub_sky(k, X)
    sky = evaluate_surface(skies.coefficients[k], SHAPE, TILE, Y, X)
    inside = np.stack([x, y, np.ones_like(x)], axis=-1) @ reference_to_sub.T
    rx, ry = inside[..., 0], inside[..., 1]
    wanted = s_r * scene(x, y) + reference_sky(rx, ry)
    covered = (rx > 0) & (ry > 0) & (rx < SHAPE[1] - 1) & (ry < SHAPE[0] - 1)
    return ((light - sky) / skies.scale[k] + skies.sky_level - wanted)[covered] / (s_r * NOISE)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_all_subs_become_the_image_without_its_noise(sign):
    cells, transforms, scale = night()
    s_r, reference_to_sub = 1e-4, placed(sign, np.array([30.0, -25.0]))
    result = adopted(
        solved(cells, transforms, scale),
        image_of(reference_to_sub, s_r),
        reference_to_sub,
        transforms,
        np.append(np.log(scale), np.log(s_r)),
    )
    assert result.scale == pytest.approx(s_r / scale[0], rel=0.01)
    assert result.skies.sky_level == pytest.approx(0.05, rel=0.01)
    assert 0.8 < result.covered < 1
    assert 0.5 <= result.variance_ratio < 1.6
    for k in range(N):
        error = errors(result.skies, transforms, scale, reference_to_sub, s_r, k)
        assert error.std() < 0.5
        assert abs(error.mean()) < 0.2


def test_smaller_pixels_have_less_sky():
    cells, transforms, scale = night()
    reference_to_sub = placed(1.0, np.zeros(2), size=1.25)
    s_r = 0.4
    ln_scale = np.append(np.log(scale), np.log(s_r * 1.25**2))
    result = adopted(
        solved(cells, transforms, scale), image_of(reference_to_sub, s_r), reference_to_sub, transforms, ln_scale
    )
    assert result.scale == pytest.approx(s_r / scale[0], rel=0.01)
    assert errors(result.skies, transforms, scale, reference_to_sub, s_r, 3).std() < 0.5


def test_a_constant_for_global():
    cells, transforms, scale = night()
    reference_to_sub, s_r = placed(1.0, np.zeros(2)), 1.0
    skies = solved(cells, transforms, scale)
    ln_scale = np.append(np.log(scale), 0.0)
    result = adopted(skies, image_of(reference_to_sub, s_r), reference_to_sub, transforms, ln_scale, constant_only=True)
    moved = result.skies.coefficients[0] - skies.coefficients[0]
    assert np.ptp(moved) < 1e-6 * np.abs(skies.coefficients[0]).max()


def test_parts_that_do_not_overlap_are_each_fitted():
    cells, transforms, scale = night(away=(1500, 0))
    reference_to_sub, s_r = placed(1.0, np.zeros(2)), 1.0
    skies = solved(cells, transforms, scale)
    assert skies.component.max() == 1
    # R lies over one of the parts only; the other one takes R's sky as it is there.
    ln_scale = np.append(np.log(scale), 0.0)
    result = adopted(skies, image_of(reference_to_sub, s_r), reference_to_sub, transforms, ln_scale)
    assert all(np.isfinite(c).all() for c in result.skies.coefficients)


def test_nothing_in_common():
    cells, transforms, scale = night()
    skies = solved(cells, transforms, scale)
    away = placed(1.0, np.array([5000.0, 0.0]))
    ln_scale = np.append(np.log(scale), 0.0)
    assert adopted(skies, image_of(away, 1.0), away, transforms, ln_scale).covered == 0
    empty = replace(image_of(away, 1.0), value=RNG.standard_normal((1, *X.shape)).astype(np.float32))
    starless, reference_to_sub = np.append(np.log(scale), np.nan), placed(1.0, np.zeros(2))
    assert np.isnan(adopted(skies, empty, reference_to_sub, transforms, starless).scale)


def test_the_nebula_tells_the_scale_where_no_star_does():
    cells, transforms, scale = night()
    reference_to_sub, s_r = placed(-1.0, np.array([10.0, 20.0])), 3.0
    starless = np.append(np.log(scale), np.nan)
    result = adopted(
        solved(cells, transforms, scale), image_of(reference_to_sub, s_r), reference_to_sub, transforms, starless
    )
    assert result.scale == pytest.approx(s_r / scale[0], rel=0.03)
