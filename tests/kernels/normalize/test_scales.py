"""Scales of simulated star lists, with outliers; the legacy line against a linear program."""

import numpy as np
from scipy.optimize import linprog

from lerar_dask.kernels.normalize.scales import combine_scales, fit_linear, match_stars, solve_scales


def _lists(seed=0, n_subs=12, n_stars=150):
    rng = np.random.default_rng(seed)
    truth = np.exp(rng.normal(0, 0.2, n_subs))
    flux = 10 ** rng.uniform(3, 5, n_stars)
    xy = rng.uniform(0, 1000, (n_stars, 2))
    rows = []
    for k in range(n_subs):
        seen = rng.random(n_stars) < 0.8
        error = np.sqrt(flux * truth[k] + 400)
        measured = flux * truth[k] + error * rng.standard_normal(n_stars)
        bad = rng.random(n_stars) < 0.03
        measured[bad] *= 1.5
        for j in np.flatnonzero(seen):
            rows.append((k, j, *(xy[j] + rng.normal(0, 0.1, 2)), measured[j], error[j]))
    return truth, np.array(rows)


def test_scales_of_a_night():
    truth, rows = _lists()
    found = match_stars(rows[:, 2:4], rows[:, 0].astype(int), tolerance_px=2.0)
    assert len(found.row) > 0.97 * len(rows)
    picked = rows[found.row]
    ln, error, flux = solve_scales(found.sub, found.star, picked[:, 4], picked[:, 5], n_subs=len(truth))
    expected = np.log(truth) - np.median(np.log(truth))
    assert np.std(ln - expected) < 0.002
    assert (error < 0.003).all()
    assert np.nanmax(flux) < 2.5e5


def test_long_exposures_whose_bright_stars_are_left_out():
    """The two kinds share faint stars only, which the long ones see best: the scales are found all the same."""
    rng = np.random.default_rng(3)
    flux = 10 ** rng.uniform(3, 5, 60)
    rows = []
    for k in range(10):
        scale = 1.0 if k < 5 else 6.0
        for j in np.flatnonzero(flux < (1e9 if k < 5 else 8e3)):
            error = np.sqrt(flux[j] * scale + 4000 * scale)
            rows.append((k, j, flux[j] * scale + error * rng.standard_normal(), error))
    sub, star, measured, error = np.array(rows).T
    ln, _, _ = solve_scales(sub.astype(int), star.astype(int), measured, error, n_subs=10)
    assert abs(np.median(ln[5:]) - np.median(ln[:5]) - np.log(6.0)) < 0.02


def test_one_catalog_star_per_star():
    _, rows = _lists(1)
    found = match_stars(rows[:, 2:4], rows[:, 0].astype(int), tolerance_px=2.0)
    for star in range(0, len(found.xy), 10):
        assert len(set(rows[found.row[found.star == star], 1])) == 1


def test_without_stars_exposures_decide():
    ln, error = combine_scales(np.full(3, np.nan), np.full(3, np.inf), np.array([60.0, 120.0, 60.0]))
    np.testing.assert_allclose(np.exp(ln), [1, 2, 1])
    np.testing.assert_allclose(error, 0.05)


def test_legacy_line_is_the_least_absolute_deviation():
    rng = np.random.default_rng(3)
    x = rng.uniform(100, 200, 101)
    y = 7 + 1.3 * x + rng.standard_normal(101)
    y[:10] += 60
    a, b = fit_linear(x, y)
    n = len(x)
    cost = np.concatenate([np.zeros(2), np.ones(2 * n)])
    design = np.hstack([np.ones((n, 1)), x[:, None], np.eye(n), -np.eye(n)])
    best = linprog(cost, A_eq=design, b_eq=y, bounds=[(None, None)] * 2 + [(0, None)] * 2 * n)
    assert np.abs(y - a - b * x).sum() <= best.fun * 1.0005
