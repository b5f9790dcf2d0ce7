"""Corners that a flat over-corrects, said of each group before anyone looks at its master."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.calibrate.corners import Corners, gain_cells, over_corrected
from lerar_dask.pipeline.prepare import Light
from lerar_dask.pipeline.session import Session
from lerar_dask.stages.calibration_maps import calibration_maps
from lerar_dask.sub import Sub

__all__ = ["corner_notes"]

_SUBS = 15
"""So many subs of a group tell."""
_SEEN = 0.01
"""Parts of the sky from which on a corner is spoken of."""


def corner_notes(session: Session, lights: Sequence[Light], subs: Sequence[Sub]) -> list[str]:
    """A sentence for each group and flat whose correction leaves corners brighter than the middle.

    What was found is remembered: called again, no pixel is read.
    """
    of = {str(light.frame.path): light for light in lights}
    alike = defaultdict(list)
    for sub in subs:
        light = of[sub.path]
        if sub.calibration and light.calibration.flat:
            bottom_up = light.frame.header.row_order == "BOTTOM-UP"
            alike[(sub.group, light.calibration.flat, sub.geometry, sub.calibration, bottom_up)].append(sub)
    notes = []
    for (group, flat, geometry, calibration, bottom_up), members in sorted(alike.items()):
        some = [members[i] for i in np.unique(np.linspace(0, len(members) - 1, _SUBS).round().astype(int))]
        key = f"corners/{group}/{geometry}/{calibration}/{'up' if bottom_up else 'down'}"
        value = digest("corners", code_of(__name__), flat, [(s.id, s.measure) for s in some])
        known = session.known.get(key)
        if known is None or known["digest"] != value:
            found = _look(session, some)
            session.note(key, value, _sentence(group, flat, found, bottom_up=bottom_up) if found else "")
        if session.known[key]["reason"]:
            notes.append(session.known[key]["reason"])
    return notes


def _look(session: Session, subs: Sequence[Sub]) -> Corners | None:
    """The sky of subs of one sensor and calibration against their gain."""
    store, cell_px = session.store, session.settings.ingest.background_cell_px
    _, gain, _ = calibration_maps(store.url, subs[0].calibration)  # kept by the ingest in threads
    if gain is None:
        return None
    cells = gain_cells(gain, cell_px)
    levels = []
    for sub in subs:
        grid = store.measures(sub.geometry, sub.measure).read_grid(sub.slot)
        level = grid[grid.shape[0] // 2, : cells.shape[0], : cells.shape[1], 0]
        levels.append(level / np.nanmedian(level) if np.nanmedian(level) > 0 else np.full_like(level, np.nan))
    known = np.isfinite(levels).any(axis=0)
    sky = np.full(known.shape, np.nan)
    sky[known] = np.nanmedian(np.array(levels)[:, known], axis=0)
    return over_corrected(sky, cells)


def _sentence(group: str, flat: str, found: Corners, *, bottom_up: bool) -> str:
    """What was found, in words; corners as the picture shows them."""
    first, last = ("lower", "upper") if bottom_up else ("upper", "lower")
    names = [f"{row} {column}" for row in (first, last) for column in ("left", "right")]
    corners = [f"{name} {part:+.0%}" for name, part in zip(names, found.excess, strict=True) if part >= _SEEN]
    return (
        f"{group}: the sky follows the correction of {flat} (corners {', '.join(corners) or 'hardly'}): it over-corrects, "
        "since a pedestal stayed in the lights or more than its own came off the flat; give darks or bias of the lights' "
        "gain and offset, and flat-darks"
    )
