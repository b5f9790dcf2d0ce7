"""One run at a time; a killed holder leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from lerar_dask.errors import LockedError
from lerar_dask.store.lock import locked

HOLD = "import sys, time; from pathlib import Path; from lerar_dask.store.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_second_run_is_told_who_holds_it(tmp_path):
    with (
        locked(tmp_path / "lock"),
        pytest.raises(LockedError, match=f"process {os.getpid()} on"),
        locked(tmp_path / "lock"),
    ):
        pass
    with locked(tmp_path / "lock"):
        pass


def test_killed_holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(LockedError, match=f"process {process.pid} on"), locked(tmp_path / "lock"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with locked(tmp_path / "lock"):
        pass
