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
    while any(t.name == "open" for t in threading.enumerate()) and time.monotonic() < deadline:
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
