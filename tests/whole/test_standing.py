"""A finished run answers at once, and only while everything is as it was left."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lerar_dask import standing
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings

SETTINGS = Settings.of(preview=False)


@pytest.fixture(scope="module")
def left(small_night, tmp_path_factory):
    """A night, what a run left of it, and the run's summary."""
    folder = tmp_path_factory.mktemp("standing")
    shutil.copytree(small_night, folder / "night")
    summary = stack([folder / "night"], folder / "out", SETTINGS, bus=Bus())
    return folder / "night", folder / "out", summary


def told(night: Path, out: Path, settings: Settings = SETTINGS):
    return standing.standing_summary([night], out, settings)


def test_it_tells_what_the_run_told(left):
    night, out, summary = left
    again = told(night, out)
    assert again is not None
    assert again.did_nothing
    same = ("out", "n_lights", "n_used", "n_aside", "n_failed", "report", "notes")
    assert [getattr(again, name) for name in same] == [getattr(summary, name) for name in same]
    assert list(again.groups) == list(summary.groups)
    assert list(again.aside) == list(summary.aside)
    long_way = stack([night], out, SETTINGS, bus=Bus())
    assert dataclasses.replace(again, seconds=0, peak_bytes=0) == dataclasses.replace(
        long_way, seconds=0, peak_bytes=0, groups=list(long_way.groups), notes=list(long_way.notes)
    )


def chunk_of(out: Path) -> Path:
    return next(p for p in sorted((out / "store.zarr" / "master").rglob("*")) if p.is_file() and p.name.isdigit())


CHANGES = {
    "a light is touched": lambda night, out: os.utime(next(night.rglob("*.fits"))),
    "a light is gone": lambda night, out: next(night.rglob("*.fits")).unlink(),
    "a file is new": lambda night, out: (night / "new.txt").write_text("x"),
    "a product is gone": lambda night, out: next(out.glob("*.fits")).unlink(),
    "the report is cut short": lambda night, out: os.truncate(out / "report.html", 100),
    "a chunk is gone": lambda night, out: chunk_of(out).unlink(),
    "a chunk is cut short": lambda night, out: os.truncate(chunk_of(out), 10),
    "another picture was made": lambda night, out: (out / "picture.png").write_bytes(b""),
    "a folder is a link": lambda night, out: (night / "more").symlink_to(out),
    "what was kept is no JSON": lambda night, out: (out / ".standing.json").write_text("{"),
    "what was kept is something else": lambda night, out: (out / ".standing.json").write_text('{"made_of": 1}'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_left_to_the_pipeline(left, tmp_path, change):
    night, out = tmp_path / "night", tmp_path / "out"
    shutil.copytree(left[0], night)
    stack([night], out, SETTINGS, bus=Bus())
    assert told(night, out) is not None
    CHANGES[change](night, out)
    assert told(night, out) is None


@pytest.mark.parametrize("other", [{"reject": "winsorized"}, {"memory": "1GiB"}, {"report": False}])
def test_other_settings(left, other):
    night, out, _ = left
    assert told(night, out, Settings.of(preview=False, **other)) is None


def test_a_file_that_a_setting_names(left, tmp_path):
    night, out, _ = left
    pins = tmp_path / "pins.toml"
    pins.write_text("")
    settings = Settings.of(preview=False, pins=pins)
    stack([night], out, settings, bus=Bus())
    assert told(night, out, settings) is not None
    pins.write_text("# changed\n")
    assert told(night, out, settings) is None
    stack([night], out, SETTINGS, bus=Bus())


def test_a_frame_that_comes_during_the_run_is_not_taken_as_seen(left, tmp_path):
    night, out = tmp_path / "night", tmp_path / "out"
    shutil.copytree(left[0], night)
    light = next(night.rglob("light*.fits"), None) or next(
        p for p in sorted(night.rglob("*.fits")) if "light" in str(p)
    )

    def arrive(event):
        if type(event).__name__ == "StepFinished" and event.step == "ingest":
            shutil.copy(light, light.with_name("late.fits"))

    stack([night], out, SETTINGS, bus=Bus([arrive]))
    assert told(night, out) is None


def test_other_nights(left, tmp_path):
    night, out, _ = left
    shutil.copytree(night, tmp_path / "night")
    assert told(tmp_path / "night", out) is None


def test_another_program(left, tmp_path, monkeypatch):
    night, out, _ = left
    assert told(night, out) is not None
    monkeypatch.setattr(standing, "_PROGRAM", tmp_path)
    assert told(night, out) is None


def test_the_command_loads_nothing_for_it(left):
    night, out, summary = left
    code = (
        "import sys; from lerar_dask.cli.app import run; "
        f"code = run(['stack', {str(night)!r}, '-o', {str(out)!r}, '--no-preview', '--json']); "
        "print(sorted({'numba', 'zarr', 'astropy', 'dask', 'scipy'} & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line, end = done.stdout.splitlines()
    assert end == "[] 0"
    result = json.loads(line)["result"]
    assert result["did_nothing"]
    assert result["n_used"] == summary.n_used
