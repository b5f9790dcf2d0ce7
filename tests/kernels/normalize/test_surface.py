"""Surfaces against scipy's B-splines, and what the modes promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from lerar_dask.kernels.normalize.surface import (
    axis_matrix,
    axis_modes,
    evaluate_surface,
    fit_surface,
    surface_on_grid,
    surface_shape,
)

SHAPE, TILE = (410, 600), 128


def test_against_scipy_splines():
    n, length = 5, 600
    knots = np.arange(-3, n + 4) * length / n - 0.5
    points = np.linspace(-0.5, length - 0.51, 173)
    expected = BSpline.design_matrix(points, knots, 3).toarray()
    np.testing.assert_allclose(axis_matrix(points, length, n), expected, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=10, max_size=10))
def test_third_order_polynomials_are_exact(c):
    ys, xs = np.linspace(0, 409, 20), np.linspace(0, 599, 20)

    def polynomial(y, x):
        u, v = x / 600, y / 410
        terms = (1, u, v, u * u, u * v, v * v, u**3, u * u * v, u * v * v, v**3)
        return sum(a * t for a, t in zip(c, terms, strict=True))

    coefficients = fit_surface(polynomial(*np.meshgrid(ys, xs, indexing="ij")) + 0 * ys[:, None], SHAPE, TILE, ys, xs)
    y, x = np.meshgrid(np.linspace(0, 409, 7), np.linspace(0, 599, 9), indexing="ij")
    np.testing.assert_allclose(evaluate_surface(coefficients, SHAPE, TILE, y, x), polynomial(y, x), atol=1e-5)


def test_continues_linearly_beyond_the_frame():
    rng = np.random.default_rng(1)
    ny, nx = surface_shape(SHAPE, TILE)
    table = rng.standard_normal((ny + 3, nx + 3))
    x = np.array([599.5, 609.5, 619.5, -0.5, -20.5, -40.5])
    v = evaluate_surface(table, SHAPE, TILE, np.full(6, 200.0), x).astype(float)
    assert v[2] - v[1] == pytest.approx(v[1] - v[0], abs=1e-5)
    assert v[5] - v[4] == pytest.approx(v[4] - v[3], abs=1e-5)
    inside = evaluate_surface(table, SHAPE, TILE, np.full(2, 200.0), np.array([599.49, 599.5])).astype(float)
    assert (v[1] - v[0]) / 10 == pytest.approx((inside[1] - inside[0]) / 0.01, abs=1e-3)


def test_a_grid_has_the_values_of_its_points():
    ny, nx = surface_shape(SHAPE, TILE)
    table = np.random.default_rng(3).standard_normal((ny + 3, nx + 3))
    ys, xs = np.arange(3.5, 410, 8), np.arange(-20.0, 640, 9)
    expected = evaluate_surface(table, SHAPE, TILE, *np.meshgrid(ys, xs, indexing="ij"))
    found = surface_on_grid(table, SHAPE, TILE, ys, xs)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_wrong_table_is_refused():
    with pytest.raises(ValueError, match="the frame asks for"):
        evaluate_surface(np.zeros((4, 4)), SHAPE, TILE, np.zeros(1), np.zeros(1))


def test_modes_are_orthonormal_and_start_flat():
    edges = np.minimum(np.arange(0, 420, 16), 410)
    modes = axis_modes(edges, 410, 3)
    widths = np.diff(edges) / 410
    np.testing.assert_allclose(modes.values.T @ (modes.values * widths[:, None]), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(np.diff(modes.values[:, 0]), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(modes.values[:-1, 1], 2), 0, atol=1e-9)
    assert (modes.roughness[:2] == 0).all()
    assert (np.diff(modes.roughness[1:]) > 0).all()
