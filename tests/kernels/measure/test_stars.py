"""Stars of simulated subs: what is found, where, how bright; and what must not be taken for a star."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lerar_dask.constants import StarFlag
from lerar_dask.kernels.measure.sub import STAR_COLUMNS, measure

SKY, READ_NOISE = 200.0, 3.0


def moffat(x, y, flux, fwhm, ratio=1.0, beta=3.5):
    """Pixel-integrated Moffat and the corner of its stamp; `ratio` stretches it at 45 degrees."""
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    half = int(6 * fwhm) + 2
    x0, y0 = round(x) - half, round(y) - half
    fine = (np.arange(3 * (2 * half + 1)) - 1) / 3
    dx, dy = np.meshgrid(fine + x0 - x, fine + y0 - y)
    u, v = (dx + dy) / np.sqrt(2) * np.sqrt(ratio), (dy - dx) / np.sqrt(2) / np.sqrt(ratio)
    value = (beta - 1) / (np.pi * alpha**2) * (1 + (u * u + v * v) / alpha**2) ** -beta
    return x0, y0, flux * value.reshape(2 * half + 1, 3, 2 * half + 1, 3).mean(axis=(1, 3))


def scene(*, fwhm, n=120, size=640, ratio=1.0, nebula=0.0, trail=0.0, hot=0, seed=0):
    """A sub with known stars (x, y, flux), and its hot pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size].astype(float)
    image = SKY * (1 + 0.1 * (x / size - 0.5))
    image += (
        nebula * np.exp(-((x - 0.6 * size) ** 2 + (y - 0.4 * size) ** 2) / (0.04 * size**2)) * (1.5 + np.sin(x / 37))
    )
    image += trail * np.exp(-((0.6 * (x - 60) - 0.8 * (y - 30)) ** 2) / 4.5)
    stars = np.column_stack([rng.uniform(25, size - 25, (n, 2)), 10 ** rng.uniform(2.6, 4.8, n)])
    for sx, sy, flux in stars:
        x0, y0, stamp = moffat(sx, sy, flux, fwhm, ratio)
        ys, xs = slice(max(y0, 0), y0 + len(stamp)), slice(max(x0, 0), x0 + len(stamp))
        part = image[ys, xs]
        part += stamp[max(-y0, 0) :, max(-x0, 0) :][: part.shape[0], : part.shape[1]]
    image = rng.poisson(image) + rng.normal(0, READ_NOISE, image.shape)
    bad = rng.integers(5, size - 5, (hot, 2))
    image[bad[:, 1], bad[:, 0]] += rng.uniform(500, 5000, hot)
    return np.round(image).astype(np.float32), stars, bad


def look(image, *, cfa=None, saturated=1e9, defects=(), raw=None):
    return measure(
        image.copy(), image.astype(np.uint16) if raw is None else raw, cfa=cfa, cell_px=64, detection_sigma=5.0,
        max_stars=600, max_spikes=2000, saturated_raw=saturated, defects=np.array(defects, np.int32),
        voids=np.zeros((0, 4), np.int32), blank=False,
    )  # fmt: skip


def compare(found, truth, *, fwhm):
    """Share of clear stars found, centroid error over the photon limit, median flux ratio, false stars."""
    sigma = fwhm / 2.3548
    apart = np.array([len(n) == 1 for n in cKDTree(truth[:, :2]).query_ball_point(truth[:, :2], 6 * fwhm)])
    clear = apart & (truth[:, 2] / np.sqrt(4 * np.pi * sigma**2 * (SKY + READ_NOISE**2)) > 12)
    distance, index = cKDTree(found[:, :2]).query(truth[:, :2])
    hit = clear & (distance < max(1.0, 0.5 * fwhm))
    flux = truth[hit, 2]
    # Cramer-Rao of a Gaussian with sky and own photons; a Moffat's is about 1.12 of it.
    limit = 1.12 * sigma * np.sqrt(8 * np.pi * sigma**2 * (SKY + READ_NOISE**2) / flux**2 + 1 / flux)
    error = np.sum((found[index[hit], :2] - truth[hit, :2]) ** 2, axis=1) / 2
    false = (cKDTree(truth[:, :2]).query(found[:, :2])[0] > max(1.5, 0.6 * fwhm)).sum()
    ratio = np.median((found[index[hit], 2] / flux)[flux > 5000])
    return hit.sum() / clear.sum(), np.sqrt(np.mean(error / limit**2)), ratio, false


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ({"fwhm": 3.0}, 0.98),
        ({"fwhm": 5.0}, 0.98),
        ({"fwhm": 1.5}, 0.9),
        ({"fwhm": 3.0, "ratio": 0.55}, 0.97),
        ({"fwhm": 3.0, "nebula": 400.0}, 0.85),
        ({"fwhm": 3.0, "trail": 100.0}, 0.9),
    ],
)
def test_stars_are_found_in_place_and_brightness(kind, share):
    image, truth, _ = scene(**kind)
    found = look(image)
    got, error, ratio, false = compare(found.stars, truth, fwhm=kind["fwhm"])
    assert got >= share
    assert error < 2.0
    assert ratio == pytest.approx(1.0, abs=0.03)
    assert false <= 4


def test_flux_does_not_depend_on_seeing():
    """The ratio of two subs' fluxes is their transparency, whatever their seeing."""
    tables = [look(scene(fwhm=fwhm, n=100)[0]).stars for fwhm in (2.6, 4.2)]
    distance, index = cKDTree(tables[1][:, :2]).query(tables[0][:, :2])
    both = (distance < 1.0) & (tables[0][:, 8] > 60) & (tables[0][:, 9] == 0)
    ratio = tables[0][both, 2] / tables[1][index[both], 2]
    assert both.sum() > 15
    assert np.median(ratio) == pytest.approx(1.0, abs=0.01)


def test_hot_pixels_are_spikes_and_no_stars():
    image, truth, hot = scene(fwhm=3.0, hot=150)
    found = look(image)
    near = cKDTree(truth[:, :2]).query(hot)[0]
    alone = hot[near > 15]
    assert cKDTree(found.stars[:, :2]).query(alone)[0].min() > 0.8
    assert (cKDTree(found.spikes[:, :2]).query(alone)[0] < 0.1).mean() > 0.95


def test_defects_leave_no_trace():
    image, _, hot = scene(fwhm=3.0, hot=150)
    indices = np.unique(hot[:, 1] * image.shape[1] + hot[:, 0])
    found = look(image, defects=indices)
    assert len(found.spikes) < 5
    clean = look(scene(fwhm=3.0, hot=0)[0])
    assert abs(len(found.stars) - len(clean.stars)) <= 6


def test_saturation_is_told_by_the_raw_pixels():
    image, truth, _ = scene(fwhm=3.0)
    raw = np.minimum(image, 3000).astype(np.uint16)
    clipped = raw.astype(np.float32) * 0.5
    stars = look(clipped, raw=raw, saturated=3000).stars
    distance, index = cKDTree(stars[:, :2]).query(truth[:, :2])
    bright = (truth[:, 2] > 50_000) & (distance < 2)
    faint = (truth[:, 2] < 10_000) & (distance < 1)
    assert bright.sum() >= 2
    assert (stars[index[bright], 9].astype(int) & StarFlag.SATURATED).all()
    assert not (stars[index[faint], 9].astype(int) & StarFlag.SATURATED).any()


def test_color_subs_give_sensor_pixels():
    image, truth, _ = scene(fwhm=4.0)
    response = np.ones((2, 2))
    response[0, 0], response[1, 1] = 0.8, 1.2
    colored = np.round(image * np.tile(response, (320, 320))).astype(np.float32)
    found = look(colored, cfa="RGGB")
    got, error, ratio, false = compare(found.stars, truth, fwhm=4.0)
    assert got > 0.9
    assert error < 3.0
    assert ratio == pytest.approx(1.0, abs=0.05)
    assert false <= 3
    assert found.summary["fwhm_px"] == pytest.approx(4.4, abs=0.5)


def test_order_columns_and_limits():
    image, _, _ = scene(fwhm=3.0)
    stars = look(image).stars
    assert stars.shape[1] == len(STAR_COLUMNS)
    assert (np.diff(stars[:, 2]) <= 0).all()
    few = measure(
        image.copy(), image, cfa=None, cell_px=64, detection_sigma=5.0, max_stars=20, max_spikes=3, saturated_raw=1e9,
        defects=np.zeros(0, np.int32), voids=np.zeros((0, 4), np.int32), blank=False,
    )  # fmt: skip
    assert len(few.stars) == 20
    assert len(few.spikes) <= 3


@pytest.mark.parametrize("value", [0.0, 1000.0, np.nan])
def test_subs_without_anything_have_no_stars(value):
    image = np.full((200, 200), value, np.float32)
    found = look(image, raw=np.zeros(image.shape, np.float32) + value)
    assert len(found.stars) == 0
    assert found.summary["n_stars"] == 0


def test_pure_noise_has_hardly_any_star():
    image = np.random.default_rng(5).normal(200, 15, (800, 800)).astype(np.float32)
    assert len(look(image).stars) <= 3
