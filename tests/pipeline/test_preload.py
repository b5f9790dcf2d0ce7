"""Kernels compiled ahead of a run: exactly for what it calls them with, and never at its cost."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from lerar_dask.kernels.compiled import precompile
from lerar_dask.pipeline import preload
from lerar_dask.runtime.memory import RESERVED_BYTES
from lerar_dask.simulate import simulate
from lerar_dask.tasks import Step, Task

TYPES_OF_A_RUN = """
import sys
from pathlib import Path
from lerar_dask.kernels.compiled.precompile import kernels_and_types
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
stack([Path(sys.argv[1])], Path(sys.argv[2]), Settings.of(), bus=Bus())
for kernel, types in kernels_and_types():
    if types not in kernel.overloads:
        print("never called with these types:", kernel, types)
for kernel in {kernel for kernel, _ in kernels_and_types()}:
    for types in set(kernel.overloads) - {t for k, t in kernels_and_types() if k is kernel}:
        print("not in the table:", kernel, types)
"""


@pytest.mark.slow
def test_the_types_are_those_of_a_run(tmp_path):
    # large enough for trails
    night = simulate(tmp_path / "night", n=8, shape=(1000, 1400), seed=11, n_darks=3, n_flats=3, n_bias=3)
    command = [sys.executable, "-c", TYPES_OF_A_RUN, str(night), str(tmp_path / "out")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


@pytest.fixture
def executor():
    return SimpleNamespace(slots=2, budget_bytes=RESERVED_BYTES + precompile.COMPILER_BYTES + 100)


@pytest.fixture
def first_run(monkeypatch):
    """A machine with two cores and no kernels; a process that only waits."""
    monkeypatch.setattr(precompile, "is_compiled", lambda: False)
    monkeypatch.setattr(preload, "cpu_count", lambda: 2)
    monkeypatch.setattr(preload, "_COMMAND", [sys.executable, "-c", "import sys; sys.stdin.read()"])


def test_a_process_compiles_in_the_first_run(first_run, executor):
    with preload.precompiling(executor, "threads") as compiler:
        process = compiler.process
        assert process.poll() is None
    assert process.poll() is not None


def test_no_process_on_one_core(first_run, executor, monkeypatch):
    monkeypatch.setattr(preload, "cpu_count", lambda: 1)
    with preload.precompiling(executor, "threads") as compiler:
        assert compiler.process is None


def test_no_process_when_kernels_are_kept(first_run, executor, monkeypatch):
    monkeypatch.setattr(precompile, "is_compiled", lambda: True)
    with preload.precompiling(executor, "threads") as compiler:
        assert compiler.process is None


def test_no_process_beside_a_cluster(first_run, executor):
    with preload.precompiling(executor, "processes") as compiler:
        assert compiler.process is None


def test_no_process_in_little_memory(first_run, executor):
    executor.budget_bytes -= 101
    with preload.precompiling(executor, "threads") as compiler:
        assert compiler.process is None


@pytest.mark.parametrize(("task_bytes", "stays"), [(50, True), (51, False)])
def test_a_step_gets_the_memory_it_needs(first_run, executor, task_bytes, stays):
    tasks = [Task(key=str(i), digest="", function=dict) for i in range(3)]
    with preload.precompiling(executor, "threads") as compiler:
        compiler.make_room(Step(name="ingest", tasks=tasks, task_bytes=task_bytes), executor)
        assert (compiler.process is not None) == stays


def test_a_run_goes_on_when_no_process_can_be_started(first_run, executor, monkeypatch, caplog):
    monkeypatch.setattr(preload, "_COMMAND", ["/nowhere/python"])
    caplog.set_level("INFO")
    with preload.precompiling(executor, "threads") as compiler:
        assert compiler.process is None
    assert "no kernels are compiled ahead" in caplog.text


def test_a_process_that_fails_is_logged(first_run, executor, monkeypatch, caplog):
    monkeypatch.setattr(preload, "_COMMAND", [sys.executable, "-c", "raise SystemExit(3)"])
    caplog.set_level("INFO")
    with preload.precompiling(executor, "threads") as compiler:
        compiler.process.wait(timeout=60)
    assert "code 3" in caplog.text
