"""Files on shares that are away: what hangs is given up, what fails for a moment is tried again, and both come back."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import UnreachableError
from lerar_dask.frames import reach
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from tests.whole.test_schedulers import fingerprint


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Short patience, and no memory of what answered."""
    monkeypatch.setattr(reach, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(reach, "_PAUSES_S", (0.05, 0.1))
    monkeypatch.setattr(reach, "_answered", {})
    monkeypatch.setattr(reach, "_FRESH_S", 0.0)


def test_a_file_that_never_answers(tmp_path):
    os.mkfifo(tmp_path / "x")  # as a file of a dead server: opening it waits
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="does not answer"), reach.reached(tmp_path / "x"):
        pass
    assert time.monotonic() - started < 5
    writer = os.open(tmp_path / "x", os.O_RDWR)  # it answers when nobody waits any more
    os.write(writer, b"x")
    deadline = time.monotonic() + 5
    while any(t.name == "reach" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.close(writer)
    assert not any(os.path.realpath(f"/proc/self/fd/{n}") == str(tmp_path / "x") for n in os.listdir("/proc/self/fd"))


def test_an_error_that_passes(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"abc")
    left, plain = [errno.ESTALE, errno.EIO], os.open

    def failing(path, *how):
        if str(path).endswith("x") and left:
            raise OSError(left.pop(), "it passes")
        return plain(path, *how)

    monkeypatch.setattr(os, "open", failing)
    with reach.reached(tmp_path / "x") as descriptor:
        assert os.pread(descriptor, 3, 0) == b"abc"
    left[:] = [errno.EIO] * 3
    reach._answered.clear()
    with pytest.raises(UnreachableError, match="it passes"), reach.reached(tmp_path / "x"):
        pass


def test_what_is_gone_is_said_at_once(tmp_path):
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="No such file"), reach.reached(tmp_path / "x"):
        pass
    assert time.monotonic() - started < 1


def test_what_lies_on_a_share(tmp_path, monkeypatch):
    """Lines of /proc/self/mountinfo: number, parent, device, root, mount point, options - kind, source, options."""
    lines = [
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw",
        "31 22 0:45 / /mnt/night\\040one rw shared:7 master:2 - nfs4 server:/night rw",
        "32 22 0:46 / /mnt/ssh rw - fuse.sshfs me@server: rw",
        "33 22 0:47 / /run rw - tmpfs tmpfs rw",
    ]
    (tmp_path / "mountinfo").write_text("\n".join(lines))
    monkeypatch.setattr(reach, "_MOUNTS", tmp_path / "mountinfo")
    reach.may_hang.cache_clear()
    try:
        told = [reach.may_hang(os.makedev(*n)) for n in ((8, 1), (0, 45), (0, 46), (0, 47), (9, 9))]
        assert told == [False, True, True, False, False]
    finally:
        reach.may_hang.cache_clear()


def test_a_read_that_hangs_in_the_middle_of_a_file(small_night, small_bits, tmp_path, monkeypatch):
    """The light is set aside, no other is touched by what comes late, and the next call takes it."""
    night, out = tmp_path / "night", tmp_path / "out"
    shutil.copytree(small_night, night)
    lights = sorted(p for p in night.rglob("*.fits") if fits.getval(p, "IMAGETYP").lower().startswith("light"))
    ingesting, asked, answers = threading.Event(), threading.Event(), threading.Event()
    plain, bus = os.pread, Bus()

    def begin(event):
        if getattr(event, "step", "") == "ingest":
            ingesting.set()

    def hanging(descriptor, size, at):
        data = plain(descriptor, size, at)
        own = os.path.samestat(os.fstat(descriptor), lights[3].stat())
        if own and at > 4000 and ingesting.is_set() and not asked.is_set():
            asked.set()
            answers.wait(60)
        return data

    monkeypatch.setattr(reach, "may_hang", lambda device: True)
    monkeypatch.setattr(os, "pread", hanging)
    bus.subscribe(begin)
    summary = stack([night], out, Settings.of(report=False), bus=bus)
    assert asked.is_set()
    assert [path for path, _ in summary.aside] == [str(lights[3])]
    assert "does not answer" in summary.aside[0][1]
    answers.set()
    summary = stack([night], out, Settings.of(report=False), bus=Bus())
    assert not summary.aside
    again = tmp_path / "again"
    stack([night], again, Settings.of(report=False), bus=Bus())
    np.testing.assert_equal(fingerprint(out), fingerprint(again))


def test_a_light_whose_share_was_away_is_taken_by_the_next_call(small_night, small_bits, tmp_path):
    night, out = tmp_path / "night", tmp_path / "out"
    shutil.copytree(small_night, night)
    light = sorted(p for p in night.rglob("*.fits") if fits.getval(p, "IMAGETYP").lower().startswith("light"))[3]
    away = tmp_path / "away"
    bus = Bus()

    def unplug(event):
        if getattr(event, "step", "") == "ingest" and type(event).__name__ == "StepStarted" and light.exists():
            light.rename(away)
            os.mkfifo(light)

    bus.subscribe(unplug)
    summary = stack([night], out, Settings.of(report=False), bus=bus)
    assert [path for path, _ in summary.aside] == [str(light)]
    assert "does not answer" in summary.aside[0][1]
    assert fingerprint(out) != small_bits
    light.unlink()
    away.rename(light)
    summary = stack([night], out, Settings.of(report=False), bus=Bus())
    assert not summary.aside
    again = tmp_path / "again"
    stack([night], again, Settings.of(report=False), bus=Bus())
    np.testing.assert_equal(fingerprint(out), fingerprint(again))
