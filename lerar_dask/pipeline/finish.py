"""Products: masters as FITS and PNG, calibration masters, the report; nothing is made again that is there.

Reads the store (run.json, masters, tables) and writes OUT. A product is a task like any other, known to the ledger by
the master's key and the settings of products.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.products import fits, preview, provenance, report
from lerar_dask.run import GroupState, RunState
from lerar_dask.settings import Settings, digest
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = ["plan_products", "rows_reader", "write_calibration_files", "write_group", "write_run_report"]

CODE_VERSION = 1
_SURFACES_SHOWN = 60


def plan_products(store: Store, out: Path, state: RunState, settings: Settings, facts: Mapping[str, Any]) -> Step:
    """One task per group: its FITS and its picture.

    Parameters
    ----------
    facts : header facts by group, see `write_group`
    """
    tasks = [
        Task(
            key=f"products/{name}",
            digest=digest("products", CODE_VERSION, group.master, settings.products, facts[name]),
            function=write_group,
            arguments={
                "store_url": store.url,
                "out": str(out),
                "name": name,
                "facts": facts[name],
                "settings": settings,
            },
        )
        for name, group in state.groups.items()
    ]
    return Step(name="products", tasks=tasks)


def rows_reader(store: Store, key: str, shape: tuple[int, int, int]) -> fits.ReadRows:
    """(y0, y1) -> (channel, plane, rows, x) of a master, chunk row by chunk row."""
    channels, height, width = shape
    columns = -(-width // CHUNK_SHAPE[1])

    def read(y0: int, y1: int) -> np.ndarray:
        out = np.empty((channels, len(fits.PLANES), y1 - y0, width), np.float32)
        for cy in range(y0 // CHUNK_SHAPE[0], -(-y1 // CHUNK_SHAPE[0])):
            top = cy * CHUNK_SHAPE[0]
            a, b = max(y0, top), min(y1, top + CHUNK_SHAPE[0], height)
            for cx in range(columns):
                left = cx * CHUNK_SHAPE[1]
                right = min(left + CHUNK_SHAPE[1], width)
                chunk = store.read_chunk(key, cy, cx)
                out[:, :, a - y0 : b - y0, left:right] = chunk[:, :, a - top : b - top, : right - left]
        return out

    return read


def write_group(*, store_url: str, out: str, name: str, facts: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Write OUT/{name}.fits and .png; returns what the report says of the master."""
    store = open_store(store_url)
    state = RunState.from_json(store.read_json("run.json"))
    group = state.groups[name]
    target = state.targets[group.target]
    assert target.canvas is not None
    shape = (group.n_channels, *target.canvas.shape)
    read_rows = rows_reader(store, group.master, shape)
    rows = [row for row in state.frames if row["group"] == name]
    master = fits.MasterImage(
        read_rows=read_rows,
        shape=shape,
        group=name,
        origin_yx=target.canvas.origin_yx,
        history=provenance.history(settings),
        provenance=provenance.provenance(settings),
        **facts,
    )
    fits.write_master(Path(out) / f"{name}.fits", master, rows)
    files = {"master": f"{name}.fits"}
    if settings.products.preview:
        preview.write_preview(
            Path(out) / f"{name}.png", read_rows, shape, bottom_up=facts.get("row_order") == "BOTTOM-UP"
        )
        files["preview"] = f"{name}.png"
    return {"files": files, "noise_adu": _median(preview.reduce_rows(read_rows, shape, plane=1))}


def _median(plane: np.ndarray) -> float:
    return float(np.nanmedian(plane)) if np.isfinite(plane).any() else float("nan")


def write_calibration_files(store: Store, out: Path, masters: Sequence[tuple[str, str, fits.CalibrationMaster]]) -> None:
    """FITS copies of the masters in OUT/calibration: (name, key, facts with an empty image)."""
    import dataclasses

    folder = out / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    for name, key, facts in masters:
        path = folder / f"{name}.fits"
        if not path.exists():
            image = store.read_array(f"calibration/{key}/image")
            fits.write_calibration(path, dataclasses.replace(facts, image=image))


def write_run_report(
    store: Store,
    out: Path,
    state: RunState,
    *,
    title: str,
    stages: Sequence[report.StageTiming],
    results: Mapping[str, Mapping[str, Any]],
    problems: Mapping[str, str],
    surfaces: Mapping[str, Sequence[report.Surface]],
    settings: Settings,
    notes: Sequence[str],
) -> Path:
    """Write OUT/report.html."""
    import dataclasses

    groups = []
    for name in [*state.groups, *problems]:
        rows = [row for row in state.frames if row["group"] == name]
        used = [row for row in rows if row["fate"] == "used"]
        groups.append(
            report.GroupReport(
                name=name,
                n_used=len(used),
                n_aside=len(rows) - len(used),
                exposure_s=sum(row["exposure_s"] or 0.0 for row in used),
                links=[line for link in state.links if link["group"] == name for line in link["lines"]],
                problem=problems.get(name, ""),
                surfaces=surfaces.get(name, ()),
                **(_group_pictures(store, out, state, name, results.get(name, {})) if name in state.groups else {}),
            )
        )
    data = report.ReportData(
        title=title,
        frames=state.frames,
        groups=groups,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        stages=stages,
        settings=dataclasses.asdict(settings),
        versions=provenance.versions(),
        machine=provenance.machine(),
        notes=notes,
    )
    path = out / "report.html"
    report.write_report(path, data)
    return path


def _group_pictures(
    store: Store, out: Path, state: RunState, name: str, result: Mapping[str, Any]
) -> dict[str, Any]:
    """Maps and facts of a group that has a master."""
    group: GroupState = state.groups[name]
    canvas = state.targets[group.target].canvas
    assert canvas is not None
    shape = (group.n_channels, *canvas.shape)
    read_rows = rows_reader(store, group.master, shape)
    coverage, low, high = (preview.reduce_rows(read_rows, shape, plane=i, max_px=400).mean(axis=0) for i in (2, 3, 4))
    picture = out / f"{name}.png"
    facts = {"size": f"{canvas.shape[1]} x {canvas.shape[0]} px"}
    if result.get("noise_adu"):
        facts["noise"] = f"{result['noise_adu']:.3g} ADU"
    with np.errstate(invalid="ignore", divide="ignore"):
        offered = coverage + low + high
        return {
            "coverage": coverage,
            "rejected_low": low / offered,
            "rejected_high": high / offered,
            "preview": picture if picture.exists() else None,
            "facts": facts,
        }


def settings_json(settings: Settings) -> str:
    """Settings as JSON text."""
    import dataclasses

    return json.dumps(dataclasses.asdict(settings), default=str)
