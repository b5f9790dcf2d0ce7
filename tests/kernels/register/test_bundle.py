"""Bundle adjustment: loops of panels close, the sky's curvature is found, and a general solver finds the same."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from lerar_dask.kernels.register.bundle import Frames, Sightings, adjust, measure_curvature
from lerar_dask.kernels.register.joint import joint_pass
from lerar_dask.kernels.register.sphere import charts_at
from lerar_dask.kernels.register.transform import apply, compose, fit, invert

H, W = 750, 1000
MIDDLE = np.array([(W - 1) / 2, (H - 1) / 2])
FIELD = np.stack(np.meshgrid(np.linspace(0, W, 5), np.linspace(0, H, 5)), -1).reshape(-1, 2)


def turned(x, y, roll):
    """Rotation of a camera: to the right, down, about its axis (radians)."""
    right = np.array([[np.cos(x), 0, -np.sin(x)], [0, 1, 0], [np.sin(x), 0, np.cos(x)]])
    down = np.array([[1, 0, 0], [0, np.cos(y), -np.sin(y)], [0, np.sin(y), np.cos(y)]])
    about = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1.0]])
    return about @ down @ right


def mosaic(side, per, *, width_deg=2.0, noise=0.1, stars=200, overlap=0.15, seed=1):
    """True transforms, star lists and first guesses (chains of similarities on a flat sky) of panels, middle one first."""
    rng = np.random.default_rng(seed)
    focal = W / np.radians(width_deg)
    camera = np.array([[focal, 0, MIDDLE[0]], [0, focal, MIDDLE[1]], [0, 0, 1.0]])
    step = np.array([W, H]) * (1 - overlap)
    extent = step * (side - 1) / 2 + 0.7 * np.array([W, H])
    n = int(stars * np.prod(2 * extent) / (W * H))
    rays = np.column_stack([rng.uniform(-1, 1, (n, 2)) * extent / focal, np.ones(n)])
    flux = 1 / rng.random(n)
    middle = side // 2
    panels = sorted(((i, j) for i in range(side) for j in range(side)), key=lambda p: p != (middle, middle))
    truth, lists = [], []
    for i, j in panels:
        for k in range(per):
            home = (i, j, k) == (middle, middle, 0)
            at = (np.array([j - middle, i - middle]) * step + rng.uniform(-20, 20, 2) * (not home)) / focal
            turn = turned(*at, 0.0 if home else np.radians(rng.uniform(-1, 1)))
            seen = rays @ turn.T
            xy = seen[:, :2] / seen[:, 2:] * focal + MIDDLE
            inside = ((xy > 0) & (xy < [W, H])).all(axis=1)
            order = np.argsort(-flux[inside])
            off = xy[inside] + rng.normal(0, noise, (inside.sum(), 2))
            lists.append(np.column_stack([off, np.full(len(off), noise), flux[inside]])[order])
            matrix = camera @ turn @ np.linalg.inv(camera)
            truth.append(matrix / matrix[2, 2])
    first = []
    for matrix in truth:
        here = apply(invert(matrix), FIELD)
        first.append(fit(here, FIELD + rng.normal(0, 1.5, FIELD.shape), np.ones(len(FIELD)), model="similarity"))
    first[0] = np.eye(3)
    return np.array(truth), np.array(first), lists, focal**-2.0


def off(truth, found):
    """How far points of the frames are from where they belong, (n, points), once the plane as a whole is brought home."""
    here = np.array([apply(invert(f), FIELD) for f in found])
    there = np.array([apply(invert(t), FIELD) for t in truth])
    home = fit(here.reshape(-1, 2), there.reshape(-1, 2), np.ones(there.size // 2), model="homography")
    return np.hypot(*np.moveaxis(apply(home, here.reshape(-1, 2)).reshape(here.shape) - there, -1, 0))


def test_loops_of_five_by_five_panels_close():
    truth, first, lists, curvature = mosaic(5, 4)
    n = len(truth)
    joint = joint_pass(first, lists, ["a"] * n, MIDDLE[None].repeat(n, 0), reference=0)
    assert joint.model == {"a": "similarity"}, "the sphere explains what is no similarity on the plane"
    assert joint.curvature == pytest.approx(curvature, rel=0.02)
    error = off(truth, joint.transforms)
    assert np.sqrt(np.mean(error**2) / 2) < 0.03
    corners = [k for k in range(n) if np.hypot(*(apply(invert(truth[k]), MIDDLE[None])[0] - MIDDLE) / [W, H]) > 2.2]
    assert len(corners) == 16
    assert np.sqrt(np.mean(error[corners] ** 2) / 2) < 0.06
    assert np.array_equal(joint.transforms[0], np.eye(3))


def test_a_flat_sky_is_told_as_flat():
    truth, first, lists, _ = mosaic(3, 2, width_deg=0.01)
    joint = joint_pass(first, lists, ["a"] * len(truth), MIDDLE[None].repeat(len(truth), 0), reference=0)
    assert joint.curvature == 0.0
    assert np.sqrt(np.mean(off(truth, joint.transforms) ** 2) / 2) < 0.04


def sightings_of(truth, rng, noise):
    """Stars on a plane, seen by frames without doubt of which is which."""
    stars = rng.uniform(-1500, 2500, (400, 2))
    rows = []
    for i, matrix in enumerate(truth):
        xy = apply(matrix, stars)
        inside = np.flatnonzero(((xy > 0) & (xy < [W, H])).all(axis=1))
        rows.append((np.full(len(inside), i), inside, xy[inside] + rng.normal(0, noise, (len(inside), 2))))
    frame, star, xy = (np.concatenate(c) for c in zip(*rows, strict=True))
    often = np.bincount(star)[star] > 1
    return Sightings(frame[often], star[often], xy[often], np.full(often.sum(), noise))


def test_a_general_solver_finds_the_same():
    rng = np.random.default_rng(4)
    truth = []
    for k in range(5):
        angle = 0.01 * k
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        truth.append(
            np.block([[turn, np.array([[-500.0 * (k % 3)], [400.0 * (k // 3)]])], [np.zeros((1, 2)), np.eye(1)]])
        )
    truth = np.array(truth)
    seen = sightings_of(truth, rng, 1e-3)  # so precise that robust weights do not bend: Cauchy's cost is used in both
    frames = Frames(np.array([MIDDLE] * 5), ["similarity"] * 5, 0)
    found = adjust(truth, seen, frames, 0.0)
    names = np.unique(seen.star)
    star = np.searchsorted(names, seen.star)

    def residuals(x):
        a, b, c, d = np.concatenate([[[1.0, 0, 0, 0]], x[:16].reshape(4, 4)]).T
        places = x[16:].reshape(-1, 2)[star]
        i = seen.frame
        there = np.stack(
            [a[i] * places[:, 0] - b[i] * places[:, 1] + c[i], b[i] * places[:, 0] + a[i] * places[:, 1] + d[i]]
        )
        r = (there.T - seen.xy) / seen.sigma[:, None]
        size = np.hypot(*r.T)
        # sqrt of Cauchy's cost, along the residual's direction
        return (r * (2.4 * np.sqrt(np.log1p((size / 2.4) ** 2)) / np.maximum(size, 1e-12))[:, None]).ravel()

    first = np.array([[t[0, 0], t[1, 0], t[0, 2], t[1, 2]] for t in truth[1:]]).ravel()
    at = np.zeros((len(names), 2))
    for i, matrix in enumerate(truth):
        rows = seen.frame == i
        at[star[rows]] = apply(invert(matrix), seen.xy[rows])
    best = least_squares(
        residuals, np.concatenate([first, at.ravel()]), x_scale="jac", method="trf", xtol=1e-14, ftol=1e-14
    )
    told = best.x[:16].reshape(4, 4)
    mine = np.array([[t[0, 0], t[1, 0], t[0, 2], t[1, 2]] for t in found[1:]])
    # errors of both are 1e-3 px / sqrt(stars); a fifth of that, since weights are renewed three times only
    assert np.abs(mine[:, 2:] - told[:, 2:]).max() < 2e-4
    assert np.abs(mine[:, :2] - told[:, :2]).max() < 2e-7


def test_frames_without_common_stars_stay():
    truth = np.array([np.eye(3), np.eye(3)])
    seen = Sightings(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)), np.zeros(0))
    frames = Frames(np.array([MIDDLE] * 2), ["similarity"] * 2, 0)
    assert np.array_equal(adjust(truth, seen, frames, 0.0), truth)
    assert measure_curvature(truth, seen, frames, 0.0) == 0.0


@pytest.mark.parametrize("point", [(0.0, 0.0), (4000.0, -2500.0)])
def test_a_chart_is_the_tangent_plane_at_its_point(point):
    """Angles and distances from the pointing are those of a gnomonic projection there (astropy)."""
    from astropy.wcs import WCS

    scale_deg = 0.005
    focal = 1 / np.radians(scale_deg)

    def projection(ra, dec):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [ra, dec], [1, 1], [scale_deg, scale_deg]
        return wcs

    plane = projection(30.0, 10.0)
    rng = np.random.default_rng(1)
    points = np.array(point) + rng.uniform(-800, 800, (20, 2))
    there = projection(*plane.pixel_to_world_values(*point))
    seen = np.stack(there.world_to_pixel_values(*plane.pixel_to_world_values(*points.T)), axis=1)
    chart = charts_at(np.array([point]), np.zeros(2), focal**-2.0)[0]
    own = apply(chart, points) - point
    assert np.allclose(apply(chart, np.array([point])), [point])
    # up to a turn about the pointing
    turn = fit(own, seen, np.ones(20), model="similarity")
    assert np.allclose(apply(turn, own), seen, atol=1e-5)
    assert np.linalg.det(turn[:2, :2]) == pytest.approx(1.0, abs=1e-8)
    assert np.allclose(compose(invert(chart), chart), np.eye(3))
