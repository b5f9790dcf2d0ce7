"""No sample, a bad one and a clipped one are three things, from the file to the master."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import rotate

from tests.whole.nights import SKY, Night, adu, master_of, plane, rates, stacked, stamp


def truly_sky(image: np.ndarray, level: float, within: float, *, side: int = 40) -> None:
    """Every part of the picture has the sky that it should have."""
    for y in range(0, image.shape[0], side):
        for x in range(0, image.shape[1], side):
            part = image[y : y + side, x : x + side]
            if np.isfinite(part).sum() > side * side / 2:
                assert np.nanmedian(part) == pytest.approx(level, abs=within), (y, x)


def test_rows_that_no_sensor_gave_are_no_data(tmp_path):
    night = Night(tmp_path / "night", 1)
    cut = int(0.6 * night.shape[0])
    for i in range(9):
        data = adu(night.light())
        if i in (1, 4):
            data[cut:] = 0
        if i == 6:
            data[cut:] = data[cut - 1]
        night.put("light", f"light_{i}.fits", data, EXPTIME=60.0, DATE_OBS=stamp(i))
    night.darks()
    night.flats()
    summary, image = stacked(night, tmp_path / "out")
    assert summary.n_used == 9
    truly_sky(image, 60 * SKY * night.vignetting.mean(), 3.0)
    assert rates(night, image) == pytest.approx(60 * night.vignetting.mean(), rel=0.04)
    coverage = plane(master_of(summary), "COVERAGE")
    assert np.median(coverage[: cut - 20]) == 9
    assert np.median(coverage[cut + 20 :]) == 6


def test_columns_of_a_color_camera_that_were_never_read_out(tmp_path):
    night = Night(tmp_path / "night", 2)
    night.vignetting[:] = 1.0
    for i in range(6):
        data = adu(night.light())
        if i == 2:
            data[:, :100] = 65535
        night.put("light", f"light_{i}.fits", data, EXPTIME=60.0, DATE_OBS=stamp(i), BAYERPAT="RGGB")
    night.darks(BAYERPAT="RGGB")
    summary, image = stacked(night, tmp_path / "out")
    for channel in range(3):
        truly_sky(image[channel], 60 * SKY, 6.0)
    coverage = plane(master_of(summary), "COVERAGE").reshape(-1, *image.shape[1:])[0]
    assert np.median(coverage[40:-40, 30:70]) == 5
    assert np.median(coverage[40:-40, 150:-40]) == 6


@pytest.mark.parametrize("kind", ["float with NaN", "integers with BLANK", "integers with 0, turned"])
def test_padding_is_neither_picture_nor_coverage(tmp_path, kind):
    night = Night(tmp_path / "night", 3)
    night.rate[:], night.vignetting[:], night.bias[:] = 0.0, 1.0, 0.0
    pad = 40
    for i in range(6):
        light = night.light(shift=(1.7 * i - 4, 3.1 - 1.2 * i))
        valid = np.ones(night.shape, bool)
        cards = {}
        if kind == "integers with 0, turned":
            angle = 1.5 * i - 3
            light = rotate(light, angle, order=1, cval=0.0)
            valid = rotate(valid.astype(float), angle, order=1, cval=0.0) > 0.999
            # one frame size for all, as programs write registered frames
            grown = [np.zeros((420, 500)), np.zeros((420, 500), bool)]
            y, x = (420 - light.shape[0]) // 2, (500 - light.shape[1]) // 2
            for whole, part in zip(grown, (light, valid), strict=True):
                whole[y : y + light.shape[0], x : x + light.shape[1]] = part
            light, valid = grown
            data = np.where(valid, adu(light), 0).astype(np.uint16)
        else:
            light, valid = np.pad(light, pad), np.pad(valid, pad)
            if kind == "float with NaN":
                data = np.where(valid, light, np.nan).astype(np.float32)
                if i in (1, 3):
                    data[100:103, 200:204], data[200, 150] = np.inf, -np.inf
            else:
                data = np.where(valid, np.rint(light), -32768).astype(np.int16)
                cards["BLANK"] = -32768
        night.put("light", f"light_{i}.fits", data, EXPTIME=60.0, DATE_OBS=stamp(i), **cards)
    summary, image = stacked(night, tmp_path / "out")
    assert summary.n_used == 6
    coverage, noise = plane(master_of(summary), "COVERAGE"), plane(master_of(summary), "NOISE")
    assert np.array_equal(np.isnan(image), coverage == 0)
    assert np.array_equal(np.isnan(noise), coverage == 0)
    if kind != "integers with 0, turned":
        assert max(image.shape) < max(night.shape) + 20
        assert np.isfinite(image[20:-20, 20:-20]).all()
    # what was padding is sky of nothing: its noise would be 0
    inside = image[np.isfinite(image)]
    truly_sky(image, 60 * SKY, 4.0)
    assert np.percentile(inside, 0.1) > 60 * SKY - 60
    assert rates(night, image) == pytest.approx(60, rel=0.05) if "turned" not in kind else True


@pytest.mark.parametrize("told", ["nothing", "SATURATE"])
def test_a_clipped_sample_is_left_out_where_another_sub_has_a_sound_one(tmp_path, told):
    night = Night(tmp_path / "night", 4)
    night.bias *= 0.2
    top = 4095 if told == "nothing" else 3800
    cards = {} if told == "nothing" else {"SATURATE": 3800}

    def clipped(data):
        data = np.minimum(adu(data), 4095)
        # a sensor that is not linear above the level that its header gives
        return np.where(data > top, top + (data - top) // 4, data).astype(np.uint16)

    for i in range(10):
        exposure = 20.0 if i < 5 else 120.0
        night.put(
            "light", f"light_{i}.fits", clipped(night.light(exposure)), EXPTIME=exposure, DATE_OBS=stamp(i), **cards
        )
    for exposure in (20.0, 120.0):
        for i in range(3):
            night.put(
                "dark",
                f"dark_{exposure}_{i}.fits",
                clipped(night.dark(exposure)),
                EXPTIME=exposure,
                DATE_OBS=stamp(i, hour=8),
            )
    _, image = stacked(night, tmp_path / "out")
    found = rates(night, image, vignetted=True, least=400)
    bright = rates(night, image, vignetted=True, least=1500)
    assert len(bright) >= 4
    assert np.std(found) < 0.02 * np.median(found)
    assert found == pytest.approx(np.median(found), rel=0.045)  # before: 30 to 54 % low
    assert np.median(bright) == pytest.approx(np.median(found), rel=0.015)


def test_what_every_sub_has_clipped_is_the_clipped_level_and_not_a_hole(tmp_path):
    night = Night(tmp_path / "night", 5)
    night.stars[:5, 2] = 60000.0
    night.stars[:5, :2] = [[100, 80], [300, 90], [220, 160], [90, 240], [340, 250]]
    night.lights(6)
    night.darks()
    _, image = stacked(night, tmp_path / "out")
    assert np.isfinite(image[20:-20, 20:-20]).all()
    assert np.nanmax(image) > 60000


def test_a_frame_without_a_single_row_of_its_own_is_set_aside(tmp_path):
    night = Night(tmp_path / "night", 6)
    night.lights(4)
    ramp = np.tile(np.arange(night.shape[1], dtype=np.uint16), (night.shape[0], 1))
    night.put("light", "ramp.fits", ramp, EXPTIME=60.0, DATE_OBS=stamp(9))
    summary, _ = stacked(night, tmp_path / "out")
    assert dict(summary.aside)[str(night.folder / "lights" / "ramp.fits")].startswith("it holds no picture")
    with fits.open(master_of(summary)) as hdus:
        assert len(hdus["FRAMES"].data) >= 4


def test_a_plane_over_a_field_of_few_stars_costs_no_sub(tmp_path):
    """Its beads are brighter than all stars: neither the width of the stars nor the match is made of them."""
    night = Night(tmp_path / "night", 58)
    for i in range(8):
        data = night.light()
        if i % 2 == 0:
            for x in range(night.shape[1]):
                y = int(0.4 * x + 20 * i)
                if 1 < y < night.shape[0] - 2:
                    data[y - 1 : y + 2, x] += 800
        night.put("light", f"l{i}.fits", adu(data), EXPTIME=60.0, DATE_OBS=stamp(i))
    night.darks()
    summary, image = stacked(night, tmp_path / "out")
    assert not summary.aside
    assert summary.groups[0].n_used == 8
    found = rates(night, image, vignetted=True) / 60.0
    assert found.std() < 0.02
    assert found.mean() == pytest.approx(1.0, abs=0.02)
