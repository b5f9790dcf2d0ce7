"""Flats: of which night, of which pedestal, after which calibration; none rather than a wrong one, and it is said."""

from __future__ import annotations

import numpy as np
import pytest

from tests.whole.nights import SKY, Night, adu, rates, stacked, stamp


def slope(image):
    """Sky of the four corners over that of the middle."""
    middle = np.nanmedian(image[150:190, 200:260])
    parts = (np.s_[20:60, 20:60], np.s_[20:60, -60:-20], np.s_[-60:-20, 20:60], np.s_[-60:-20, -60:-20])
    return np.array([np.nanmedian(image[part]) for part in parts]) / middle


def steep(tmp_path, seed):
    """Strong vignetting, no dark current: a flat on a pedestal shows at once."""
    night = Night(tmp_path / "night", seed)
    night.vignetting = 1 - 2.6 * (1 - night.vignetting)
    night.rate = np.full(night.shape, 0.01)
    night.lights(7)
    return night


def test_the_flat_dark_serves_as_bias_of_the_lights(tmp_path):
    night = steep(tmp_path, 211)
    night.flats(4)
    summary, image = stacked(night, tmp_path / "out")
    assert slope(image) == pytest.approx(1.0, abs=0.03)
    assert "flat-dark" in " ".join(summary.notes)


@pytest.mark.parametrize("cards", [{"OFFSET": 10}, {"GAIN": 250}])
def test_a_flat_dark_that_does_not_fit_the_lights_does_not(tmp_path, cards):
    """Another offset or gain: the flats are right for nothing here, and corners never come out 25 % too bright."""
    night = steep(tmp_path, 212)
    night.flats(4, pedestal=False)
    night.darks(4, 2.0, "darkflat", **cards)
    summary, image = stacked(night, tmp_path / "out")
    assert (slope(image) < 1.03).all()
    assert "flat" in " ".join(summary.notes)


def test_no_pedestal_at_all(tmp_path):
    night = steep(tmp_path, 213)
    night.flats(4, pedestal=False)
    summary, image = stacked(night, tmp_path / "out")
    assert (slope(image) < 1.03).all()
    assert "flat" in " ".join(summary.notes)


def test_each_night_its_own_flats(tmp_path):
    night = Night(tmp_path / "night", 214)
    y, x = np.mgrid[: night.shape[0], : night.shape[1]]
    clear = night.vignetting
    spots = []
    for n, (cx, cy) in enumerate(((120, 100), (300, 210))):
        night.vignetting = clear * (1 - 0.25 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 14.0**2)))
        for i in range(5):
            when = {"EXPTIME": 60.0, "DATE_OBS": stamp(i + n * 2600)}
            night.put("light", f"n{n}_{i}.fits", adu(night.light(shift=tuple(night.rng.uniform(-5, 5, 2)))), **when)
        for i in range(3):
            when = {"EXPTIME": 2.0, "DATE_OBS": stamp(i + n * 2600, hour=19)}
            night.put("flat", f"n{n}_{i}.fits", adu(night.flat()), **when)
        spots.append(np.s_[cy - 8 : cy + 8, cx - 8 : cx + 8])
    night.darks(4)
    night.darks(4, 0.0, "bias")
    _, image = stacked(night, tmp_path / "out")
    for spot in spots:
        assert np.nanmedian(image[spot]) == pytest.approx(np.nanmedian(image), rel=0.03)
    night.vignetting = clear
    found = rates(night, image)
    assert found.std() < 0.02 * found.mean()


@pytest.mark.parametrize("words", [{"CALSTAT": "BDF"}, {"CALSTAT": "DF"}, {"HISTORY": "calibrated: bias, dark, flat"}])
def test_what_is_calibrated_is_not_calibrated_again(tmp_path, words):
    """CALSTAT says what was done; PEDESTAL comes off. Without CALSTAT a file called `_c` says it by its name."""
    night = Night(tmp_path / "night", 215)
    named = "_c" if "HISTORY" in words else ""
    for i in range(7):
        data = (night.light() - night.bias - 60.0 * night.rate) / night.vignetting + 100
        when = {"EXPTIME": 60.0, "DATE_OBS": stamp(i), "PEDESTAL": -100}
        night.put("light", f"l{i}{named}.fits", adu(data), **when, **words)
    night.darks(4)
    night.flats(3)
    summary, image = stacked(night, tmp_path / "out")
    assert summary.groups[0].n_used == 7
    found = rates(night, image) / 60.0
    assert found.std() < 0.02
    assert found.mean() == pytest.approx(1.0, abs=0.02)
    assert np.nanmedian(image) == pytest.approx(60.0 * SKY, abs=4)


def test_dead_pixels_of_flats_and_lights_leave_no_trace(tmp_path):
    night = Night(tmp_path / "night", 216)
    dead = np.zeros(night.shape, bool)
    dead[:, 201] = dead[60:64, 90:94] = True
    dead.flat[night.rng.choice(dead.size, 40, replace=False)] = True

    def put(kind, i, data, exposure_s, hour):
        when = {"EXPTIME": exposure_s, "DATE_OBS": stamp(i, hour=hour)}
        night.put(kind, f"{kind}{i}.fits", np.where(dead, 0, adu(data)).astype(np.uint16), **when)

    for i in range(7):
        put("light", i, night.light(), 60.0, 22)
    for i in range(3):
        put("dark", i, night.dark(), 60.0, 9)
        put("flat", i, night.flat(), 2.0, 20)
        put("bias", i, night.dark(0.0), 0.0, 9)
    _, image = stacked(night, tmp_path / "out")
    inner = image[14:-14, 14:-14]
    assert np.isfinite(inner).all()
    assert inner.min() > 0.85 * np.median(inner)
    found = rates(night, image)
    assert found.std() < 0.02 * found.mean()


def test_flats_of_calibrated_lights_in_another_unit(tmp_path):
    """Lights in 0..1, less bias and dark; raw flats and flat-darks in ADU need no unit but their own."""
    night = Night(tmp_path / "night", 217)
    for i in range(7):
        data = (night.light() - night.bias - 60.0 * night.rate + 100) / 65535
        when = {"EXPTIME": 60.0, "DATE_OBS": stamp(i), "CALSTAT": "BD", "PEDESTAL": 100 / 65535}
        night.put("light", f"l{i}.fits", data.astype(np.float32), **when)
    night.darks(4)
    night.flats(3)
    summary, image = stacked(night, tmp_path / "out")
    assert not summary.aside
    found = rates(night, image * 65535)
    assert found.std() < 0.02 * found.mean()
    assert slope(image) == pytest.approx(1.0, abs=0.03)
