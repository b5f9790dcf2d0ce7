"""A cluster that is looked on: its dashboard answers on this machine, its report is a page that needs nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lerar_dask.errors import UsageError
from lerar_dask.runtime.executors import make_executor
from lerar_dask.settings import Run, Slurm

COMMAND = [sys.executable, "-m", "lerar_dask", "stack"]
LOOK = """
import sys, urllib.request
from pathlib import Path
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus, Note, StepStarted
from lerar_dask.settings import Settings

if __name__ == "__main__":
    links, seen = [], []

    def look(event):
        if isinstance(event, Note) and event.text.startswith("dashboard: "):
            links.append(event.text.split()[-1])
        if isinstance(event, StepStarted) and event.step == "integrate":
            seen.append(b"Bokeh" in urllib.request.urlopen(links[0], timeout=20).read())

    bus = Bus()
    bus.subscribe(look)
    night, out, page = map(Path, sys.argv[1:])
    settings = Settings.of(scheduler="processes", threads=1, dashboard=True, performance_report=page, report=False)
    assert stack([night], out, settings, bus=bus).exit_code == 0
    assert seen == [True], (links, seen)
    assert links[0].startswith("http://127.0.0.1:")
"""


def test_dashboard_and_report(small_night, tmp_path):
    program = tmp_path / "look.py"
    program.write_text(LOOK)
    page = tmp_path / "performance.html"
    done = subprocess.run(
        [sys.executable, str(program), str(small_night), str(tmp_path / "out"), str(page)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "ingest" in text
    assert '<script type="text/javascript" src="http' not in text


def test_threads_have_neither(tmp_path):
    with pytest.raises(UsageError, match="threads have no dashboard"):
        make_executor(Run(dashboard=True), Slurm(), tmp_path, [])


def test_a_report_with_no_place_is_said_before_anything_runs(tmp_path):
    with pytest.raises(UsageError, match="performance-report"):
        make_executor(
            Run(scheduler="processes", threads=1, performance_report=tmp_path / "none" / "x.html"),
            Slurm(),
            tmp_path,
            [],
        )
