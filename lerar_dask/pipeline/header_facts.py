"""What a master's header says of the subs that are in it: times, optics, and a WCS carried over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.frames.header import Header
from lerar_dask.frames.sky_points import points_of
from lerar_dask.frames.wcs import Solution
from lerar_dask.kernels.register.transform import apply, invert
from lerar_dask.pipeline.sky_solution import joint_solution
from lerar_dask.products.quantities import iso_time
from lerar_dask.run import GroupState, RunState
from lerar_dask.stages.integrate.stack_table import load_table
from lerar_dask.stages.register.agree import load
from lerar_dask.stages.register.reference import grid_scale
from lerar_dask.store.access import Store
from lerar_dask.sub import Sub

__all__ = ["carry_wcs", "header_facts", "is_bottom_up"]

_MOST_SOLVED = 40
"""Subs whose plate solutions are taken together."""


def header_facts(store: Store, state: RunState, name: str) -> dict[str, Any]:
    """What the master's header says, from the subs that are in it."""
    group = state.groups[name]
    target = state.targets[group.target]
    subs = [target.subs[i] for i in group.subs]
    headers = [store.frame(s.geometry, s.slot)["header"] for s in subs]
    dated = [s for s in subs if s.start]
    starts = sorted(s.start for s in dated)
    ends = sorted(s.start + s.exposure_s for s in dated)
    first = headers[0]
    table = load_table(store.url, group.table)
    lanczos = state.settings["integrate"]["interpolation"] == "lanczos3"
    return {
        "object": first.get("object") or group.target,
        "filter": first.get("filter") or "",
        "telescope": first.get("telescope") or "",
        "camera": first.get("camera") or "",
        "gain": first.get("gain"),
        "exposure_total_s": sum(s.exposure_s for s in subs),
        "n_combined": len(subs),
        "date_beg": iso_time(starts[0]) if starts else "",
        "date_avg": iso_time(_middle_of_light(dated)) if starts else "",
        "date_end": iso_time(ends[-1]) if ends else "",
        "sky_level_adu": float(table.sky_level.mean()),
        "noise_kernel": "LANCZOS3" if lanczos else "BILINEAR",
        "noise_pixel_factor": 0.893 if lanczos else 0.667,
        "noise_correlation": (0.112, -0.076) if lanczos else (0.25, 0.0),
        "row_order": first.get("row_order") or "",
        "wcs": _wcs(store, subs, target, group),
        "cards": _instrument(first, _scale_of(store, target, group)),
    }


def is_bottom_up(store: Store, state: RunState, name: str) -> bool:
    """Whether the rows of a group's master run upwards."""
    group = state.groups[name]
    first = state.targets[group.target].subs[group.subs[0]]
    return bool(store.frame(first.geometry, first.slot)["header"].get("row_order") == "BOTTOM-UP")


def _middle_of_light(subs: Sequence[Sub]) -> float:
    """Mean of the middles of the exposures, each with its length as weight; unix seconds."""
    lengths = np.array([s.exposure_s for s in subs])
    weights = lengths if lengths.sum() > 0 else np.ones(len(subs))
    return float(np.average([s.start + s.exposure_s / 2 for s in subs], weights=weights))


def _scale_of(store: Store, target: Any, group: GroupState) -> float:
    """Pixels of a group's subs along one of the grid's."""
    return float(np.median(grid_scale(load(store.url, target.registration).transforms[list(group.subs)])))


def _instrument(header: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """What plate solvers ask for, from a sub's normalized header: optics, and where it pointed.

    Parameters
    ----------
    scale : pixels of the sub along one of the master's
    """
    pixel = header["pixel_um"] * scale if header.get("pixel_um") else None
    binning = [_whole(n * scale) for n in header.get("binning") or ()] or (None, None)
    return {
        "FOCALLEN": (header.get("focal_mm"), "[mm] focal length"),
        "XPIXSZ": (pixel, "[um] pixel with binning"),
        "YPIXSZ": (pixel, "[um] pixel with binning"),
        "XBINNING": (binning[1], "binning along x"),
        "YBINNING": (binning[0], "binning along y"),
        "RA": (header.get("ra_deg"), "[deg] pointing of the first sub"),
        "DEC": (header.get("dec_deg"), "[deg] pointing of the first sub"),
        "SITELAT": (header.get("site_lat_deg"), "[deg] latitude"),
        "SITELONG": (header.get("site_lon_deg"), "[deg] longitude, east positive"),
    }


def _whole(value: float) -> int | None:
    """A number that is whole within 3 %; None for others."""
    return round(value) if value >= 0.97 and abs(value - round(value)) < 0.03 else None


def _wcs(store: Store, subs: Sequence[Sub], target: Any, group: GroupState) -> dict[str, Any] | None:
    """WCS of the reference plane by `--solve`, or by the solutions of the subs, of as many as are needed."""
    if target.wcs:
        return dict(target.wcs)
    registration = load(store.url, target.registration)
    solved = []
    for i, sub in zip(group.subs, subs, strict=True):
        record = store.frame(sub.geometry, sub.slot)
        if record["header"].get("wcs"):
            solved.append((registration.transforms[i], sub, record))
    chosen = (
        [solved[k] for k in np.unique(np.linspace(0, len(solved) - 1, _MOST_SOLVED).round().astype(int))]
        if solved
        else []
    )
    tables = [points_of(record["cards"], sub.shape, transform) for transform, sub, record in chosen]
    joint = joint_solution([table for table in tables if table is not None])
    if joint is not None:
        return joint
    for transform, _, record in solved:
        own = Header.from_dict(record["header"]).wcs
        carried = carry_wcs(own, transform) if own and own.projection == "TAN" else None
        if carried:
            return carried
    return None


def carry_wcs(solution: Solution, transform: np.ndarray) -> dict[str, Any] | None:
    """TAN solution of a sub, expressed in the reference plane; None where it cannot be.

    Parameters
    ----------
    transform : (3, 3) float64     reference plane to sub
    """
    back = invert(transform)
    here = apply(back, np.array([solution.pixel]) - 1)[0]
    step = apply(transform, here + np.array([[0.0, 0], [1, 0], [0, 1]]))
    jacobian = np.stack([step[1] - step[0], step[2] - step[0]], axis=1)
    moved = np.array(solution.matrix).reshape(2, 2) @ jacobian
    if not np.isfinite(moved).all() or not np.isfinite(here).all() or abs(np.linalg.det(moved)) < 1e-20:
        return None
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": solution.sky_deg[0],
        "CRVAL2": solution.sky_deg[1],
        "CRPIX1": float(here[0] + 1),
        "CRPIX2": float(here[1] + 1),
        **{f"CD{i + 1}_{j + 1}": float(moved[i, j]) for i in (0, 1) for j in (0, 1)},
        "RADESYS": solution.system,
    }
