"""Color spaces against scikit-image and the standard library, and there and back."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from skimage import color as sk

from lerar_dask.kernels.picture.color import SPACES, from_lab, linear_of, luminance_of, srgb_of, to_lab


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    rng = np.random.default_rng(4)
    corners = np.array([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)], float)
    return np.concatenate([corners, rng.random((500, 3)), 1e-3 * rng.random((50, 3))]).T.astype(np.float32)


def test_lab(rgb):
    wanted = sk.rgb2lab(rgb.T.astype(float)).T / 100
    np.testing.assert_allclose(to_lab(rgb), wanted, atol=2e-4)
    np.testing.assert_allclose(from_lab(to_lab(rgb)), rgb, atol=2e-5)


def test_xyz(rgb):
    white = sk.rgb2xyz(np.ones((1, 1, 3)))[0, 0]
    wanted = (sk.rgb2xyz(rgb.T.astype(float)) / white).T
    np.testing.assert_allclose(SPACES["xyz"][0](rgb), wanted, atol=2e-4)


def test_hsv_and_hsl(rgb):
    hsv, hsi = SPACES["hsv"][0](rgb), SPACES["hsi"][0](rgb)
    for k, (r, g, b) in enumerate(rgb.T.astype(float)):
        np.testing.assert_allclose(hsv[:, k], colorsys.rgb_to_hsv(r, g, b), atol=3e-5)
        h, light, s = colorsys.rgb_to_hls(r, g, b)
        np.testing.assert_allclose(hsi[:, k], (h, s, light), atol=3e-5)


def test_lch_is_lab_in_polar_form(rgb):
    lab, lch = to_lab(rgb), SPACES["lch"][0](rgb)
    np.testing.assert_allclose(lch[1] * np.cos(2 * np.pi * lch[2]), lab[1], atol=1e-6)
    np.testing.assert_allclose(lch[1] * np.sin(2 * np.pi * lch[2]), lab[2], atol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_there_and_back(rgb, space):
    there, back = SPACES[space]
    np.testing.assert_allclose(back(there(rgb)), rgb, atol=3e-5)
    assert there(rgb).dtype == np.float32


def test_luminance_is_that_of_the_standard(rgb):
    np.testing.assert_allclose(luminance_of(linear_of(rgb)), sk.rgb2xyz(rgb.T.astype(float))[:, 1], atol=1e-4)


def test_transfer_there_and_back_and_odd():
    x = np.linspace(-2, 2, 401, dtype=np.float32)
    np.testing.assert_allclose(srgb_of(linear_of(x)), x, atol=1e-5)
    np.testing.assert_allclose(linear_of(-x), -linear_of(x), atol=1e-7)
