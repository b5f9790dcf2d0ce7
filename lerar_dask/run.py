"""Run: what a finished (or half finished) run holds: tables, lazy dask arrays, the graph.

The pipeline leaves `run.json` in the store (`RunState`): which subs make up which group, and under which keys their
registration, normalization, stack table and master lie. `Run` opens it. Every array is lazy: a region computes alone.
"""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.errors import StoreError, UsageError
from lerar_dask.grid import CHUNK_SHAPE, Canvas

__all__ = ["GroupState", "Run", "RunState", "Sub", "TargetState"]


@dataclass(frozen=True, kw_only=True)
class Sub:
    """A light in the store."""

    id: str
    """Hash of its pixels."""
    path: str
    group: str
    geometry: str
    slot: int
    measure: str
    """Key of its measurements."""
    calibration: str | None
    start: float
    """Start of the exposure, unix seconds (0 when unknown)."""
    exposure_s: float
    shape: tuple[int, int]
    cfa: str | None


@dataclass(frozen=True, kw_only=True)
class TargetState:
    """Subs on one grid."""

    subs: Sequence[Sub]
    """Sorted by start, then id."""
    registration: str
    canvas: Canvas | None


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """Subs that make one master."""

    target: str
    subs: Sequence[int]
    """Indices into the target's subs that are in the master, in order."""
    normalization: str
    table: str
    """Key of the stack table."""
    master: str
    n_channels: int
    files: Mapping[str, str] = field(default_factory=dict)
    """Products by kind, relative to OUT."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What `run.json` holds."""

    nights: Sequence[str]
    settings: Mapping[str, Any]
    targets: Mapping[str, TargetState]
    groups: Mapping[str, GroupState]
    frames: Sequence[Mapping[str, Any]] = ()
    """FRAMES rows."""
    links: Sequence[Mapping[str, Any]] = ()
    """What `lerar link` prints."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RunState:
        """The state that `to_json` wrote."""
        targets = {
            name: TargetState(
                subs=[Sub(**{**s, "shape": tuple(s["shape"])}) for s in t["subs"]],
                registration=t["registration"],
                canvas=_canvas_of(t["canvas"]),
            )
            for name, t in plain["targets"].items()
        }
        groups = {name: GroupState(**g) for name, g in plain["groups"].items()}
        return cls(**{**plain, "targets": targets, "groups": groups})


def _canvas_of(plain: Mapping[str, Any] | None) -> Canvas | None:
    return Canvas(tuple(plain["origin_yx"]), tuple(plain["shape"])) if plain else None
