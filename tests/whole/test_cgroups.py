"""In a group of processes whose memory is limited from outside, as a batch system or a container does it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lerar_dask.simulate import simulate
from tests.whole.test_schedulers import fingerprint

OLD, NEW = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def limited(n_bytes: int) -> Iterator[tuple[Path, Path]]:
    """A limited group and one without limit in it."""
    root, word = (OLD, "memory.limit_in_bytes") if OLD.is_dir() else (NEW, "memory.max")
    own = next(
        (line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line), ""
    )
    outer = Path(f"{root}{own}") / f"lerar-{uuid.uuid4().hex[:8]}"
    inner = outer / "inner"
    try:
        outer.mkdir()
        (outer / word).write_text(str(n_bytes))
        if root == NEW:
            (outer / "cgroup.subtree_control").write_text("+memory")
        inner.mkdir()
        (inner / "cgroup.procs").read_text()
    except OSError:
        for folder in (inner, outer):
            with contextlib.suppress(OSError):
                folder.rmdir()
        pytest.skip("no group of processes can be made here")
    try:
        yield outer, inner
    finally:
        for folder in (inner, outer):
            for _ in range(50):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.1)


def run(inner: Path, *words: str) -> subprocess.CompletedProcess:
    """The command in a group."""
    enter = f'echo $$ > "{inner}/cgroup.procs"; exec "$@"'
    command = ["sh", "-c", enter, "sh", sys.executable, "-m", "lerar_dask", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    return simulate(
        tmp_path_factory.mktemp("cgroup") / "night", n=16, shape=(1500, 2000), seed=2, n_darks=3, n_flats=3, n_bias=3
    )


@pytest.fixture(scope="module")
def bits(night, tmp_path_factory):
    out = tmp_path_factory.mktemp("cgroup") / "free"
    subprocess.run([sys.executable, "-m", "lerar_dask", "stack", str(night), "-o", str(out), "-q"], check=True)
    return fingerprint(out)


@pytest.mark.parametrize("words", [(), ("--scheduler", "processes", "--threads", "2")])
def test_a_run_keeps_to_the_limit_of_its_group(night, bits, tmp_path, words):
    out = tmp_path / "out"
    with limited(1400 << 20) as (_, inner):
        done = run(inner, "stack", str(night), "-o", str(out), "--json", *words)
    started = next(e for line in done.stdout.splitlines() if (e := json.loads(line))["event"] == "RunStarted")
    assert started["budget_bytes"] <= 1400 << 20
    assert done.returncode == 0, done.stderr[-500:]
    assert fingerprint(out) == bits


def test_what_does_not_fit_into_the_group_is_said(night, tmp_path):
    with limited(480 << 20) as (_, inner):
        done = run(inner, "stack", str(night), "-o", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "--memory" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "store.zarr" / "raw").exists()
