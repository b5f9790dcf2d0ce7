"""What later stages need, made ready while earlier ones compute: modules loaded, kernels compiled, plots drawn.

A second of imports would else stand between the stages, and before the first of them; and in the first run after an
install more than half a minute of compiling.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lerar_dask.kernels.compiled import precompile
from lerar_dask.runtime.events import Event, StepStarted
from lerar_dask.runtime.memory import cpu_count
from lerar_dask.runtime.run import Executor
from lerar_dask.runtime.side_process import SideProcess
from lerar_dask.settings import Settings
from lerar_dask.tasks import Step

__all__ = ["Beside", "beside", "preload_modules"]

_MODULES = (
    "lerar_dask.pipeline.target",
    "lerar_dask.pipeline.products",
    "lerar_dask.pipeline.run_report",
    "lerar_dask.pipeline.header_facts",
    "astropy.io.fits",
    "astropy.table",
    "bokeh.palettes",
)
"""Loaded during the first steps: those run compiled code mostly, which does not keep the interpreter to itself."""
_FIRST_STEPS = ("look over", "ingest")
_PLOTTER_BYTES = 100 << 20


def preload_modules(event: Event) -> None:
    """Consumer of the runtime's events that begins to load what later steps need."""
    if isinstance(event, StepStarted) and event.step in _FIRST_STEPS:
        threading.Thread(target=_load, name="loading", daemon=True).start()


def _load() -> None:
    for module in _MODULES:
        importlib.import_module(module)
    from lerar_dask.products.report import page_template
    from lerar_dask.settings import Run, field_texts

    page_template()
    field_texts(Run)  # comments of the settings' file, read from the program text


@dataclass(frozen=True)
class Beside:
    """Processes beside the tasks of a run."""

    compiler: SideProcess
    """Compiles kernels of later stages."""
    plotter: SideProcess
    """Draws the plots of the report: half a second of program text to load, and as much to run."""

    def make_room(self, step: Step, executor: Executor) -> None:
        """Stop those whose memory a step can use."""
        self.compiler.make_room(step, executor)
        self.plotter.make_room(step, executor)


@contextmanager
def beside(executor: Executor, settings: Settings) -> Iterator[Beside]:
    """Within the block, processes work ahead for the run, if a core and memory are free.

    Kernels are compiled ahead if none are kept, and only for tasks that run in this process: the workers of a cluster
    have caches, cores and memory of their own.
    """
    compiler = SideProcess("lerar_dask.kernels.compiled.precompile", precompile.COMPILER_BYTES)
    plotter = SideProcess("lerar_dask.products.plots", _PLOTTER_BYTES)
    if cpu_count() > 1:
        if settings.products.report:
            plotter.start(executor)
        if settings.run.scheduler == "threads" and not precompile.is_compiled():
            compiler.start(executor)
    try:
        yield Beside(compiler, plotter)
    finally:
        compiler.stop()
        plotter.stop()
