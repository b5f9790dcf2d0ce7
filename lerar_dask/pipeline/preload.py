"""What later stages need, made ready while earlier ones compute: program text read, kernels compiled.

A second and a half of imports would else stand between the stages, and before the first of them; and in the first run
after an install more than half a minute of compiling.
"""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lerar_dask.kernels.compiled import precompile
from lerar_dask.runtime.events import Event, StepStarted
from lerar_dask.runtime.memory import RESERVED_BYTES, cpu_count
from lerar_dask.runtime.run import Executor
from lerar_dask.tasks import Step

__all__ = ["Compiler", "precompiling", "preload_modules"]

_MODULES = {
    # Compiled code mostly, which does not keep the interpreter to itself.
    "ingest": (
        "lerar_dask.pipeline.target",
        "lerar_dask.pipeline.products",
        "lerar_dask.pipeline.run_report",
        "lerar_dask.pipeline.header_facts",
        "astropy.io.fits",
        "astropy.table",
        "bokeh.embed",
        "bokeh.models",
        "bokeh.plotting",
        "bokeh.resources",
        "jinja2",
    ),
}
"""Modules by the step during which they are loaded."""
_COMMAND = [sys.executable, "-m", "lerar_dask.kernels.compiled.precompile"]
_LOGGER = logging.getLogger(__name__)


def preload_modules(event: Event) -> None:
    """Consumer of the runtime's events that begins to load what comes after a step."""
    if isinstance(event, StepStarted) and event.step in _MODULES:
        threading.Thread(target=_load, args=(_MODULES[event.step],), name="loading", daemon=True).start()


def _load(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)


@contextmanager
def precompiling(executor: Executor, scheduler: str) -> Iterator[Compiler]:
    """Within the block, a process compiles kernels of later stages, if none are kept and a core and memory are free.

    Only for tasks that run in this process: the workers of a cluster have caches, cores and memory of their own.
    """
    compiler = Compiler()
    roomy = executor.budget_bytes >= RESERVED_BYTES + precompile.COMPILER_BYTES
    if scheduler == "threads" and cpu_count() > 1 and roomy and not precompile.is_compiled():
        compiler.start()
    try:
        yield compiler
    finally:
        compiler.stop()


class Compiler:
    """A process that compiles kernels ahead; the run never waits for it, and goes on the same without it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; the process sees none of the terminal's signals, and ends when this one does."""
        try:
            self.process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            _LOGGER.info("no kernels are compiled ahead: %s", error)

    def make_room(self, step: Step, executor: Executor) -> None:
        """Stop before a step that can use the memory which the process takes."""
        free = executor.budget_bytes - RESERVED_BYTES - precompile.COMPILER_BYTES
        if self.process and step.task_bytes * min(executor.slots, len(step.tasks)) > free:
            self.stop()

    def stop(self) -> None:
        """End the process at once; half a kernel is no loss."""
        if self.process is None:
            return
        code = self.process.poll()
        if code:
            _LOGGER.info("compiling kernels ahead ended with code %d", code)
        self.process.kill()
        self.process.communicate()
        self.process = None
