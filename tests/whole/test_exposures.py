"""A sub is its exposure: stacks and copies of subs among the lights are found by name, by start, and by their noise."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from tests.whole.nights import Night, adu, plane, rates, run, stamp


def aside(summary):
    return {path.rpartition("/")[2]: reason for path, reason in summary.aside}


def run_calibrated(night, out):
    night.darks()
    night.flats()
    return run(night, out)


def mean_of(night, n):
    return np.mean([night.light(shift=(0.0, 0.0)) for _ in range(n)], axis=0).astype(np.float32)


@pytest.mark.parametrize("n", [4, 9])
def test_a_stack_of_any_name_is_told_by_its_noise(tmp_path, n):
    night = Night(tmp_path / "night", 31)
    night.lights(6)
    night.put("light", "M1_final.fits", mean_of(night, n), EXPTIME=60.0, DATE_OBS=stamp(300))
    night.put("light", "single.fits", night.light().astype(np.float32), EXPTIME=60.0, DATE_OBS=stamp(20))
    summary = run_calibrated(night, tmp_path / "out")
    assert summary.exit_code == 0
    assert list(aside(summary)) == ["M1_final.fits"]
    assert "mean of several" in aside(summary)["M1_final.fits"]
    assert summary.groups[0].n_used == 7
    found = rates(night, plane(summary.groups[0].master))
    assert found.std() < 0.02 * found.mean()


def test_float_subs_of_a_darker_sky_are_no_stacks(tmp_path):
    night = Night(tmp_path / "night", 32)
    for i in range(7):
        sky = 0.0 if i == 3 else 40.0  # the moon
        data = night.light() + night.rng.poisson(sky * 60.0, night.shape)
        night.put("light", f"l{i}.fits", data.astype(np.float32), EXPTIME=60.0, DATE_OBS=stamp(i))
    summary = run_calibrated(night, tmp_path / "out")
    assert not summary.aside
    assert summary.groups[0].n_used == 7


def test_raw_calibrated_and_registered_files_of_one_exposure_are_one_sub(tmp_path):
    night = Night(tmp_path / "night", 33)
    for i in range(6):
        data = adu(night.light())
        night.put("light", f"light_{i}.fits", data, EXPTIME=60.0, DATE_OBS=stamp(i))
        for name in (f"pp_light_{i}.fits", f"r_pp_light_{i}.fits", f"light_{i}_c_cc_r.fits"):
            night.put("light", name, data.astype(np.float32) - 500, EXPTIME=60.0, DATE_OBS=stamp(i))
    summary = run_calibrated(night, tmp_path / "out")
    assert summary.groups[0].n_used == 6
    assert len(aside(summary)) == 18
    assert all(name.startswith(("pp_", "r_pp_")) or "_c_cc_r" in name for name in aside(summary))
    assert "same exposure as light_0.fits" in aside(summary)["pp_light_0.fits"]


def test_a_light_that_is_called_integration_is_a_light(tmp_path):
    night = Night(tmp_path / "night", 34)
    for i in range(6):
        night.put("light", f"drizzle_integration_{i}.fits", adu(night.light()), EXPTIME=60.0, DATE_OBS=stamp(i))
    summary = run_calibrated(night, tmp_path / "out")
    assert not summary.aside
    assert summary.groups[0].n_used == 6


def test_spellings_of_one_field_are_one_group(tmp_path):
    night = Night(tmp_path / "night", 35)
    objects = ["NGC 7000", "NGC7000", "ngc-7000", "NGC 7000", "NGC_7000", "NGC 7000"]
    filters = ["OIII", "O3", "Oiii", "O-III", "OIII", "OIII"]
    cameras = ["ZWO ASI294MM Pro", "ASI294MM Pro", "ZWO ASI294MM Pro", "ZWO CCD ASI294MM Pro"]
    for i in range(6):
        cards = {"OBJECT": objects[i], "FILTER": filters[i], "INSTRUME": cameras[i % 4]}
        night.put("light", f"l{i}.fits", adu(night.light()), EXPTIME=60.0, DATE_OBS=stamp(i), **cards)
    night.darks(INSTRUME="ASI294MM Pro")
    night.flats(pedestal=False, INSTRUME="ZWO ASI294MM Pro", FILTER="O3")
    night.darks(3, 2.0, "darkflat", INSTRUME="ZWO ASI294MM Pro")
    summary = stack([night.folder], tmp_path / "out", Settings(), bus=Bus())
    assert [(g.name, g.n_used) for g in summary.groups] == [("NGC-7000_OIII", 6)]
    assert any("NGC7000" in note for note in summary.notes)
    found = rates(night, plane(summary.groups[0].master))
    assert found.std() < 0.02 * found.mean()
