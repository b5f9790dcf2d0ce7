"""The FRAMES table: every light with its fate, its reason, and what was measured and decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lerar_dask.kernels.register.transform import describe
from lerar_dask.pipeline.prepare import Light, Night
from lerar_dask.pipeline.session import Session
from lerar_dask.stages.integrate.stack_table import load_table
from lerar_dask.stages.register.reference import grid_scale

if TYPE_CHECKING:
    from lerar_dask.pipeline.work import TargetWork

__all__ = ["frame_rows"]


def frame_rows(
    session: Session, night: Night, targets: Sequence[TargetWork], set_aside: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row per light and per frame that was set aside, also of files that are gone; lights in order of their start."""
    measured: dict[str, dict[str, Any]] = {}
    for one in targets:
        measured |= _measured(session, one)
    rows = []
    for light in night.lights:
        path = str(light.frame.path)
        row = _basics(light) | measured.get(path, {})
        record = session.known.get(f"ingest/{path}") or {}
        if path in set_aside:
            row["fate"] = "failed" if record.get("state") == "failed" else "aside"
            row["reason"] = set_aside[path]
        else:
            row["fate"] = "used" if "weight" in row else "aside"
            row["reason"] = "" if "weight" in row else "its group has no master"
        rows.append(row)
    rows.sort(key=lambda row: (row["date_obs"] or "", row["path"]))
    found = {str(frame.path) for frame in night.frames}
    for path in sorted(set(set_aside) - found):
        rows.append(_row_aside(path, set_aside[path], "light", "", None))
    for frame, reason in night.links.aside:
        header = frame.header
        rows.append(_row_aside(str(frame.path), reason, header.kind, header.start or "", header.exposure_s))
    return rows


def _row_aside(path: str, reason: str, kind: str, date_obs: str, exposure_s: float | None) -> dict[str, Any]:
    """Row of a frame that belongs to no group."""
    return {
        "path": path,
        "group": "",
        "kind": kind,
        "fate": "aside",
        "reason": reason,
        "date_obs": date_obs,
        "exposure_s": exposure_s,
    }


def _basics(light: Light) -> dict[str, Any]:
    header, item = light.frame.header, light.calibration
    return {
        "path": str(light.frame.path),
        "id": "",
        "group": light.group.name,
        "kind": "light",
        "date_obs": header.start or "",
        "exposure_s": header.exposure_s,
        "gain": header.gain,
        "sensor_temp_c": header.sensor_temp_c,
        "filter": header.filter or "",
        "dark": item.dark or "",
        "flat": item.flat or "",
        "bias": item.bias or "",
    }


def _measured(session: Session, target: TargetWork) -> dict[str, dict[str, Any]]:
    """What was measured on the subs of a target, by path."""
    rows: dict[str, dict[str, Any]] = {}
    registration = target.registration
    assert registration is not None
    for i, (sub, summary) in enumerate(zip(target.subs, target.summaries, strict=True)):
        row: dict[str, Any] = {"id": sub.id}
        row |= {k: summary[k] for k in ("background_adu", "noise_adu", "n_stars")}
        if summary["fwhm_px"]:  # 0 where no star tells it
            scale = float(grid_scale(registration.transforms[i]))
            # Widths are compared over groups: they are told in the grid's pixels.
            row["fwhm_px"] = summary["fwhm_px"] / (scale if np.isfinite(scale) else 1.0)
            row["eccentricity"] = summary["eccentricity"]
        if np.isfinite(registration.transforms[i, 0, 0]):
            at = describe(registration.transforms[i], sub.shape)
            row |= {
                "shift_x_px": round(at.shift_x, 3),
                "shift_y_px": round(at.shift_y, 3),
                "rotation_deg": round(at.rotation_deg, 4),
                "registration_rms_px": _number(registration.rms_px[i]),
            }
        rows[sub.path] = row
    for group in target.groups.values():
        table = load_table(session.store.url, group.table)
        weight = table.weight_factor / table.typical_variance.mean(axis=1)
        weight = weight / weight.mean()
        for k, sub in enumerate(group.subs):
            low, high, used = (int(v) for v in group.rejected[k])
            rows[sub.path] |= {
                "scale": _number(table.ln_scale[k].mean()),
                "weight": _number(weight[k]),
                "rejected_fraction": (low + high) / max(low + high + used, 1),
                "n_trails": int(table.trail_start[k + 1] - table.trail_start[k]),
            }
    return rows


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
