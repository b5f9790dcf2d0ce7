"""A drizzled master from raw frames: light, sharpness, holes, colors each by itself; asked for later; the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import maximum_filter

from lerar_dask.pipeline import stack
from lerar_dask.pipeline.drizzle_facts import finer_wcs
from lerar_dask.run import Run
from lerar_dask.runtime.events import Bus, Note
from lerar_dask.settings import Settings
from tests.whole.nights import Night, adu, stamp

N = 24


def make_night(folder: Path, monkeypatch: pytest.MonkeyPatch, *, sigma: float = 0.55, cfa: str = "") -> Night:
    """Dithered lights with stars of 1.3 pixels, and a cosmic ray in one of them."""
    # the clamping of the first master's interpolation adds 8 % to the light of such stars: these tests do without
    monkeypatch.setattr("tests.whole.nights.SIGMA_PX", sigma)
    night = Night(folder, 31)
    cards = {"BAYERPAT": cfa, "FILTER": None} if cfa else {}
    for k in range(N):
        pixels = night.light()
        if k == 4:
            pixels[150:153, 200:203] += 20_000
        night.put("light", f"light_{k:02}.fits", adu(pixels), EXPTIME=60.0, DATE_OBS=stamp(k), **cards)
    pattern = {"BAYERPAT": cfa} if cfa else {}
    night.darks(6, **pattern)
    night.flats(6, **cards)
    return night


def run(folder: Path, out: Path, **settings) -> list[str]:
    """Stack; what was noted."""
    notes: list[str] = []
    bus = Bus()
    bus.subscribe(lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    summary = stack([folder], out, Settings.of(**settings), bus=bus)
    assert summary.exit_code == 0
    return notes


def read(path: Path) -> tuple[np.ndarray, fits.HDUList]:
    hdus = fits.open(path)
    return hdus[0].data.astype(float), hdus


def light_of(image: np.ndarray, x: float, y: float, radius: float) -> tuple[float, float]:
    """Light within a radius of a place, and the mean square radius of it within a third of that."""
    j, i = round(x), round(y)
    half = int(radius) + 8
    part = image[i - half : i + half + 1, j - half : j + half + 1]
    ys, xs = np.mgrid[i - half : i + half + 1, j - half : j + half + 1]
    r = np.hypot(ys - y, xs - x)
    sky = np.median(part[(r > radius + 2) & (r < radius + 8)])
    near = r < radius
    return float((part - sky)[near].sum()), float(((part - sky) * r**2)[near].sum() / (part - sky)[near].sum())


@pytest.fixture(scope="module")
def drizzled(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("night")
        night = make_night(folder, patch)
        out = tmp_path_factory.mktemp("out")
        run(folder, out, drizzle=2, drop=0.7, clamping=1.0)
        return night, folder, out


def lonely_stars(image: np.ndarray) -> np.ndarray:
    """Places (x, y) of bright stars of a master without bright neighbors, by their centroids."""
    data = np.nan_to_num(image - np.nanmedian(image))
    found = []
    for i, j in np.argwhere((data == maximum_filter(data, 5)) & (data > 2000) & (data < 30_000)):
        part = data[max(i - 20, 0) : i + 21, max(j - 20, 0) : j + 21]
        if part.shape != (41, 41) or part.max() > data[i, j] or np.count_nonzero(part == maximum_filter(part, 5)) == 0:
            continue
        others = (part == maximum_filter(part, 5)) & (part > 0.02 * data[i, j])
        if others.sum() == 1:
            core = np.maximum(data[i - 3 : i + 4, j - 3 : j + 4], 0)
            ys, xs = np.mgrid[i - 3 : i + 4, j - 3 : j + 4]
            found.append(((core * xs).sum() / core.sum(), (core * ys).sum() / core.sum()))
    return np.array(found)


def test_light_is_kept_and_stars_are_no_wider(drizzled):
    _, _, out = drizzled
    (path,) = out.glob("*_drizzle2x.fits")
    fine, hdus = read(path)
    first, first_hdus = read(path.with_name(path.name.replace("_drizzle2x", "")))
    assert fine.shape == (2 * first.shape[0], 2 * first.shape[1])
    stars = lonely_stars(first)
    assert len(stars) >= 6
    here = np.array([light_of(first, x, y, 7) for x, y in stars])
    there = np.array([light_of(fine, 2 * x + 0.5, 2 * y + 0.5, 14) for x, y in stars])
    ratio = there[:, 0] / 4 / here[:, 0]
    # brightness of surfaces is kept; a star's light is spread over four times the pixels
    assert abs(np.median(ratio) - 1) < 1e-3
    inner = (slice(80, -80), slice(80, -80))
    both = np.nanmedian(fine[inner]), np.nanmedian(first[40:-40, 40:-40])
    assert abs(both[0] - both[1]) < 0.1 * np.nanmedian(hdus["NOISE"].data)
    coverage = hdus["COVERAGE"].data.reshape(fine.shape)[inner]
    assert np.mean(coverage) == pytest.approx(np.mean(first_hdus["COVERAGE"].data[0, 40:-40, 40:-40]), rel=0.02)


def test_what_the_first_master_rejected_is_not_poured(drizzled):
    _, _, out = drizzled
    (path,) = out.glob("*_drizzle2x.fits")
    fine, hdus = read(path)
    noise, high = hdus["NOISE"].data[0], hdus["REJHIGH"].data[0]
    first, _ = read(path.with_name(path.name.replace("_drizzle2x", "")))
    calm = maximum_filter(np.nan_to_num(first, nan=np.inf), 7) < np.nanmedian(first) + 30
    # among them the cosmic ray of one sub
    hit = (high > 0) & np.repeat(np.repeat(calm, 2, axis=0), 2, axis=1)
    off = (fine - np.nanmedian(fine))[hit] / noise[hit]
    assert hit.sum() > 1000
    assert np.nanmax(off) < 6


def test_scatter_of_single_pixels_is_as_the_header_says(drizzled):
    _, _, out = drizzled
    (path,) = out.glob("*_drizzle2x.fits")
    fine, hdus = read(path)
    # stars are few: the median of differences does not see them
    diff = (fine[:, 40:] - fine[:, :-40]) / np.sqrt(2)
    sigma = 1.4826 * np.nanmedian(np.abs(diff - np.nanmedian(diff)))
    level = np.nanmedian(hdus["NOISE"].data[0])
    # drops of 24 subs do not fall evenly: pixels that get few of them scatter more
    assert sigma / level == pytest.approx(hdus[0].header["NOISPIX"], rel=0.12)


def test_asked_for_later_and_again(drizzled, tmp_path):
    _, folder, out = drizzled
    later = tmp_path / "out"
    run(folder, later, clamping=1.0)
    assert not list(later.glob("*drizzle*"))
    run(folder, later, drizzle=2, drop=0.7, clamping=1.0, memory="700MiB", threads=1)
    (one,), (two,) = out.glob("*_drizzle2x.fits"), later.glob("*_drizzle2x.fits")
    np.testing.assert_array_equal(fits.getdata(one), fits.getdata(two))
    same = Settings.of(drizzle=2, drop=0.7, clamping=1.0, memory="700MiB", threads=1)
    assert stack([folder], later, same, bus=Bus()).did_nothing
    # another drop makes the drizzled master alone again
    before = two.with_name(two.name.replace("_drizzle2x", "")).stat().st_mtime_ns
    run(folder, later, drizzle=2, drop=0.9, clamping=1.0)
    assert two.with_name(two.name.replace("_drizzle2x", "")).stat().st_mtime_ns == before
    assert not np.array_equal(fits.getdata(one), fits.getdata(two), equal_nan=True)


def test_lazily_the_same(drizzled):
    _, _, out = drizzled
    opened = Run.open(out)
    (name,) = opened.groups
    (path,) = out.glob("*_drizzle2x.fits")
    window = opened.drizzled(name)[0, 0, 300:340, 500:560].compute()
    np.testing.assert_array_equal(window, fits.getdata(path)[300:340, 500:560])


def test_small_drops_of_few_subs_leave_holes_and_that_is_said(tmp_path):
    night = Night(tmp_path / "night", 7)
    night.lights(4)
    notes = run(tmp_path / "night", tmp_path / "out", drizzle=4, drop=0.3, drizzle_kernel="point")
    assert any("% of the pixels of the drizzled master are empty" in note for note in notes)
    (path,) = (tmp_path / "out").glob("*_drizzle4x.fits")
    image = fits.getdata(path)
    assert 0.5 < np.isnan(image).mean() < 0.9


def test_colors_are_poured_each_by_itself(tmp_path, monkeypatch):
    folder, out = tmp_path / "night", tmp_path / "out"
    make_night(folder, monkeypatch, sigma=1.0, cfa="RGGB")
    run(folder, out, drizzle=1, drop=1.0)
    (path,) = out.glob("*_drizzle1x.fits")
    fine, hdus = read(path)
    coverage = hdus["COVERAGE"].data.reshape(fine.shape)[:, 40:-40, 40:-40].mean(axis=(1, 2))
    np.testing.assert_allclose(coverage, [N / 4, N / 2, N / 4], rtol=0.04)
    first, _ = read(path.with_name(path.name.replace("_drizzle1x", "")))
    inner = (slice(None), slice(40, -40), slice(40, -40))
    for c in range(3):
        assert abs(np.nanmedian(fine[inner][c]) - np.nanmedian(first[inner][c])) < 1.0


def test_wcs_of_finer_pixels_is_that_of_the_first_master():
    rng = np.random.default_rng(2)
    cards = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRVAL1": 83.0, "CRVAL2": -5.0, "CRPIX1": 210.5,
             "CRPIX2": 160.25, "CD1_1": -3e-4, "CD1_2": 1e-5, "CD2_1": 2e-5, "CD2_2": 3e-4, "A_ORDER": 2, "B_ORDER": 2,
             "A_2_0": 1e-6, "A_1_1": -2e-6, "B_0_2": 3e-6}  # fmt: skip
    origin, scale = (-7, 12), 3
    first = tuple(o + 0.5 / scale - 0.5 for o in origin)
    fine = finer_wcs(cards, first, scale)
    for axis, o in ((1, first[1]), (2, first[0])):
        fine[f"CRPIX{axis}"] -= o  # as the writer does
    plane = rng.uniform(0, 400, (20, 2))
    in_fine = scale * (plane - [origin[1], origin[0]]) + (scale - 1) / 2
    sky = WCS(fits.Header(cards)).all_pix2world(plane, 0)
    np.testing.assert_allclose(WCS(fits.Header(fine)).all_pix2world(in_fine, 0), sky, atol=1e-9)


def test_settings_say_what_cannot_be():
    from lerar_dask.errors import UsageError

    for wrong in ({"drizzle": 5}, {"drop": 0.0}, {"drizzle_kernel": "round"}):
        with pytest.raises(UsageError):
            Settings.of(**wrong)
    # without drizzle its other settings have no effect
    plain, odd = Settings.of().drizzle, Settings.of(drop=0.5).drizzle
    assert dataclasses.asdict(plain) != dataclasses.asdict(odd)
    from lerar_dask.identity import digest

    assert digest(plain) == digest(odd)


def test_is_foretold_by_a_dry_run(drizzled, tmp_path):
    _, folder, _ = drizzled
    plain, finer = (
        stack([folder], tmp_path / "none", Settings.of(drizzle=scale), bus=Bus(), dry_run=True) for scale in (0, 2)
    )
    assert "drizzle" not in plain.tasks
    assert finer.tasks["drizzle"] >= 4
    assert finer.written_bytes > plain.written_bytes + 4 * 4 * 320 * 440
    assert finer.seconds > plain.seconds
