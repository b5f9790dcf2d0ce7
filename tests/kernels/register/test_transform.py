"""Fits against scipy and against known transforms; the choice of the model; going there and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from lerar_dask.kernels.register.transform import MODELS, aicc, apply, compose, describe, fit, invert, robust_fit

MATRICES = {
    "shift": np.array([[1, 0, 12.5], [0, 1, -3.25], [0, 0, 1.0]]),
    "similarity": np.array([[0.6, -0.8, 1500], [0.8, 0.6, -200], [0, 0, 1.0]]),
    "affine": np.array([[0.99, -0.11, 30], [0.1, 1.02, -7], [0, 0, 1.0]]),
    "homography": np.array([[0.99, -0.11, 30], [0.1, 1.02, -7], [3e-6, -2e-6, 1.0]]),
}


def points(n, seed=0):
    return np.random.default_rng(seed).uniform([0, 0], [6000, 4000], (n, 2))


@pytest.mark.parametrize("model", MODELS)
def test_exact_points_give_the_matrix(model):
    xy = points(30)
    found = fit(xy, apply(MATRICES[model], xy), np.ones(30), model=model)
    assert np.abs(apply(found, xy) - apply(MATRICES[model], xy)).max() < 1e-7
    assert np.allclose(found, MATRICES[model], rtol=1e-7, atol=1e-9)


def test_mirrored_similarity():
    matrix = np.array([[0.6, 0.8, 10], [0.8, -0.6, 5], [0, 0, 1.0]])
    xy = points(20)
    assert np.allclose(fit(xy, apply(matrix, xy), np.ones(20), model="similarity", mirrored=True), matrix, atol=1e-8)
    assert describe(matrix, (100, 100)).mirrored


def test_weighted_affine_is_least_squares():
    rng = np.random.default_rng(1)
    xy, weight = points(40), rng.uniform(0.1, 5, 40)
    target = apply(MATRICES["affine"], xy) + rng.normal(0, 2, (40, 2))

    def misfit(p):
        return ((apply(np.append(p, [0, 0, 1]).reshape(3, 3), xy) - target) * np.sqrt(weight)[:, None]).ravel()

    oracle = least_squares(misfit, np.eye(3)[:2].ravel(), x_scale=[1e-3, 1e-3, 1] * 2, xtol=1e-14, ftol=1e-14).x
    found = fit(xy, target, weight, model="affine")
    assert np.abs(misfit(found[:2].ravel()) - misfit(oracle)).max() < 1e-4


def test_outliers_have_no_say():
    rng = np.random.default_rng(2)
    xy, sigma = points(200), np.full(200, 0.1)
    target = apply(MATRICES["similarity"], xy) + rng.normal(0, 0.1, (200, 2))
    target[:60] += rng.uniform(-30, 30, (60, 2))
    found, residual = robust_fit(xy, target, sigma, model="similarity")
    assert np.abs(apply(found, xy) - apply(MATRICES["similarity"], xy)).max() < 0.06
    assert np.median(residual[60:]) == pytest.approx(1.18, rel=0.15)


def test_known_errors_reach_the_limit():
    """Error of a shift from stars of 0.15 px is 0.15 / sqrt(n), robust weights cost little."""
    rng = np.random.default_rng(3)
    xy = points(100)
    found = [
        robust_fit(xy, xy + rng.normal(0, 0.15, (100, 2)), np.full(100, 0.15), model="shift")[0][:2, 2]
        for _ in range(200)
    ]
    assert np.std(found) == pytest.approx(0.015, rel=0.15)


@pytest.mark.parametrize("truth", MODELS)
def test_criterion_finds_the_model(truth):
    rng = np.random.default_rng(4)
    totals = dict.fromkeys(MODELS, 0.0)
    for _ in range(10):
        xy = points(100, seed=rng.integers(1 << 30))
        target = apply(MATRICES[truth], xy) + rng.normal(0, 0.1, (100, 2))
        for model, n_parameters in MODELS.items():
            totals[model] += aicc(robust_fit(xy, target, np.full(100, 0.1), model=model)[1], n_parameters)
    assert min(totals, key=totals.get) == truth


def test_criterion_needs_enough_stars():
    assert aicc(np.ones(7), MODELS["homography"]) == np.inf
    assert np.isfinite(aicc(np.ones(8), MODELS["homography"]))


def test_points_in_one_place_determine_nothing():
    xy = np.full((10, 2), 5.0)
    assert np.isnan(fit(xy, xy, np.ones(10), model="affine")).all()
    assert np.isnan(fit(points(3), points(3), np.zeros(3), model="similarity")).all()


@settings(max_examples=30, deadline=None)
@given(
    angle=st.floats(-180, 180),
    scale=st.floats(0.3, 3),
    x=st.floats(-5000, 5000),
    y=st.floats(-5000, 5000),
    tilt=st.floats(-1e-6, 1e-6),
)
def test_there_and_back(angle, scale, x, y, tilt):
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    matrix = np.array([[c, -s, x], [s, c, y], [tilt, -tilt, 1.0]])
    xy = points(20)
    assert np.abs(apply(invert(matrix), apply(matrix, xy)) - xy).max() < 1e-6
    assert np.allclose(compose(invert(matrix), matrix), np.eye(3), atol=1e-6)
    matrix[2, :2] = 0
    told = describe(matrix, (1, 1))
    assert told.scale == pytest.approx(scale)
    assert (told.shift_x, told.shift_y) == pytest.approx((x, y))
    assert abs((told.rotation_deg - angle + 180) % 360 - 180) < 1e-6
