"""Darks of many exposures, temperatures and scales in one folder: each light gets its own, and what fits none is told."""

from __future__ import annotations

import numpy as np
import pytest

from tests.whole.nights import SKY, Night, adu, plane, rates, run, shift_of, stacked, stamp


def clean(night, image, exposure_s=60.0):
    """No trace of glow or hot pixels, fluxes as they were made."""
    found = rates(night, image, vignetted=True) / exposure_s
    assert len(found) > 10
    assert found.std() < 0.02
    assert found.mean() == pytest.approx(1.0, abs=0.02)
    expected = SKY * exposure_s * night.vignetting
    dy, dx = shift_of(night, image)
    for y, x in ((260, 380), (140, 200)):  # the glow's corner, and the middle
        there = image[y + dy : y + dy + 40, x + dx : x + dx + 40]
        assert np.nanmedian(there) == pytest.approx(np.median(expected[y : y + 40, x : x + 40]), rel=0.02)


def words_of(summary):
    return " ".join(summary.notes)


@pytest.mark.parametrize("others", [(60.0,), (298.0, 240.0), (0.5, 1.0, 2.0)])
def test_a_library_of_darks(tmp_path, others):
    """300 s lights between sets of other exposures: the 300 s set alone."""
    night = Night(tmp_path / "night", 201)
    night.lights(7, 300.0)
    for exposure in (300.0, *others):
        night.darks(4, exposure)
    _, image = stacked(night, tmp_path / "out")
    clean(night, image, 300.0)


@pytest.mark.parametrize("cold", [-10.0, -14.9])
def test_half_a_night_without_cooling(tmp_path, cold):
    """The set point stays, the sensor tells: each half its own darks, though both sets ask for one temperature."""
    night = Night(tmp_path / "night", 202)
    rate = {False: night.rate, True: night.rate * 12}
    for i in range(10):
        warm = i >= 6
        data = adu(night.expose(night.vignetting * night.image(*night.rng.uniform(-12, 12, 2)), 60.0, rate=rate[warm]))
        sensor = 26.0 + 0.4 * i if warm else cold + 0.2 * (i % 3 - 1)
        night.put("light", f"l{i}.fits", data, EXPTIME=60.0, DATE_OBS=stamp(i), SET_TEMP=cold, CCD_TEMP=sensor)
    for i in range(8):
        warm = i >= 4
        data = adu(night.expose(0.0, 60.0, rate=rate[warm]))
        sensor = 29.5 if warm else cold - 0.1 * (i % 2)
        night.put("dark", f"d{i}.fits", data, EXPTIME=60.0, DATE_OBS=stamp(i, hour=8), SET_TEMP=cold, CCD_TEMP=sensor)
    _, image = stacked(night, tmp_path / "out")
    clean(night, image)


@pytest.mark.parametrize("of_unit", ["lights", "darks", "both"])
def test_frames_in_0_to_1(tmp_path, of_unit):
    """Frames that a program saved again as floats in 0..1, beside raw ones of the same camera."""
    night = Night(tmp_path / "night", 203)
    scale = {True: lambda data: (adu(data) / 65535.0).astype(np.float32), False: adu}
    for i in range(6):
        data = scale[of_unit in ("lights", "both")](night.light())
        night.put("light", f"l{i}.fits", data, EXPTIME=60.0, DATE_OBS=stamp(i))
    for i in range(4):
        data = scale[of_unit in ("darks", "both")](night.dark())
        night.put("dark", f"d{i}.fits", data, EXPTIME=60.0, DATE_OBS=stamp(i, hour=8))
    night.flats(3)
    summary, image = stacked(night, tmp_path / "out")
    assert summary.groups[0].n_used == 6
    image = image * (65535.0 if np.nanmedian(image) < 1 else 1.0)
    found = rates(night, image) / 60.0
    assert found.std() < 0.02 * found.mean()
    assert np.nanmedian(image) == pytest.approx(60.0 * SKY * night.vignetting.mean(), rel=0.03)


def test_integers_of_a_camera_whose_sky_is_below_one_stay_what_they_are(tmp_path):
    """Floats near zero are not in 0..1 because they are small: calibrated ADU with a sky taken off."""
    night = Night(tmp_path / "night", 204)
    for i in range(6):
        data = night.expose(night.vignetting * (night.image(*night.rng.uniform(-9, 9, 2)) - SKY), 60.0) - night.bias
        night.put("light", f"l{i}.fits", data.astype(np.float32), EXPTIME=60.0, DATE_OBS=stamp(i), CALSTAT="B")
    summary, image = stacked(night, tmp_path / "out")
    assert summary.groups[0].n_used == 6
    found = rates(night, image, vignetted=True) / 60.0
    assert found.mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("turned", ["darks", "flats"])
def test_rows_the_other_way_round(tmp_path, turned):
    """Both say their row order: turned over, and used."""
    night = Night(tmp_path / "night", 205)
    y = np.linspace(-1, 1, night.shape[0])[:, None]
    night.vignetting = night.vignetting * (1 - 0.25 * y)  # a slope that shows when a flat is the wrong way round
    night.lights(7, ROWORDER="TOP-DOWN")
    way = {
        name: (slice(None, None, -1), "BOTTOM-UP") if name == turned else (slice(None), "TOP-DOWN")
        for name in ("darks", "flats")
    }
    for i in range(4):
        rows, word = way["darks"]
        night.put("dark", f"d{i}.fits", adu(night.dark())[rows], EXPTIME=60.0, DATE_OBS=stamp(i, hour=8), ROWORDER=word)
    for i in range(3):
        rows, word = way["flats"]
        when = {"EXPTIME": 2.0, "DATE_OBS": stamp(i, hour=20), "ROWORDER": word}
        night.put("flat", f"f{i}.fits", adu(night.flat())[rows], **when)
        night.put("darkflat", f"df{i}.fits", adu(night.dark(2.0))[rows], **when)
    summary, image = stacked(night, tmp_path / "out")
    assert not summary.aside
    found = rates(night, image)
    assert found.std() < 0.02 * found.mean()
    corner = np.nanmedian(image[-60:-20, -60:-20]) / np.nanmedian(image[20:60, 20:60])
    assert corner == pytest.approx(1.0, abs=0.02)


def test_darks_of_another_gain_are_named(tmp_path):
    night = Night(tmp_path / "night", 206)
    night.lights(6)
    night.darks(4, GAIN=300)
    summary = run(night, tmp_path / "out")
    assert summary.exit_code == 0
    assert "gain" in words_of(summary)
    assert plane(summary.groups[0].master).shape[0] > 100


@pytest.mark.parametrize(
    ("name", "unit", "cards"),
    [
        ("masterDark_BIN-1_440x320_EXPOSURE-60.00s.fit", 65535.0, {"IMAGETYP": "Master Dark"}),
        ("dark_stacked.fit", 65535.0, {"IMAGETYP": "Dark Frame", "STACKCNT": 16, "PROGRAM": "Siril 1.4.0"}),
        ("master_dark_60s.fits", 1.0, {"IMAGETYP": "DARK", "NCOMBINE": 16}),
    ],
)
def test_a_master_dark_of_another_program(tmp_path, name, unit, cards):
    night = Night(tmp_path / "night", 207)
    night.lights(7)
    mean = np.mean([adu(night.dark()) for _ in range(16)], axis=0) / unit
    night.put("dark", name, mean.astype(np.float32), EXPTIME=60.0, GAIN=None, OFFSET=None, CCD_TEMP=None, **cards)
    summary, image = stacked(night, tmp_path / "out")
    assert not summary.aside
    clean(night, image)


def test_hot_pixels_without_a_dark(tmp_path):
    """1200 hot pixels, small dithers, only bias: no trace of them."""
    night = Night(tmp_path / "night", 208)
    night.rate = np.full(night.shape, 0.05)
    night.rate.flat[night.rng.choice(night.rate.size, 1200, replace=False)] += night.rng.uniform(3, 150, 1200)
    for i, shift in enumerate([(0, 0), (5.3, -2.2), (-3.1, 4.4), (2.7, 6.1), (-6.2, -3.3), (8.1, 1.4)]):
        night.put("light", f"l{i}.fits", adu(night.light(shift=shift)), EXPTIME=60.0, DATE_OBS=stamp(i))
    night.flats(3)
    night.darks(3, 0.0, "bias")
    _, image = stacked(night, tmp_path / "out")
    found = rates(night, image)
    assert found.std() < 0.02 * found.mean()
    dy, dx = shift_of(night, image)
    stars = night.image(0, 0) * 60.0 - SKY * 60.0
    dark = np.ones(image.shape, bool)
    dark[20 : 20 + 280, 20 : 20 + 400] = stars[20 - dy : 300 - dy, 20 - dx : 420 - dx] > 1
    left = image[~dark]
    assert np.isfinite(left).all()
    noise = 1.4826 * np.median(abs(left - np.median(left)))
    assert (abs(left - np.median(left)) > 7 * noise).sum() <= 3


def test_a_dark_is_not_scaled_beyond_reason(tmp_path):
    """EXPOSURE in milliseconds, read as seconds: a dark times 1000 is no dark."""
    night = Night(tmp_path / "night", 209)
    night.lights(7, EXPTIME=None, EXPOSURE=60_000.0)
    night.darks(4)
    night.darks(4, 0.0, "bias")
    summary, image = stacked(night, tmp_path / "out")
    assert any("60 s for lights of 60000 s" in note for note in summary.notes)
    assert rates(night, image, vignetted=True).mean() == pytest.approx(60.0, rel=0.02)


@pytest.mark.parametrize(("short", "long", "of"), [(2, 7, 60.0), (7, 3, 2.0)])
def test_the_master_has_the_scale_of_the_usual_exposure(tmp_path, short, long, of):
    """A few snapshots among the subs do not set its numbers."""
    night = Night(tmp_path / "night", 210)
    for i in range(short + long):
        exposure_s = 2.0 if i < short else 60.0
        data = adu(night.light(exposure_s))
        night.put("light", f"l{i}.fits", data, EXPTIME=exposure_s, DATE_OBS=stamp(i))
    night.darks(4)
    night.darks(4, 2.0)
    summary, image = stacked(night, tmp_path / "out")
    assert summary.groups[0].n_used == short + long
    assert rates(night, image, least=400.0, vignetted=True).mean() == pytest.approx(of, rel=0.02)
