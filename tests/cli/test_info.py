"""`lerar info`: groups, frames with fates and reasons, settings that were changed, sizes."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from lerar_dask.cli.app import run
from lerar_dask.settings import Settings

FRAMES = [
    {"path": "/n/a.fits", "group": "M31_L", "fate": "used", "reason": "", "exposure_s": 60.0, "fwhm_px": 2.345678},
    {"path": "/n/b.fits", "group": "M31_L", "fate": "aside", "reason": "clouds", "exposure_s": 60.0, "fwhm_px": None},
    {"path": "/n/c.txt", "group": None, "fate": "aside", "reason": "not a FITS file", "exposure_s": None},
]


@pytest.fixture
def out(monkeypatch, tmp_path):
    import lerar_dask.run

    settings = dataclasses.asdict(Settings.of(reject="mad"))
    opened = SimpleNamespace(frames=FRAMES, links=[], groups=["M31_L"], settings=settings)
    monkeypatch.setattr(lerar_dask.run, "Run", SimpleNamespace(open=lambda path: opened), raising=False)
    (tmp_path / "store.zarr" / "raw").mkdir(parents=True)
    (tmp_path / "store.zarr" / "raw" / "c").write_bytes(b"x" * 3000)
    (tmp_path / "M31_L.fits").write_bytes(b"x" * 5000)
    return tmp_path


def test_info_shows_groups_fates_settings_and_sizes(out, capsys):
    assert run(["info", str(out)]) == 0
    text = capsys.readouterr().out
    assert str(out / "M31_L.fits") in text
    assert "clouds" in text
    assert "not a FITS file" in text
    assert "/n/a.fits" not in text
    assert [line.split() for line in text.splitlines() if "reject" in line] == [["reject", "mad"]]
    assert ["store.zarr", "2.9", "KiB"] in [line.split() for line in text.splitlines()]


def test_info_lists_every_frame_when_asked(out, capsys):
    assert run(["info", str(out), "--frames"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "/n/a.fits" in line)
    assert line.split() == ["/n/a.fits", "used", "2.346"]


def test_info_as_json(out, capsys):
    assert run(["info", str(out), "--json"]) == 0
    event = json.loads(capsys.readouterr().out)
    assert event["frames"] == FRAMES
    assert event["sizes"] == {"M31_L.fits": 5000, "store.zarr": 3000}
