"""SCNR, LRGB, chroma noise and wavelets: neutral stays neutral, and edges of pieces never show."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.kernels.picture.color import luminance_of, to_lab
from lerar_dask.kernels.picture.green import remove_green
from lerar_dask.kernels.picture.lrgb import chroma_reach_px, combine_lrgb, linear_lrgb, smooth_chroma
from lerar_dask.kernels.picture.wavelets import layers_of, reach_px, smooth


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    rng = np.random.default_rng(8)
    return rng.uniform(0.05, 0.9, (3, 60, 80)).astype(np.float32)


def test_green_formulas(rgb):
    r, g, b = rgb
    plain = {
        "average": np.minimum(g, (r + b) / 2),
        "maximum": np.minimum(g, np.maximum(r, b)),
        "minimum": np.minimum(g, np.minimum(r, b)),
    }
    for protection, wanted in plain.items():
        out = remove_green(rgb, protection=protection, keep_lightness=False)
        np.testing.assert_allclose(out[1], wanted, rtol=1e-6)
        np.testing.assert_array_equal(out[[0, 2]], rgb[[0, 2]])
        half = remove_green(rgb, protection=protection, amount=0.5, keep_lightness=False)
        np.testing.assert_allclose(half[1], (g + wanted) / 2, rtol=1e-5)
    for protection, m in (("maximum-mask", np.maximum(r, b)), ("additive-mask", np.minimum(1, r + b))):
        out = remove_green(rgb, protection=protection, amount=0.8, keep_lightness=False)
        np.testing.assert_allclose(out[1], g * 0.2 * (1 - m) + m * g, rtol=1e-4)


def test_green_keeps_lightness(rgb):
    dim = rgb * np.float32(0.5) + np.float32(0.2)
    kept = remove_green(dim)
    np.testing.assert_allclose(to_lab(kept)[0], to_lab(dim)[0], atol=0.01)
    assert (kept[1] <= dim[1] + 1e-3).all()


def test_lightness_is_replaced_and_hue_stays(rgb):
    pale = rgb * np.float32(0.2) + np.float32(0.4)
    light = np.random.default_rng(1).uniform(0.3, 0.7, pale.shape[1:]).astype(np.float32)
    before, after = to_lab(pale), to_lab(combine_lrgb(light, pale))
    np.testing.assert_allclose(after[0], light, atol=1e-3)
    np.testing.assert_allclose(after[1:], before[1:], atol=2e-3)


def test_saturation_transfer_as_published(rgb):
    pale = rgb * np.float32(0.1) + np.float32(0.5)
    lab = to_lab(pale)
    chroma = np.hypot(lab[1], lab[2])
    m = 0.3
    wanted = (m - 1) * chroma / ((2 * m - 1) * chroma - m) * lab[0] + chroma * (1 - lab[0])
    out = to_lab(combine_lrgb(lab[0], pale, saturation_transfer=m))
    np.testing.assert_allclose(np.hypot(out[1], out[2]), wanted, atol=2e-3)
    brighter = to_lab(combine_lrgb(lab[0], pale, lightness_transfer=0.3))[0]
    np.testing.assert_allclose(brighter, (m - 1) * lab[0] / ((2 * m - 1) * lab[0] - m), atol=2e-3)


def test_colors_out_of_gamut_get_paler_not_another_hue():
    blue = np.array([0.05, 0.1, 0.9], np.float32).reshape(3, 1, 1)
    out = combine_lrgb(np.array([[0.85]], np.float32), blue)
    before, after = to_lab(blue)[:, 0, 0], to_lab(out)[:, 0, 0]
    assert out.max() <= 1
    assert np.arctan2(after[2], after[1]) == pytest.approx(np.arctan2(before[2], before[1]), abs=0.2)


def test_linear_luminance_is_replaced_above_the_floor(rgb):
    light = luminance_of(rgb) * np.float32(1.7)
    out = linear_lrgb(light, rgb, floor=1e-3)
    np.testing.assert_allclose(luminance_of(out), light, rtol=1e-5)
    np.testing.assert_allclose(out / out.sum(axis=0), rgb / rgb.sum(axis=0), rtol=1e-4)
    noise = linear_lrgb(light, np.zeros_like(rgb), floor=1e-2)
    np.testing.assert_allclose(noise, np.stack([light] * 3), rtol=1e-6)


def test_layers_add_up_and_scale(rgb):
    image = rgb[0]
    layers, rest = layers_of(image, 3)
    np.testing.assert_allclose(sum(layers) + rest, image, atol=1e-6)
    np.testing.assert_allclose(smooth(image, 2, "b3"), image - layers[0] - layers[1], atol=1e-5)
    flat = np.full((20, 30), 3.5, np.float32)
    np.testing.assert_allclose(smooth(flat, 4), flat, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_pieces_with_a_border_are_the_whole(rgb, n):
    reach = reach_px(n)
    whole = smooth(rgb[0], n)
    y0, y1, x0, x1 = 20, 40, 30, 50
    a, b, c, d = max(y0 - reach, 0), min(y1 + reach, 60), max(x0 - reach, 0), min(x1 + reach, 80)
    piece = smooth(rgb[0, a:b, c:d], n)
    np.testing.assert_array_equal(piece[y0 - a : y1 - a, x0 - c : x1 - c], whole[y0:y1, x0:x1])


def test_gaps_weigh_nothing():
    image = np.ones((30, 30), np.float32)
    image[10:14, 10:14] = np.nan
    out = smooth(image, 3)
    assert np.isnan(out[10:14, 10:14]).all()
    np.testing.assert_allclose(out[np.isfinite(out)], 1, rtol=1e-6)


def test_chroma_noise_falls_in_the_dark_and_lightness_stays():
    rng = np.random.default_rng(3)
    dark = (0.1 + 0.02 * rng.standard_normal((3, 64, 64))).clip(0, 1).astype(np.float32)
    out = smooth_chroma(dark, 3)
    before, after = to_lab(dark), to_lab(out)
    np.testing.assert_allclose(after[0], before[0], atol=3e-3)
    assert after[1].std() < 0.25 * before[1].std()
    np.testing.assert_allclose(after[1].mean(), before[1].mean(), atol=2e-3)
    bright = dark + np.float32(0.8)
    np.testing.assert_allclose(smooth_chroma(bright.clip(0, 1), 3), bright.clip(0, 1), atol=1e-3)
    assert chroma_reach_px(3) == 7
