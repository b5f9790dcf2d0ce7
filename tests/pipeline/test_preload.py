"""Kernels compiled ahead of a run: exactly for what it calls them with, and never at its cost."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from lerar_dask.kernels.compiled import precompile
from lerar_dask.pipeline import preload
from lerar_dask.products.plots import plots
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate

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
    return SimpleNamespace(slots=2, budget_bytes=4 << 30)


@pytest.fixture
def first_run(monkeypatch):
    """A machine with two cores and no kernels."""
    monkeypatch.setattr(precompile, "is_compiled", lambda: False)
    monkeypatch.setattr(preload, "cpu_count", lambda: 2)


def are_begun(executor, **settings):
    with preload.beside(executor, Settings.of(**settings)) as processes:
        begun = [processes.compiler.process, processes.plotter.process]
        assert all(process.poll() is None for process in begun if process)
    assert all(process.poll() is not None for process in begun if process)
    return [process is not None for process in begun]


def test_kernels_are_compiled_and_plots_drawn_beside_the_first_run(first_run, executor):
    assert are_begun(executor) == [True, True]


def test_nothing_runs_beside_the_tasks_on_one_core(first_run, executor, monkeypatch):
    monkeypatch.setattr(preload, "cpu_count", lambda: 1)
    assert are_begun(executor) == [False, False]


def test_kernels_that_are_kept_are_not_compiled(first_run, executor, monkeypatch):
    monkeypatch.setattr(precompile, "is_compiled", lambda: True)
    assert are_begun(executor) == [False, True]


def test_the_workers_of_a_cluster_compile_for_themselves(first_run, executor):
    assert are_begun(executor, scheduler="processes") == [False, True]


def test_no_plots_without_a_report(first_run, executor):
    assert are_begun(executor, report=False) == [True, False]


def test_plots_of_another_process_are_those_of_this_one(first_run, executor):
    frames = [{"date_obs": f"2026-01-01T00:0{i}:00", "fwhm_px": 2.0 + i, "fate": "used"} for i in range(4)]
    with preload.beside(executor, Settings.of()) as processes:
        processes.plotter.ask((frames, 6.0))
        script, elements, scripts = processes.plotter.answer()
    own = plots(frames, gap_h=6.0)
    assert scripts == own[2]
    assert len(elements) == len(own[1]) == 1
    assert script.count("fwhm_px") == own[0].count("fwhm_px") > 0
