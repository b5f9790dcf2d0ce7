"""The order of the stages, what is done and what is left.

`stack(nights, out, settings, bus=...)` -> Summary, or DryRun with `dry_run=True`; `link(nights, settings)` -> Links.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lerar_dask.link.match import Links
from lerar_dask.pipeline.prepare import survey
from lerar_dask.pipeline.stack import stack
from lerar_dask.settings import Settings

__all__ = ["link", "stack"]


def link(nights: Sequence[Path], settings: Settings) -> Links:
    """Which dark, flat and bias each light of some folders gets, and why."""
    return survey(nights, settings).links
