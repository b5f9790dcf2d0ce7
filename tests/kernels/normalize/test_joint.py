"""The joint solution on cells of a night with known scene and skies."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from lerar_dask.kernels.normalize.cells import cell_edges
from lerar_dask.kernels.normalize.channel import Cells, linear_fit_skies, solve_skies
from lerar_dask.kernels.normalize.slab import components, make_slab, scene_canvas
from lerar_dask.kernels.normalize.surface import evaluate_surface

SHAPE, CELL, TILE, NOISE = (480, 640), 16, 128, 3.0


def _centers(length):
    edges = np.minimum(cell_edges(length, CELL) * 8, length)
    return (edges[:-1] + edges[1:] - 1) / 2


GRID = np.meshgrid(_centers(SHAPE[0]), _centers(SHAPE[1]), indexing="ij")


def _night(n, seed=0, *, trail=False):
    """Cells, transforms, scales and skies; dithers, a flip, a turning gradient, 10 % of the cells missing."""
    rng = np.random.default_rng(seed)
    scene = sum(a * gaussian_filter(rng.standard_normal((400, 440)), s) * s * 3.5 for a, s in ((20.0, 60), (8.0, 20)))
    scale = np.exp(rng.normal(0, 0.1, n))
    y, x = GRID
    value, weight, transforms, skies = [], [], [], []
    for k in range(n):
        sign = -1.0 if k > n // 2 else 1.0
        shift = rng.uniform(-20, 20, 2) if k else np.zeros(2)
        middle = np.array([319.5, 239.5])
        reference_to_sub = np.array([[sign, 0, 0], [0, sign, 0], [0, 0, 1.0]])
        reference_to_sub[:2, 2] = middle - sign * middle + shift
        rx, ry = (x - reference_to_sub[0, 2]) * sign, (y - reference_to_sub[1, 2]) * sign
        angle, t = 1.3 * k / n, k / n
        u = ((rx - middle[0]) * np.cos(angle) + (ry - middle[1]) * np.sin(angle)) / 400
        sky = 800 * (1 + 0.2 * t) * (1 + 0.1 * u)
        cells = scale[k] * map_coordinates(scene, [ry / 2 + 80, rx / 2 + 60], order=1, mode="nearest") + sky
        cells += NOISE * rng.standard_normal(x.shape)
        if trail and k == 2:
            cells[np.arange(30), np.arange(30)] += 400.0
        good = rng.random(x.shape) > 0.1
        value.append(np.where(good, cells, 0))
        weight.append(good / NOISE**2)
        transforms.append(reference_to_sub)
        skies.append(sky)
    cells = Cells(np.arange(n), SHAPE, np.array(value, np.float32), np.array(weight, np.float32))
    return [cells], np.array(transforms), scale, np.array(skies)


def _solve(cells, transforms, scale, **more):
    n = len(scale)
    return solve_skies(
        cells,
        transforms,
        ln_scale=np.log(scale),
        scale_error=np.full(n, 0.002),
        exposure_s=np.full(n, 60.0),
        time_s=np.arange(n) * 150.0,
        cell_px=CELL,
        tile_px=TILE,
        reference=0,
        **more,
    )


def _errors(skies, truth):
    """Error of each sky in units of a sub of scale 1."""
    found = np.array([evaluate_surface(c, SHAPE, TILE, *GRID) for c in skies.coefficients])
    return (found - truth) / skies.scale[:, None, None]


def test_skies_of_a_night():
    cells, transforms, scale, truth = _night(16)
    skies = _solve(cells, transforms, scale)
    np.testing.assert_allclose(skies.scale, scale / scale[0], rtol=0.01)
    error = _errors(skies, truth)
    error -= error.mean()
    # Flipped subs see the common gradient turned; what subs of one side do not share is noise.
    side = error[:8]
    assert (side - side.mean(axis=0)).std() < 0.25 * NOISE
    assert side.mean(axis=0).std() < 0.01 * 800
    assert np.abs(error.mean(axis=(1, 2))).max() < 0.2 * NOISE
    assert (skies.component == 0).all()
    assert 0 < np.median(skies.error[0]) < NOISE


def test_the_tenth_percentile_of_the_scene_is_zero():
    cells, transforms, scale, _ = _night(8)
    skies = _solve(cells, transforms, scale)
    assert abs(np.nanpercentile(skies.scene, 10)) < 3.0
    assert 600 < skies.sky_level < 900


def test_a_trail_does_not_bend_the_sky():
    cells, transforms, scale, truth = _night(16, trail=True)
    plain, *_ = _night(16)
    error = _errors(_solve(cells, transforms, scale), truth)[2]
    clean = _errors(_solve(plain, transforms, scale), truth)[2]
    assert np.abs(error - clean).max() < NOISE


def test_scales_from_the_scene_when_stars_fail():
    cells, transforms, scale, _ = _night(16)
    n = len(scale)
    skies = solve_skies(
        cells, transforms, ln_scale=np.full(n, np.nan), scale_error=np.full(n, np.inf), exposure_s=np.full(n, 60.0),
        time_s=np.arange(n) * 150.0, cell_px=CELL, tile_px=TILE, reference=0,
    )  # fmt: skip
    assert np.std(np.log(skies.scale) - np.log(scale)) < 0.03 < np.std(np.log(scale))


def test_same_bits_again():
    cells, transforms, scale, _ = _night(6)
    first, second = _solve(cells, transforms, scale), _solve(cells, transforms, scale)
    assert all((a == b).all() for a, b in zip(first.coefficients, second.coefficients, strict=True))


def test_one_sub_stays_as_it_is():
    cells, transforms, scale, _ = _night(1)
    skies = _solve(cells, transforms, scale)
    sky = evaluate_surface(skies.coefficients[0], SHAPE, TILE, *GRID)
    assert np.ptp(sky) < 1e-2
    np.testing.assert_allclose(sky, skies.sky_level, rtol=1e-5)
    assert skies.scale[0] == 1


@pytest.mark.parametrize("n", [2, 3])
def test_few_subs_get_planes(n):
    cells, transforms, scale, truth = _night(n)
    error = _errors(_solve(cells, transforms, scale), truth)
    assert np.isfinite(error).all()
    assert np.abs((error[0] - error[1]) - (error[0] - error[1]).mean()).std() < NOISE


def test_global_takes_constants_only():
    cells, transforms, scale, _ = _night(6)
    skies = _solve(cells, transforms, scale, constant_only=True)
    assert all(np.ptp(c) < 1e-6 * abs(c).max() for c in skies.coefficients)


def test_linear_fit_brings_subs_to_the_reference():
    cells, transforms, _, _ = _night(4)
    cells[0].value[1] = 2 * cells[0].value[0] + 30
    cells[0].weight[1] = cells[0].weight[0]
    transforms[1] = transforms[0]
    skies = linear_fit_skies(cells, transforms, cell_px=CELL, tile_px=TILE, reference=0)
    assert skies.scale[1] == pytest.approx(2, rel=1e-4)
    np.testing.assert_allclose(skies.coefficients[1], 30, rtol=1e-3)


def test_subs_without_overlap_are_told_apart():
    cells, transforms, _, _ = _night(4)
    transforms[3, 0, 2] -= 5000
    scene = scene_canvas(transforms, np.tile(SHAPE, (4, 1)), cell_px=CELL)
    slab = make_slab(
        np.arange(4), cells[0].value, cells[0].weight, transforms=transforms, frame=SHAPE, scene=scene, tile_px=TILE
    )
    np.testing.assert_array_equal(components([slab], scene, n_subs=4), [0, 0, 0, 1])
