"""Disks that are full or read-only, folders that cannot be read or lie oddly: one line, or a frame set aside; and on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import SpaceError
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings


def run(night, out, **settings):
    nights = night if isinstance(night, list) else [night]
    return stack(nights, out, Settings.of(report=False, **settings), bus=Bus())


def command(night: Path, out: Path, *words: str, **how) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "lerar_dask", "stack", str(night), "-o", str(out), "-q", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **how)


def is_one_line(done: subprocess.CompletedProcess) -> str:
    """The error of a command that ended as it should: exit 1, one line and a hint."""
    lines = done.stderr.splitlines()
    assert done.returncode == 1, done.stderr
    assert len(lines) <= 2, done.stderr
    assert lines[0].startswith("lerar: ")
    assert "fault of lerar" not in lines[0]
    return done.stderr


def planes(out: Path) -> np.ndarray:
    (path,) = out.glob("*.fits")
    with fits.open(path) as opened:
        return np.stack([np.squeeze(opened[i].data) for i in range(5)])


def mount(*words: str) -> None:
    if not shutil.which("mount") or subprocess.run(["mount", *words], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no file system be mounted")


@contextlib.contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    at.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


@contextlib.contextmanager
def read_only(at: Path) -> Iterator[Path]:
    mount("--bind", str(at), str(at))
    try:
        mount("-o", "remount,bind,ro", str(at))
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


# ------------------------------------------------------------------------------------------------------------ full disks


@pytest.mark.parametrize("size", ["4k", "1400k", "5300k"])
def test_a_full_disk_and_then_room(night, stacked, tmp_path, size):
    """From the first file of the store to a shard in the middle of ingest."""
    with small_disk(tmp_path / "disk", size) as disk:
        out = disk / "out"
        said = is_one_line(command(night, out))
        assert "No space left on device" in said
        assert "make room and call again" in said
        subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
        assert run(night, out).exit_code == 0
        assert np.array_equal(planes(out), planes(stacked), equal_nan=True)
        assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("size", ["100k", "3M"])
def test_no_room_for_products_while_the_store_has_room(night, stacked, tmp_path, size):
    store = tmp_path / "store.zarr"
    with small_disk(tmp_path / "disk", size) as disk:
        out = disk / "out"
        said = is_one_line(command(night, out, "--store", str(store)))
        assert "No space left on device" in said
        assert str(disk) in said
        subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
        assert run(night, out, store=str(store)).read_bytes == 0
        assert np.array_equal(planes(out), planes(stacked), equal_nan=True)


def test_a_full_disk_under_workers(night, tmp_path):
    with small_disk(tmp_path / "disk", "4200k") as disk, pytest.raises(SpaceError) as caught:
        run(night, disk / "out", scheduler="processes")
    assert "make room" in caught.value.hint


def test_a_limit_on_the_size_of_files(night, tmp_path):
    """Works without mounting: the master is larger than any file may be."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = command(night, tmp_path / "out", preexec_fn=limit)
    assert "File too large" in is_one_line(done)
    assert not list((tmp_path / "out").glob("*.fits"))
    assert run(night, tmp_path / "out").exit_code == 0


# ------------------------------------------------------------------------------------------------------- read-only disks


def test_a_read_only_disk(night, tmp_path):
    (tmp_path / "disk").mkdir()
    with read_only(tmp_path / "disk") as disk:
        assert "cannot be written (Read-only file system)" in is_one_line(command(night, disk / "out"))
        assert "Read-only file system" in is_one_line(command(night, disk))


def test_a_run_that_became_read_only_can_still_be_looked_at(night, stacked, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    with read_only(out):
        said = is_one_line(command(night, out, "--reject", "none"))
        assert "Read-only file system" in said
        assert "can be written" in said
        shown = subprocess.run(
            [sys.executable, "-m", "lerar_dask", "info", str(out)], capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0
    assert np.array_equal(planes(out), planes(stacked), equal_nan=True)


# --------------------------------------------------------------------------------------------------------------- folders


def _bound_by_permissions() -> None:
    """Root without the right to pass by permissions, in a child process."""
    if os.getuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.fixture
def bound(tmp_path) -> Callable[[], None]:
    """What makes a child process heed permissions."""
    (tmp_path / "probe").write_text("secret")
    (tmp_path / "probe").chmod(0)
    code = f"open({str(tmp_path / 'probe')!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, preexec_fn=_bound_by_permissions, check=False
    )
    if b"PermissionError" not in done.stderr:
        pytest.skip("permissions bind nobody here")
    return _bound_by_permissions


def test_what_may_not_be_read_is_said_and_the_rest_is_stacked(night, tmp_path, bound):
    folder = tmp_path / "night"
    shutil.copytree(night, folder)
    lights = sorted((folder / "lights").glob("*.fits"))
    secret = folder / "lights" / "secret"
    secret.mkdir()
    lights[0].rename(secret / lights[0].name)
    lights[1].chmod(0)
    secret.chmod(0)
    done = command(folder, tmp_path / "out", "--json", preexec_fn=bound)
    secret.chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert "the folder cannot be read (Permission denied)" in done.stdout
    assert "it cannot be read (Permission denied)" in done.stdout
    assert '"n_used": 6' in done.stdout


def test_an_out_that_may_not_be_written(night, stacked, tmp_path, bound):
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    folders = [out, *(p for p in out.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    done = command(night, out, "--reject", "none", preexec_fn=bound)
    for folder in folders:
        folder.chmod(0o755)
    assert re.search("cannot be written|[Pp]ermission denied", is_one_line(done))


def test_out_within_the_night(night, stacked, tmp_path):
    folder = tmp_path / "night"
    shutil.copytree(night, folder)
    out = folder / "results"
    assert run(folder, out).exit_code == 0
    assert np.array_equal(planes(out), planes(stacked), equal_nan=True)
    again = run(folder, out)
    assert again.read_bytes == 0
    assert again.n_used == 8
    beside = run(folder, tmp_path / "beside")
    assert beside.n_used == 8
    assert not [path for path, _ in beside.aside if "results" in path]


def test_odd_names_of_files(night, tmp_path):
    names = [
        *("two\nlines.fits", "ünïcödé 星.fits", "  spaces  .fits", "quote'\".fits", "tab\t.fits", "<b>&amp;.fits"),
        *("a" * 250 + ".fits", os.fsdecode(b"\xff\xfe.fits")),
    ]
    lights = tmp_path / "night" / "Lights of\n<b>&amp; ü" / "lights"
    lights.mkdir(parents=True)
    for name, path in zip(names, sorted((night / "lights").glob("*.fits")), strict=True):
        shutil.copy(path, lights / name)
    for name in names:
        (lights / f"bad {name[-40:]}").write_text("no picture")
    done = command(tmp_path / "night", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with fits.open(next((tmp_path / "out").glob("*.fits"))) as opened:
        assert opened[0].header["NCOMBINE"] == 8
        opened.verify("exception")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<b>&amp;.fits" not in page
    again = command(tmp_path / "night", tmp_path / "out", "--json")
    assert '"did_nothing": true' in again.stdout
    for words in (
        ("stack", "--dry-run", str(tmp_path / "night"), "-o", str(tmp_path / "new")),
        ("info", str(tmp_path / "out")),
    ):
        shown = subprocess.run([sys.executable, "-m", "lerar_dask", *words], capture_output=True, check=False)
        assert shown.returncode == 0, shown.stderr
