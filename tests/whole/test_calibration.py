"""Calibration frames that are not what they seem: out of the masters, with the reason, and the lights come out right."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lerar_dask.run import Run
from tests.whole.nights import SKY, Night, adu, plane, rates, run, stacked, stamp


def plain(tmp_path, seed):
    night = Night(tmp_path / "night", seed)
    night.lights(7)
    return night


def reasons(summary, folder):
    return [reason for path, reason in summary.aside if f"/{folder}/" in path]


def check(night, image, *, tolerance=0.02):
    """Fluxes and sky as they were made."""
    found = rates(night, image)
    assert len(found) > 10
    assert found.std() < tolerance * found.mean()
    assert found.mean() == pytest.approx(60.0 * night.vignetting.mean(), rel=0.03)
    assert np.nanmedian(image) == pytest.approx(60.0 * SKY * night.vignetting.mean(), abs=6)


def test_a_dark_that_saw_light_stays_out(tmp_path):
    night = plain(tmp_path, 21)
    night.darks(4)
    leak = 6.0 * np.linspace(0, 1, night.shape[1])[None, :] * np.ones(night.shape)
    night.put("dark", "leak.fits", adu(night.expose(leak, 60.0)), EXPTIME=60.0, DATE_OBS=stamp(9, hour=8))
    night.flats()
    summary, image = stacked(night, tmp_path / "out")
    assert [r for r in reasons(summary, "darks") if "saw light" in r or "does not fit" in r]
    assert len(reasons(summary, "darks")) == 1
    check(night, image)


def test_darks_that_all_saw_the_sky_stay_out_and_the_bias_serves(tmp_path):
    night = plain(tmp_path, 22)
    for i in range(4):
        night.put("dark", f"d{i}.fits", adu(night.expose(40.0, 60.0)), EXPTIME=60.0, DATE_OBS=stamp(i, hour=8))
    night.flats()
    summary, image = stacked(night, tmp_path / "out")
    assert len(reasons(summary, "darks")) == 4
    assert all("above that of the lights" in reason for reason in reasons(summary, "darks"))
    assert rates(night, image).std() < 0.03 * rates(night, image).mean()


def test_saturated_flats_stay_out_and_it_is_counted(tmp_path):
    night = plain(tmp_path, 23)
    night.darks()
    night.flats(3)
    for i in range(2):
        night.put("flat", f"white{i}.fits", adu(night.flat(level=72000.0)), EXPTIME=2.0, DATE_OBS=stamp(i, hour=21))
    summary, image = stacked(night, tmp_path / "out")
    assert len([r for r in reasons(summary, "flats") if "saturated" in r]) == 2
    links = Run.open(tmp_path / "out").links
    assert any("3 of 5 frames" in line for row in links for line in row["lines"])
    check(night, image)


def test_flats_of_a_panel_that_was_off_or_half_covered_stay_out(tmp_path):
    night = plain(tmp_path, 24)
    night.darks()
    night.flats(4)
    night.put("flat", "off.fits", adu(night.flat(level=60.0)), EXPTIME=2.0, DATE_OBS=stamp(1, hour=21))
    half = night.flat() * np.where(np.arange(night.shape[1]) > 300, 0.6, 1.0)
    night.put("flat", "half.fits", adu(half), EXPTIME=2.0, DATE_OBS=stamp(2, hour=21))
    summary, image = stacked(night, tmp_path / "out")
    assert len(reasons(summary, "flats")) == 2
    check(night, image)


def test_a_dark_sent_in_part_stays_out(tmp_path):
    night = plain(tmp_path, 25)
    night.darks(2)
    cut = night.dark()
    cut[250:] = 0
    night.put("dark", "cut.fits", adu(cut), EXPTIME=60.0, DATE_OBS=stamp(9, hour=8))
    night.flats()
    summary, image = stacked(night, tmp_path / "out")
    assert len(reasons(summary, "darks")) == 1
    check(night, image)


def test_the_same_call_again_does_nothing(tmp_path):
    night = plain(tmp_path, 26)
    night.darks(4)
    night.put("dark", "leak.fits", adu(night.expose(8.0, 60.0)), EXPTIME=60.0, DATE_OBS=stamp(9, hour=8))
    night.flats()
    first = run(night, tmp_path / "out")
    again = run(night, tmp_path / "out")
    assert again.did_nothing
    assert again.aside == first.aside
    assert plane(again.groups[0].master).shape


def test_corners_are_named_where_a_pinned_flat_over_corrects(tmp_path):
    night = plain(tmp_path, 27)
    master = night.vignetting / night.vignetting.mean()
    night.put("flat", "master_flat.fits", master.astype(np.float32), IMAGETYP="Master Flat", EXPTIME=2.0)
    assert not [note for note in run(night, tmp_path / "without").notes if "lower right" in note]
    pins = tmp_path / "pins.toml"
    pins.write_text('[[pin]]\nlight = "*"\nflat = "*master_flat*"\n')
    summary = run(night, tmp_path / "out", pins=pins)
    (note,) = [note for note in summary.notes if "lower right" in note]
    assert "over-corrects" in note
    found = [int(percent) for percent in re.findall(r"\+(\d+)%", note)]
    part = 500 / (500 + 60 * SKY)  # of the bias in what the flat corrects
    assert len(found) == 4
    # mean of a corner's cell of 64 pixels
    assert np.mean(found) == pytest.approx(100 * part * (1 / 0.74 - 1), abs=4)
    assert run(night, tmp_path / "out", pins=pins).notes == summary.notes


def test_corners_are_named_where_the_darks_have_another_offset(tmp_path):
    night = Night(tmp_path / "night", 28)
    for i in range(6):
        night.put(
            "light", f"l{i}.fits", adu(night.light() + 300), EXPTIME=60.0, DATE_OBS=stamp(i), OFFSET=None, GAIN=None
        )
    night.darks(OFFSET=None, GAIN=None)
    night.flats(OFFSET=None, GAIN=None)
    notes = run(night, tmp_path / "out").notes
    assert [note for note in notes if "upper left" in note]


def test_corners_are_named_as_the_picture_shows_them(tmp_path):
    night = Night(tmp_path / "night", 30)
    light = np.where(np.arange(night.shape[0])[:, None] < 60, 0.6, 1.0)  # the first rows are dim: their gain is high
    master = night.vignetting * light
    night.put("flat", "master_flat.fits", (master / master.mean()).astype(np.float32), IMAGETYP="Master Flat")
    for i in range(6):
        data = night.expose(night.vignetting * light * night.image(*night.rng.uniform(-9, 9, 2)), 60.0)
        night.put("light", f"l{i}.fits", adu(data), EXPTIME=60.0, DATE_OBS=stamp(i), ROWORDER="BOTTOM-UP")
    pins = tmp_path / "pins.toml"
    pins.write_text('[[pin]]\nlight = "*"\nflat = "*master_flat*"\n')
    (note,) = [note for note in run(night, tmp_path / "out", pins=pins).notes if "lower right" in note]
    percent = {name: int(n) for name, n in re.findall(r"(\w+ \w+) \+(\d+)%", note)}
    assert percent["lower left"] > percent["upper left"] + 5


def test_corners_that_are_right_are_not_spoken_of(tmp_path):
    night = plain(tmp_path, 29)
    night.darks()
    night.flats()
    assert not [note for note in run(night, tmp_path / "out").notes if "upper left" in note]
