"""The common gradient on nights of sky parameters; the parallactic angle against its definition."""

import numpy as np
import pytest

from lerar_dask.kernels.normalize.common_gradient import (
    Frame,
    common_terms,
    evaluate_common,
    parallactic_angle,
    same_night,
    solve_common_gradient,
)

FRAME = Frame((599.5, 449.5), (600.0, 450.0))
X, Y = (a.ravel() for a in np.meshgrid(np.linspace(0, 1199, 24), np.linspace(0, 899, 18)))
TERMS = common_terms(X, Y, FRAME)


def _left(n, seed, *, hours, steady=False, turn=None):
    """Share of the sky that is left in the scene, in the mean gauge and by the gauge."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, n)
    turning = np.radians(50 if steady else 75) * t
    angle = rng.uniform(0, 6) + turning
    level = 800 * (1 + 0.15 * t) * rng.uniform(0.9, 1.1, n) / rng.uniform(0.7, 1, n)
    u, v = (X - 599.5) / 750, (Y - 449.5) / 750
    sky = level[:, None] * (1 + 0.11 * (np.outer(np.cos(angle), u) + np.outer(np.sin(angle), v)) + 0.01 * u * v)
    modes = np.linalg.lstsq(TERMS, sky.T, rcond=None)[0].T
    mean = modes.mean(axis=0)
    scene = TERMS @ mean + np.abs(rng.standard_normal(len(X)))
    gauge = solve_common_gradient(
        modes - mean, t * hours * 3600, scene, TERMS, frame=FRAME, turn=turning if turn else None, field_deg=3.0
    )
    left = mean + gauge.common
    before, after = (np.std(TERMS[:, 1:] @ m[1:]) / level.mean() for m in (mean, left))
    return before, after, gauge


@pytest.mark.parametrize("n", [18, 30])
def test_a_night_tells_its_gradient_from_the_scene(n):
    before, after = np.mean([_left(n, seed, hours=0.04 * n)[:2] for seed in range(5)], axis=0)
    assert after < 0.01 < before


def test_a_gradient_fixed_to_the_horizon():
    before, after, gauge = _left(40, 1, hours=5.0, steady=True, turn=True)
    assert after < 0.005 < before
    assert gauge.model in ("smooth", "horizon")


@pytest.mark.parametrize(("n", "hours"), [(40, 9.0), (40, 14.0), (300, 14.0), (300, 25.0), (2000, 11.0)])
@pytest.mark.parametrize("steady", [False, True])
def test_long_nights(n, hours, steady):
    """Of more than eight hours, as in winter: what ties the subs of a night together must be a covariance."""
    before, after, gauge = _left(n, 2, hours=hours, steady=steady, turn=steady)
    assert np.isfinite(gauge.common).all()
    assert after < 0.01 < before


def test_nights_are_parted_by_pauses():
    hours = np.array([30.0, 0.0, 5.0, 10.0, 31.0])
    same = same_night(hours)
    assert same[1, 3]
    assert same[0, 4]
    assert not same[0, 1]
    assert not same[3, 4]
    assert np.linalg.eigvalsh(same.astype(float)).min() > -1e-9


def test_levels_have_the_scenes_zero():
    _, _, gauge = _left(18, 3, hours=1.0)
    assert 600 < np.median(gauge.levels) < 1500
    assert (gauge.error[1:] > 0).all()
    assert gauge.error[0] == 0


def test_terms_are_orthonormal_over_the_frame():
    x, y = np.meshgrid(np.linspace(-0.5, 1199.5, 401), np.linspace(-0.5, 899.5, 401))
    terms = common_terms(x.ravel(), y.ravel(), FRAME)
    np.testing.assert_allclose(terms.T @ terms / len(terms), np.eye(10), atol=0.04)
    np.testing.assert_allclose(evaluate_common(np.eye(10)[1], X, Y, FRAME), TERMS[:, 1])


def test_parallactic_angle_on_the_meridian_and_beside_it():
    day = 86164.0905
    noon = {"latitude_deg": 48.0, "longitude_deg": 11.0, "dec_deg": 10.0}
    # The hour angle is 0 where the angle changes sign upward.
    t = np.linspace(0, day, 2000)
    q = parallactic_angle(t, ra_deg=100.0, **noon)
    rising = np.flatnonzero((q[:-1] < 0) & (q[1:] >= 0))
    assert len(rising) == 1
    after = parallactic_angle(t[rising] + day / 8, ra_deg=100.0, **noon)[0]
    h, phi, dec = np.radians(45), np.radians(48), np.radians(10)
    expected = np.arctan2(np.sin(h), np.tan(phi) * np.cos(dec) - np.sin(dec) * np.cos(h))
    assert after == pytest.approx(expected, abs=0.01)
