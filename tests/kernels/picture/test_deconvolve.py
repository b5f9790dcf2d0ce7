"""PSFs come back from stars; deconvolution against the truth, scikit-image, and itself in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve
from skimage.restoration import richardson_lucy

from lerar_dask.kernels.picture.deconvolve import _Blur, deconvolve, psf_radius_px, reach_px
from lerar_dask.kernels.picture.psf import Psf, fit_star, psf_image, usual_psf

TRUE = Psf(fwhm_x_px=4.2, fwhm_y_px=3.3, theta=0.5, beta=3.2)


def star(psf, x, y, n=41, flux=5e4):
    fine = 5
    grid = (np.arange(n * fine) + 0.5) / fine - 0.5 - (n - 1) / 2
    dx, dy = grid[None] - x, grid[:, None] - y
    c, s = np.cos(psf.theta), np.sin(psf.theta)
    u, v = (c * dx + s * dy) / psf.fwhm_x_px, (c * dy - s * dx) / psf.fwhm_y_px
    r2 = u * u + v * v
    value = np.exp(-4 * np.log(2) * r2) if np.isinf(psf.beta) else (1 + 4 * (2 ** (1 / psf.beta) - 1) * r2) ** -psf.beta
    value = value.reshape(n, fine, n, fine).mean(axis=(1, 3))
    return flux * value / value.sum()


@pytest.mark.parametrize("true", [TRUE, Psf(fwhm_x_px=3.0, fwhm_y_px=2.7, theta=-1.2, beta=np.inf)])
def test_a_profile_comes_back(true):
    rng = np.random.default_rng(1)
    fits = []
    for _ in range(25):
        cutout = 300 + star(true, *rng.uniform(-0.5, 0.5, 2), n=25) + rng.normal(0, 8, (25, 25))
        fits.append(fit_star(cutout, model="gaussian" if np.isinf(true.beta) else "moffat"))
    assert all(fits)
    fits.append(Psf(fwhm_x_px=9.0, fwhm_y_px=3.0, theta=0.0, beta=3.0))  # a double star
    usual = usual_psf(fits)
    assert usual.fwhm_x_px == pytest.approx(true.fwhm_x_px, rel=0.01)
    assert usual.fwhm_y_px == pytest.approx(true.fwhm_y_px, rel=0.01)
    assert usual.theta == pytest.approx(true.theta, abs=0.05)
    assert usual.beta == true.beta or usual.beta == pytest.approx(true.beta, rel=0.06)
    assert usual.stars <= 25


def test_no_star_no_profile():
    assert fit_star(np.zeros((15, 15))) is None
    assert fit_star(np.full((15, 15), np.nan)) is None
    assert usual_psf([]) is None


def test_the_image_of_a_profile():
    image = psf_image(TRUE, 20)
    assert image.sum() == pytest.approx(1)
    np.testing.assert_allclose(image, star(TRUE, 0, 0, flux=1.0), atol=2e-4)


def test_blur_is_convolution_and_its_adjoint():
    rng = np.random.default_rng(2)
    image, other = rng.random((2, 60, 70)).astype(np.float32)
    psf = psf_image(TRUE, 8)
    blur = _Blur(psf, image.shape)
    wanted = fftconvolve(np.pad(image, 8, mode="reflect"), psf, mode="same")[8:-8, 8:-8]
    np.testing.assert_allclose(blur.forward(image), wanted, atol=1e-5)
    inner = np.zeros_like(image)
    inner[20:40, 20:40] = other[20:40, 20:40]
    assert np.vdot(blur.forward(inner), image) == pytest.approx(np.vdot(inner, blur.back(image)), rel=1e-3)


def field(noise, seed=3, shape=(200, 260)):
    """Stars and a nebula, sharp (FWHM 1.6 of a Gaussian) and as seen through TRUE."""
    rng = np.random.default_rng(seed)
    sharp = np.zeros(shape)
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    sharp += 60 * np.exp(-(((ys - 120) / 25) ** 2) - ((xs - 90) / 40) ** 2)
    places = []
    for _ in range(40):
        y, x, flux = rng.uniform(12, shape[0] - 12), rng.uniform(12, shape[1] - 12), 10 ** rng.uniform(2.6, 4.8)
        places.append((y, x, flux))
        j, i = int(y), int(x)
        fy, fx = y - j, x - i
        for a, b, w in ((0, 0, (1 - fy) * (1 - fx)), (1, 0, fy * (1 - fx)), (0, 1, (1 - fy) * fx), (1, 1, fy * fx)):
            sharp[j + a, i + b] += flux * w
    seen = fftconvolve(np.pad(sharp, 30, mode="reflect"), psf_image(TRUE, 30), mode="same")[30:-30, 30:-30]
    return sharp, (seen + rng.normal(0, noise, shape)).astype(np.float32), places


def aperture(image, y, x, r):
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]]
    d = np.hypot(ys - y, xs - x)
    sky = np.median(image[(d > r + 2) & (d < r + 6)])
    return (image[d <= r] - sky).sum()


def test_sharper_and_light_is_kept():
    noise = 2.0
    _, seen, places = field(noise)
    out, used = deconvolve(seen, psf_image(TRUE, psf_radius_px(3.7)), noise)
    assert 5 < used <= 30
    alone = [
        p for p in places if p[2] > 8000 and all(np.hypot(p[0] - q[0], p[1] - q[1]) > 24 or p is q for q in places)
    ]
    assert len(alone) >= 3
    widths, rings = [], []
    for y, x, _ in alone:
        assert aperture(out, y, x, 10) == pytest.approx(aperture(seen, y, x, 10), rel=0.01)
        j, i = round(y), round(x)
        widths.append(fit_star(out[j - 8 : j + 9, i - 8 : i + 9], model="gaussian").fwhm_px)
        near = slice(j - 6, j + 7), slice(i - 6, i + 7)
        rings.append(out[near].min() - seen[near].min())
    assert np.median(widths) < 0.7 * TRUE.fwhm_px
    assert min(rings) > -1.5 * noise


def test_noise_alone_is_left_alone():
    noise = np.random.default_rng(4).normal(0, 3, (150, 150)).astype(np.float32)
    out, used = deconvolve(noise, psf_image(TRUE, 12), 3.0)
    assert out.std() < 1.1 * noise.std()
    assert np.abs(out - noise).mean() < 0.2 * 3.0
    assert used <= 30


def test_as_good_as_scikit_image_without_noise():
    sharp, seen, _ = field(0.0)
    psf = psf_image(TRUE, 16)
    ours, _ = deconvolve(seen, psf, 0.02, iterations=30, deringing=0.0)
    plain = richardson_lucy((seen + 0.12).astype(float), psf.astype(float), num_iter=30, clip=False) - 0.12
    inside = (slice(30, -30),) * 2
    error = [np.abs(fftconvolve(a - sharp, psf, mode="same")[inside]).mean() for a in (ours, plain)]
    assert error[0] < 1.5 * error[1] + 0.05


def test_bad_pixels_stay_and_harm_nothing():
    _, seen, _ = field(2.0)
    holed = seen.copy()
    holed[50:60, 50:60] = np.nan
    psf = psf_image(TRUE, psf_radius_px(3.7))
    limit = float(np.quantile(seen, 0.9995))
    out, _ = deconvolve(holed, psf, 2.0, saturation=limit)
    assert np.isnan(out[50:60, 50:60]).all()
    assert np.isfinite(out).sum() == np.isfinite(holed).sum()
    full = seen >= limit
    full[45:65, 45:65] = False
    np.testing.assert_allclose(out[full], seen[full], rtol=1e-5)
    nothing = np.full((40, 50), np.nan, np.float32)
    assert np.isnan(deconvolve(nothing, psf, 2.0)[0]).all()


def test_pieces_fit_together():
    noise = 2.0
    _, seen, _ = field(noise, shape=(260, 300))
    psf = psf_image(TRUE, psf_radius_px(3.7))
    whole, _ = deconvolve(seen, psf, noise)
    reach = reach_px(3.7)
    y0, y1, x0, x1 = 90, 170, 100, 200
    a, b, c, d = y0 - reach, y1 + reach, x0 - reach, x1 + reach
    part, _ = deconvolve(seen[a:b, c:d], psf, noise)
    difference = part[reach:-reach, reach:-reach] - whole[y0:y1, x0:x1]
    assert np.abs(difference).max() < 0.5 * noise + 0.01 * whole[y0:y1, x0:x1].max()
    assert np.sqrt((difference**2).mean()) < 0.1 * noise


def test_faint_stars_keep_their_light():
    rng = np.random.default_rng(9)
    noise, psf = 1.0, psf_image(TRUE, 40)
    image = rng.normal(0, noise, (480, 480)).astype(np.float32)
    places, light = [(y, x) for y in range(40, 480, 80) for x in range(40, 480, 80)], 40 * noise / psf.max()
    for y, x in places:
        image[y - 40 : y + 40, x - 40 : x + 40] += light * psf[:80, :80]
    sharp, used = deconvolve(image, psf_image(TRUE, psf_radius_px(TRUE.fwhm_px)), noise)
    assert used > 3
    away = np.hypot(*np.mgrid[-25:26, -25:26])
    kept = [
        sum((picture[y - 25 : y + 26, x - 25 : x + 26] * (away <= 25)).sum() for y, x in places) / (light * len(places))
        for picture in (image, sharp)
    ]
    assert kept[1] == pytest.approx(kept[0], abs=0.01)
    peaks = [np.mean([picture[y, x] for y, x in places]) for picture in (image, sharp)]
    assert peaks[1] > 2.5 * peaks[0]
