"""What a task is said to need is what it takes: each step again in a process of its own, its peak measured."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lerar_dask.pipeline import stack
from lerar_dask.replay import steps_of
from lerar_dask.runtime.events import Bus
from lerar_dask.runtime.memory import RESERVED_BYTES, format_bytes
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate
from lerar_dask.store.access import Store

SHAPE, N = (1500, 2000), 12
PEAK = """
import json, sys
from pathlib import Path
from lerar_dask.replay import steps_of
from lerar_dask.store.access import Store

step = steps_of(Store.open(sys.argv[1]))[int(sys.argv[2])]
tasks = sorted(step.tasks, key=lambda task: -task.pixels)[:2]
for task in tasks:
    task.function(**task.arguments)
words = Path("/proc/self/status").read_text().split()
print(json.dumps(1024 * int(words[words.index("VmHWM:") + 1])))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    simulate(folder / "night", n=N, shape=SHAPE, seed=3, n_darks=4, n_flats=4, n_bias=4, cfa="RGGB")
    stack([folder / "night"], folder / "out", Settings.of(report=False, drizzle=2), bus=Bus())
    return Store.open(folder / "out" / "store.zarr")


def test_no_task_takes_more_than_it_is_said_to(store):
    peaks = {}
    for k, step in enumerate(steps_of(store)):
        told = subprocess.run(
            [sys.executable, "-c", PEAK, store.url, str(k)], capture_output=True, text=True, check=True
        )
        peaks[f"{step.name} {step.group}".strip()] = int(json.loads(told.stdout)), RESERVED_BYTES + step.task_bytes
    assert {"ingest", "normalize", "integrate"} <= {name.split()[0] for name in peaks}
    above = {name: tuple(map(format_bytes, pair)) for name, pair in peaks.items() if pair[0] > pair[1]}
    assert not above
