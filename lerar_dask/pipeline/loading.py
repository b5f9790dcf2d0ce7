"""Program text that later stages need, read ahead while an earlier one computes.

A second and a half of imports would else stand between the stages, and before the first of them.
"""

from __future__ import annotations

import importlib
import threading

from lerar_dask.runtime.events import Event, StepStarted

__all__ = ["load_ahead"]

_AHEAD = {
    # Compiled code mostly, which does not keep the interpreter to itself.
    "ingest": (
        "lerar_dask.pipeline.solve",
        "lerar_dask.pipeline.finish",
        "astropy.io.fits",
        "bokeh.embed",
        "bokeh.models",
        "bokeh.plotting",
        "bokeh.resources",
        "jinja2",
    ),
}
"""Modules by the step during which they are loaded."""


def load_ahead(event: Event) -> None:
    """Consumer of the runtime's events that begins to load what comes after a step."""
    if isinstance(event, StepStarted) and event.step in _AHEAD:
        threading.Thread(target=_load, args=(_AHEAD[event.step],), name="loading", daemon=True).start()


def _load(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
