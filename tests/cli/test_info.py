"""`lerar info`: groups, frames with fates and reasons, settings that were changed, sizes, damage."""

from __future__ import annotations

import json
import shutil

import pytest

from lerar_dask.cli.app import run
from lerar_dask.run import Run
from tests.conftest import run as stack


@pytest.fixture(scope="module")
def out(night, stacked, tmp_path_factory):
    """A run with a changed setting, and with a file that is no frame."""
    folder = tmp_path_factory.mktemp("info")
    shutil.copytree(night, folder / "night")
    (folder / "night" / "lights" / "torn.fits").write_bytes(b"SIMPLE  =")
    assert stack(folder / "night", folder / "out", reject="mad", report=False).n_used == 8
    return folder / "out"


def test_groups_fates_settings_and_sizes(out, capsys):
    assert run(["info", str(out)]) == 0
    text = capsys.readouterr().out
    (name,) = Run.open(out).groups
    assert str(out / f"{name}.fits") in text
    assert "torn.fits" in text
    assert "Sim_L_0003" not in text
    assert [line.split() for line in text.splitlines() if line.startswith("  reject ")] == [["reject", "mad"]]
    assert any(line.split()[:1] == ["store.zarr"] for line in text.splitlines())
    assert "no damage found in every file but the raw pixels" in text


def test_every_frame_when_asked(out, capsys):
    assert run(["info", str(out), "--frames"]) == 0
    text = capsys.readouterr().out
    rows = [row for row in Run.open(out).frames if row["fate"] == "used"]
    assert len(rows) == 8
    for row in rows:
        (line,) = [line for line in text.splitlines() if row["path"] in line]
        assert line.removeprefix(row["path"]).split()[:2] == ["used", f"{row['fwhm_px']:.4g}"]


def test_as_json(out, capsys):
    assert run(["info", str(out), "--json"]) == 0
    event = json.loads(capsys.readouterr().out)
    assert event["frames"] == Run.open(out).frames
    assert event["sizes"]["lerar.toml"] == (out / "lerar.toml").stat().st_size
    assert event["damaged"] == []


@pytest.mark.parametrize(
    ("pattern", "arguments"), [("raw/*/frames/3.json", []), ("raw/*/pixels/c/3/0/0", ["--verify"]), ("run.json", [])]
)
def test_damage_is_told_and_ends_with_1(out, tmp_path, capsys, pattern, arguments):
    shutil.copytree(out, tmp_path / "out")
    (path,) = (tmp_path / "out" / "store.zarr").glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    if arguments:
        assert run(["info", str(tmp_path / "out")]) == 0
    assert run(["info", str(tmp_path / "out"), *arguments]) == 1
    assert path.relative_to(tmp_path / "out" / "store.zarr").as_posix() in capsys.readouterr().out
