"""Stages one by one and in parts, as job arrays do them: the bits of one run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from lerar_dask.errors import LockedError, UsageError, WaitingError
from lerar_dask.pipeline import parts, stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from tests.whole.test_schedulers import fingerprint

COMMAND = [sys.executable, "-m", "lerar_dask", "stage"]


def test_stages_in_parts_make_the_bits_of_one_run(small_night, small_bits, tmp_path):
    out = tmp_path / "out here"
    parts.begin([small_night], out, Settings.of(report=False))
    assert parts.go_on(out, "masters", bus=Bus()) is None
    assert [(s.name, len(s.tasks)) for s in parts.left_of(out)] == [("ingest", 12)]
    with pytest.raises(WaitingError, match="ingest: 12 tasks are not done"):
        parts.go_on(out, "solve", bus=Bus())
    assert [parts.run_part(out, "ingest", k, 3, bus=Bus()).n_done for k in (3, 1, 2)] == [4, 4, 4]
    assert parts.run_part(out, "ingest", 1, 3, bus=Bus()).n_done == 0, "a part that is done does nothing"
    assert parts.go_on(out, "solve", bus=Bus()) is None
    n = sum(len(s.tasks) for s in parts.left_of(out))
    assert parts.run_part(out, "integrate", 1, 2, bus=Bus()).n_done == -(-n // 2)
    with pytest.raises(WaitingError, match="integrate"):
        parts.go_on(out, "products", bus=Bus())
    assert parts.run_part(out, "integrate", 1, 1, bus=Bus()).n_done == n // 2, "in other parts what is left is done"
    summary = parts.go_on(out, "products", bus=Bus())
    assert summary.exit_code == 0
    assert fingerprint(out) == small_bits


def test_a_chain_that_is_submitted_again_ends_well(small_night, tmp_path):
    """Stages whose work is done do nothing, and do not stop what waits for them; with all products that take jobs."""
    out = tmp_path / "out"
    parts.begin([small_night], out, Settings.of(report=False, drizzle=1, lnref=True))
    assert parts.chain(out) == [
        *("masters", "ingest", "solve", "integrate", "solve", "drizzle", "solve", "integrate", "products")
    ]
    for _ in range(2):
        for stage in parts.chain(out):
            if stage in parts.DRIVERS:
                summary = parts.go_on(out, stage, bus=Bus())
            else:
                assert parts.run_part(out, stage, 1, 1, bus=Bus()).n_failed == 0
        assert summary is not None
        assert summary.exit_code == 0
    assert summary.did_nothing
    names = {path.name for path in out.glob("*.fits")}
    assert names == {"Sim_L.fits", "Sim_L_drizzle1x.fits", "Sim_L_lnref.fits"}


def test_stack_finishes_what_stages_began_and_waits_for_nobody(small_night, small_bits, tmp_path):
    parts.begin([small_night], tmp_path / "out", Settings.of(report=False))
    parts.go_on(tmp_path / "out", "masters", bus=Bus())
    parts.run_part(tmp_path / "out", "ingest", 2, 4, bus=Bus())
    assert stack([small_night], tmp_path / "out", Settings.of(report=False), bus=Bus()).exit_code == 0
    assert fingerprint(tmp_path / "out") == small_bits


def test_jobs_that_are_killed_are_done_again(small_night, small_bits, tmp_path):
    """By the commands themselves, two at a time, one of them killed."""
    out = tmp_path / "out"

    def start(*words: str) -> subprocess.Popen:
        return subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def done(*words: str) -> None:
        process = start(*words)
        assert process.wait(120) == 0, process.stderr.read()

    settings = tmp_path / "settings.toml"
    settings.write_text("[products]\nreport = false\n")
    done("begin", str(out), "--night", str(small_night), "--config", str(settings))
    done("masters", str(out))
    first, second = start("ingest", str(out), "--part", "1/2"), start("ingest", str(out), "--part", "2/2")
    time.sleep(1.0)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.wait(120) == 0
    done("ingest", str(out), "--part", "1/2")
    done("solve", str(out))
    done("integrate", str(out), "--part", "1/2")
    done("integrate", str(out), "--part", "2/2")
    done("products", str(out))
    assert fingerprint(out) == small_bits


def test_one_job_at_a_time_where_one_job_is_wanted(small_night, tmp_path):
    parts.begin([small_night], tmp_path / "out", Settings())
    parts.go_on(tmp_path / "out", "masters", bus=Bus())
    from lerar_dask.store.access import Store

    with Store.open(str(tmp_path / "out" / "store.zarr")).lock(shared=True):
        parts.run_part(tmp_path / "out", "ingest", 1, 8, bus=Bus())
        with pytest.raises(LockedError):
            parts.go_on(tmp_path / "out", "solve", bus=Bus())


def test_what_is_not_begun_is_said(small_night, tmp_path):
    with pytest.raises(UsageError, match="is not begun"):
        parts.go_on(tmp_path, "masters", bus=Bus())
    with pytest.raises(UsageError, match="is not begun"):
        parts.left_of(tmp_path)
    parts.begin([small_night], tmp_path / "begun", Settings())
    assert parts.left_of(tmp_path / "begun") == []
    with pytest.raises(UsageError, match="no such folder"):
        parts.begin([tmp_path / "nowhere"], tmp_path / "out", Settings())
    process = subprocess.run(
        [*COMMAND, "ingest", str(tmp_path), "--part", "4/3"], capture_output=True, text=True, env=os.environ
    )
    assert process.returncode == 2
    assert "is no share" in process.stderr
