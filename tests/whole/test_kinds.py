"""What a frame is: header against folder, frames of unknown kind, and the word that settles it."""

from __future__ import annotations

import pytest

from tests.whole.nights import Night, adu, plane, rates, run, stamp


@pytest.mark.parametrize("calibration", ["flat", "dark"])
def test_calibration_frames_whose_header_says_light(tmp_path, calibration):
    night = Night(tmp_path / "night", 11)
    night.lights(6, IMAGETYP="Light Frame")
    tagged = {"IMAGETYP": "Light Frame"}
    night.darks(4, **(tagged if calibration == "dark" else {}))
    night.flats(3, **(tagged if calibration == "flat" else {}))
    summary = run(night, tmp_path / "out")
    assert summary.exit_code == 0
    assert [g.n_used for g in summary.groups] == [6]
    reasons = [reason for path, reason in summary.aside if f"/{calibration}s/" in path]
    assert len(reasons) == (4 if calibration == "dark" else 3)
    for reason in reasons:
        assert f"header says light, folder or name says {calibration}" in reason
        assert "stars: no light" in reason
        assert "[[kind]]" in reason


def test_the_pin_that_the_message_names_makes_them_flats(tmp_path):
    night = Night(tmp_path / "night", 12)
    night.lights(6, IMAGETYP="Light Frame")
    night.darks()
    night.flats(IMAGETYP="Light Frame")
    pins = tmp_path / "pins.toml"
    pins.write_text('[[kind]]\nframe = "flat_*"\nis = "flat"\n')
    summary = run(night, tmp_path / "out", pins=pins)
    assert summary.exit_code == 0
    assert not [path for path, _ in summary.aside if "/flats/" in path]
    found = rates(night, plane(summary.groups[0].master))
    assert found.std() < 0.02 * found.mean()


def test_frames_of_which_nothing_is_told(tmp_path):
    night = Night(tmp_path / "night", 13)
    night.lights(6)
    night.darks()
    for i in range(2):
        path = night.put(
            "other", f"img{i}.fits", adu(night.dark()), IMAGETYP=None, EXPTIME=60.0, DATE_OBS=stamp(20 + i)
        )
    path.parent.rename(path.parent.with_name("stuff"))
    summary = run(night, tmp_path / "out")
    assert summary.exit_code == 0
    assert [g.n_used for g in summary.groups] == [6]
    assert all("neither header nor folder says what it is" in reason for _, reason in summary.aside)
    assert any("nothing says what kind of frame it is" in note for note in summary.notes)
