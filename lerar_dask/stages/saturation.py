"""Saturation of the subs of a group: from which level on the samples of each are lower bounds only.

Reads   the frames' records in the store

A header tells it, or the largest number of the file's type; where the subs of one camera, gain and geometry end at one
number below that, and at least one of them piles up there, that number is it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.link.meaning import camera_classes
from lerar_dask.stages.ingest import saturated_from

__all__ = ["saturation_levels"]


def saturation_levels(records: Sequence[Mapping[str, Any]], geometries: Sequence[str]) -> np.ndarray:
    """Level of each sub.

    Parameters
    ----------
    records : of the subs' frames
    geometries : name of the raw array of each

    Returns
    -------
    (n,) float64
        ADU; infinite for subs whose samples all lie below it
    """
    cameras = camera_classes(r["header"].get("camera") for r in records)
    kinds = [
        (geometry, cameras[r["header"].get("camera")], r["header"].get("gain"), r["scale"], r["zero"])
        for r, geometry in zip(records, geometries, strict=True)
    ]
    tops: dict[tuple[Any, ...], list[tuple[float, bool]]] = {}
    for kind, r in zip(kinds, records, strict=True):
        tops.setdefault(kind, []).append((r.get("largest", np.inf), bool(r.get("piled"))))
    levels = []
    for kind, r in zip(kinds, records, strict=True):
        largest, piled = max(tops[kind])
        raw = saturated_from({**r, "piled": False}, piled_at=largest if piled else None)
        levels.append(raw * r["scale"] + r["zero"] if r.get("largest", np.inf) >= raw else np.inf)
    return np.array(levels, float)
