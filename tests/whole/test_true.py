"""Report, settings and tasks are as true as the master: whatever changed, and wherever the run was killed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.io import fits

from lerar_dask.run import Run
from lerar_dask.settings_toml import from_toml
from tests.conftest import run

KILLED_AT = """
import os, signal, sys
from pathlib import Path

name, when, *arguments = sys.argv[1:]
replace = os.replace

def deadly(source, target, **more):
    if Path(target).name.endswith(name):
        if when == "after":
            replace(source, target, **more)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, **more)

os.replace = deadly
from lerar_dask.cli.app import run
sys.exit(run(arguments))
"""
PRODUCTS = ("run.json", "steps.json", ".fits", ".png", "lerar.toml", "report.html")


def told(out: Path) -> str:
    """The page without the moment it was made, and without what it cost."""
    text = (out / "report.html").read_text(encoding="utf-8", errors="replace")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "", text)
    return text[: text.find("Cost")] if "Cost" in text else text


def picture_of(out: Path) -> bytes:
    """All planes of the master."""
    (path,) = out.glob("*.fits")
    with fits.open(path) as master:
        return b"".join(master[i].data.tobytes() for i in range(5))


@pytest.fixture
def six(night, tmp_path) -> Path:
    """A night of six lights in a folder of its own, stacked; the other two beside it."""
    folder = tmp_path / "night"
    shutil.copytree(night, folder)
    (tmp_path / "later").mkdir()
    for path in sorted((folder / "lights").glob("*.fits"))[6:]:
        path.rename(tmp_path / "later" / path.name)
    assert run(folder, tmp_path / "out").n_used == 6
    return tmp_path


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_killed_between_two_files(six, name, when):
    for path in (six / "later").iterdir():
        path.rename(six / "night" / "lights" / path.name)
    command = [sys.executable, "-c", KILLED_AT, name, when, "stack", str(six / "night"), "-o", str(six / "out")]
    ended = subprocess.run([*command, "--clamping", "0.4"], capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    summary = run(six / "night", six / "out", clamping=0.4)
    assert (summary.exit_code, summary.n_used) == (0, 8)
    page = (six / "out" / "report.html").read_text()
    for path in (six / "night" / "lights").glob("*.fits"):
        assert path.name in page
    assert from_toml(six / "out" / "lerar.toml").integrate.clamping == 0.4
    opened = Run.open(six / "out")
    (group,) = opened.groups
    assert sum(task.key.startswith("ingest/") for step in opened.steps(group) for task in step.tasks) == 8
    with fits.open(six / "out" / f"{group}.fits") as master:
        assert master[0].header["NCOMBINE"] == 8
    assert not list((six / "out").rglob("*.partial"))
    assert run(six / "night", six / "out", clamping=0.4).did_nothing


def test_a_file_set_aside_without_a_task_is_in_the_report(six):
    assert "torn.fits" not in (six / "out" / "report.html").read_text()
    torn = six / "night" / "lights" / "torn.fits"
    torn.write_bytes(b"SIMPLE  =")
    summary = run(six / "night", six / "out")
    assert not summary.did_nothing
    assert "torn.fits" in (six / "out" / "report.html").read_text()
    assert "integrate" in (six / "out" / "report.html").read_text()  # what it cost is still told
    torn.unlink()
    run(six / "night", six / "out")
    assert "torn.fits" not in (six / "out" / "report.html").read_text()
    assert run(six / "night", six / "out").did_nothing


def test_a_light_that_came_and_went_is_told_and_nothing_is_read_again(six):
    out = six / "out"
    before, page = (out / "lerar.toml").read_bytes(), told(out)
    pixels = picture_of(out)
    late = sorted((six / "later").iterdir())[0]
    shutil.copy(late, six / "night" / "lights" / late.name)
    assert run(six / "night", out).n_used == 7
    (six / "night" / "lights" / late.name).unlink()
    summary = run(six / "night", out)
    assert (summary.n_used, summary.read_bytes) == (6, 0)
    assert [(Path(path).name, reason) for path, reason in summary.aside] == [(late.name, "its file is gone")]
    assert late.name in (out / "report.html").read_text()
    assert page != told(out)
    assert (out / "lerar.toml").read_bytes() == before
    assert picture_of(out) == pixels


@pytest.mark.parametrize("name", ["lerar.toml", "report.html", "*.fits", "*.png", "calibration/*dark*.fits"])
@pytest.mark.parametrize("damage", ["gone", "cut", "link"])
def test_a_product_that_is_gone_or_cut_is_written_again(night, stacked, tmp_path, name, damage):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    shutil.copytree(stacked, out)
    path = next(iter(out.glob(name)))
    whole = path.read_bytes()
    path.unlink()
    elsewhere.write_text("somebody's")
    if damage == "cut":
        path.write_bytes(whole[:1000])
    if damage == "link":
        path.symlink_to(elsewhere)
    assert run(night, out).exit_code == 0
    assert not path.is_symlink()
    assert abs(path.stat().st_size - len(whole)) < 2000
    assert elsewhere.read_text() == "somebody's"


def test_settings_in_force_are_those_of_the_last_call(night, stacked, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    summary = run(night, out, threads=1)
    assert summary.written_bytes == 0
    assert from_toml(out / "lerar.toml").run.threads == 1
