"""Stretches: fixed points, inverses, published numbers; arcsinh against astropy."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.visualization import AsinhStretch
from hypothesis import given
from hypothesis import strategies as st

from lerar_dask.kernels.picture.stretch import (
    Histogram,
    arcsinh_stretch,
    auto_histogram,
    hyperbolic_stretch,
    mtf,
    scale_to_white,
)

x = np.linspace(0, 1, 1001)


@given(st.floats(1e-4, 0.9999))
def test_mtf(m):
    assert mtf(m, 0.0) == 0
    assert mtf(m, np.float64(m)) == pytest.approx(0.5)
    assert mtf(m, 1.0) == pytest.approx(1)
    np.testing.assert_allclose(mtf(1 - m, mtf(m, x)), x, atol=1e-9)
    assert (np.diff(mtf(m, x)) > 0).all()


def test_histogram_is_clip_then_curve():
    curve = Histogram(shadows=0.1, midtones=0.25, highlights=0.6)
    values = np.array([-1, 0.1, 0.225, 0.6, 2, np.nan], np.float32)
    np.testing.assert_allclose(curve.apply(values), [0, 0, 0.5, 1, 1, np.nan], atol=1e-6)


def test_automatic_parameters_as_published():
    # median - black = 0.01 gives m = 0.0294 (B = 0.25), and takes the median to 0.25
    curve = auto_histogram(0.01, 0.0)
    assert curve.midtones == pytest.approx(0.0294, abs=1e-4)
    rng = np.random.default_rng(0)
    image = rng.normal(0.05, 0.002, 100_000).astype(np.float32)
    mad = float(np.median(np.abs(image - np.median(image))))
    curve = auto_histogram(float(np.median(image)), mad)
    assert curve.shadows == pytest.approx(0.05 - 2.8 * 0.002, abs=2e-4)
    assert float(np.median(curve.apply(image))) == pytest.approx(0.25, abs=1e-3)


def test_arcsinh_keeps_colors_and_is_astropys_curve():
    rgb = np.random.default_rng(1).random((3, 200)).astype(np.float32) * 0.3
    out = arcsinh_stretch(rgb, 50.0)
    np.testing.assert_allclose(out / out.max(axis=0), rgb / rgb.max(axis=0), rtol=1e-4)
    gray = np.broadcast_to(x.astype(np.float32), (3, x.size))
    np.testing.assert_allclose(arcsinh_stretch(gray, 50.0)[0], AsinhStretch(1 / 50.0)(x), atol=1e-5)


def test_too_bright_colors_keep_their_hue():
    rgb = np.array([[2.0, 0.5], [1.0, 0.2], [0.5, 0.1]], np.float32)
    np.testing.assert_allclose(scale_to_white(rgb), [[1, 0.5], [0.5, 0.2], [0.25, 0.1]], rtol=1e-6)


@pytest.mark.parametrize("b", [-2.0, -1.0, -0.5, 0.0, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("ends", [(0.0, 0.0, 1.0), (0.2, 0.1, 0.7)])
def test_hyperbolic(b, ends):
    sp, lp, hp = ends
    y = hyperbolic_stretch(x, 8.0, shape=b, symmetry=sp, protect_low=lp, protect_high=hp)
    assert y[0] == pytest.approx(0, abs=1e-6)
    assert y[-1] == pytest.approx(1, abs=1e-6)
    slope = np.diff(y.astype(float)) / np.diff(x)
    assert (slope > 0).all()
    assert abs(x[:-1][np.argmax(slope)] - sp) < 0.01 or b < -1  # contrast grows most at the symmetry point
    for inside in (x[:-1] < lp - 0.01, x[:-1] > hp + 0.01):
        if inside.any():
            assert np.ptp(slope[inside]) < 2e-3 * slope.max()
    assert np.abs(np.diff(slope)).max() < 0.05 * slope.max()  # no corner


def test_hyperbolic_of_one_is_the_midtones_function():
    m = 0.1
    y = hyperbolic_stretch(x, (1 - 2 * m) / m, shape=1.0)
    np.testing.assert_allclose(y, mtf(m, x), atol=1e-6)
