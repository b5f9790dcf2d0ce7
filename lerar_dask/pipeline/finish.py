"""Products: masters as FITS and PNG, calibration masters, the report; nothing is made again that is there.

Reads the store (run.json, masters, tables) and writes OUT. A product is a task like any other, known to the ledger by
the master's key and the settings of products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.frames.header import Header
from lerar_dask.frames.wcs import Solution
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.normalize.surface import evaluate_surface, surface_shape
from lerar_dask.kernels.register.transform import apply, invert
from lerar_dask.pipeline.files import told_of
from lerar_dask.pipeline.prepare import Night
from lerar_dask.pipeline.session import Session
from lerar_dask.products import fits, plots, preview, provenance, report
from lerar_dask.products.quantities import iso_time
from lerar_dask.run import GroupState, RunState
from lerar_dask.settings import Settings
from lerar_dask.stages.register import grid_scale, load
from lerar_dask.stages.stack_table import load_table
from lerar_dask.store.access import Store, open_store
from lerar_dask.sub import Sub
from lerar_dask.tasks import Step, Task

__all__ = [
    "Drawing",
    "carry_wcs",
    "draw",
    "header_facts",
    "plan_products",
    "report_digest",
    "rows_reader",
    "timings",
    "write_run_report",
]

_SURFACES_SHOWN = 60
_COUNTS = [fits.PLANES.index(plane) for plane in ("coverage", "rejlow", "rejhigh")]


def plan_products(store: Store, out: Path, state: RunState, settings: Settings, facts: Mapping[str, Any]) -> Step:
    """Two tasks per group: its FITS, and its picture.

    Parameters
    ----------
    facts : header facts by group, see `header_facts`
    """
    tasks = []
    for name, group in state.groups.items():
        common = {"store_url": store.url, "name": name}
        digests = (code_of(__name__), group.master, settings.products, facts[name])
        rows = [row for row in state.frames if row["group"] == name]
        master = {**common, "path": str(out / f"{name}.fits"), "facts": facts[name], "settings": settings}
        tasks.append(
            Task(
                key=f"products/{name}",
                digest=digest("products", *digests, rows),
                function=write_master,
                arguments=master,
            )
        )
        if settings.products.preview:
            bottom_up = facts[name].get("row_order") == "BOTTOM-UP"
            picture = {**common, "path": str(out / f"{name}.png"), "bottom_up": bottom_up}
            tasks.append(
                Task(
                    key=f"picture/{name}",
                    digest=digest("picture", *digests),
                    function=write_picture,
                    arguments=picture,
                )
            )
    return Step(name="products", tasks=tasks)


def rows_reader(store: Store, key: str, shape: tuple[int, int, int]) -> fits.ReadRows:
    """(y0, y1) -> (channel, plane, rows, x) of a master, chunk row by chunk row, valid until the next rows are read.

    Counts are 0 where no sub reaches.
    """
    channels, height, width = shape
    columns = -(-width // CHUNK_SHAPE[1])
    buffer = np.empty((0, 0, 0, 0), np.float32)

    def read(y0: int, y1: int) -> np.ndarray:
        nonlocal buffer
        if buffer.shape[2] < y1 - y0:
            buffer = np.empty((channels, len(fits.PLANES), y1 - y0, width), np.float32)
        out = buffer[:, :, : y1 - y0]
        for cy in range(y0 // CHUNK_SHAPE[0], -(-y1 // CHUNK_SHAPE[0])):
            top = cy * CHUNK_SHAPE[0]
            a, b = max(y0, top), min(y1, top + CHUNK_SHAPE[0], height)
            for cx in range(columns):
                left = cx * CHUNK_SHAPE[1]
                right = min(left + CHUNK_SHAPE[1], width)
                chunk = store.read_chunk(key, cy, cx)
                if not store.has_chunk(key, cy, cx):
                    chunk[:, _COUNTS] = 0.0  # as in the chunks that some sub touches
                out[:, :, a - y0 : b - y0, left:right] = chunk[:, :, a - top : b - top, : right - left]
        return out

    return read


def write_master(
    *, store_url: str, name: str, path: str, facts: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    """Write a group's master as FITS."""
    store = open_store(store_url)
    state = RunState.from_json(store.read_json("run.json"))
    read_rows, shape = _rows_of(store, state, name)
    target = state.targets[state.groups[name].target]
    assert target.canvas is not None
    master = fits.MasterImage(
        read_rows=read_rows,
        shape=shape,
        group=name,
        origin_yx=target.canvas.origin_yx,
        history=provenance.history(settings),
        provenance=provenance.provenance(settings),
        **facts,
    )
    fits.write_master(Path(path), master, [row for row in state.frames if row["group"] == name])
    return {"written_bytes": Path(path).stat().st_size}


def write_picture(*, store_url: str, name: str, path: str, bottom_up: bool) -> dict[str, Any]:
    """Write a group's preview as PNG."""
    store = open_store(store_url)
    read_rows, shape = _rows_of(store, RunState.from_json(store.read_json("run.json")), name)
    preview.write_preview(Path(path), read_rows, shape, bottom_up=bottom_up)
    return {"written_bytes": Path(path).stat().st_size}


def _rows_of(store: Store, state: RunState, name: str) -> tuple[fits.ReadRows, tuple[int, int, int]]:
    """Reader of a group's master, and channels, rows, columns."""
    group = state.groups[name]
    canvas = state.targets[group.target].canvas
    assert canvas is not None
    shape = (group.n_channels, *canvas.shape)
    return rows_reader(store, group.master, shape), shape


def header_facts(store: Store, state: RunState, name: str, night: Night) -> dict[str, Any]:
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
    lights = next(g for g in night.links.groups if g.name == name)
    return {
        "object": first.get("object") or lights.target,
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
    """WCS of the reference plane, carried over from the first sub that has one."""
    registration = load(store.url, target.registration)
    for i, sub in zip(group.subs, subs, strict=True):
        own = Header.from_dict(store.frame(sub.geometry, sub.slot)["header"]).wcs
        carried = carry_wcs(own, registration.transforms[i]) if own and own.projection == "TAN" else None
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


@dataclass(frozen=True)
class Drawing:
    """The part of the report that needs nothing of the other products."""

    plots: plots.Plots
    groups: Mapping[str, Mapping[str, Any]]
    """Surfaces, maps and facts of each group that has a master."""


def draw(store: Store, state: RunState) -> Drawing:
    """Draw the plots, and the maps and surfaces of all groups."""
    groups = {
        name: {"surfaces": _surfaces(store, state, name), **_group_maps(store, state, name)} for name in state.groups
    }
    return Drawing(plots.plots(report.in_time(state.frames), gap_h=state.settings["link"]["session_gap_h"]), groups)


def report_digest(state: RunState, problems: Mapping[str, str]) -> str:
    """Identity of what the report tells, but for what the run cost."""
    return digest("report", code_of(__name__), state.to_json(), dict(problems), provenance.versions())


def timings(session: Session, page: Path) -> list[report.StageTiming]:
    """What the stages of this call cost; where it had none to run, those of the call that the last report tells of."""
    if not session.n_run:
        return [report.StageTiming(**stage) for stage in told_of(session, page).get("stages", [])]
    return [
        report.StageTiming(
            name=name,
            n_tasks=session.counts[name],
            wall_s=session.walls[name],
            task_s=seconds,
            pixels=session.pixels[name],
        )
        for name, seconds in session.seconds.items()
    ]


def write_run_report(
    store: Store,
    out: Path,
    state: RunState,
    drawing: Drawing,
    *,
    stages: Sequence[report.StageTiming],
    problems: Mapping[str, str],
) -> None:
    """Write OUT/report.html."""
    groups = []
    for name in [*state.groups, *(p for p in problems if p not in state.groups)]:
        rows = [row for row in state.frames if row["group"] == name]
        used = [row for row in rows if row["fate"] == "used"]
        picture = out / f"{name}.png"
        groups.append(
            report.GroupReport(
                name=name,
                n_used=len(used),
                n_aside=len(rows) - len(used),
                exposure_s=sum(row["exposure_s"] or 0.0 for row in used),
                links=_link_lines(state, name),
                problem=problems.get(name, ""),
                preview=picture if name in state.groups and picture.exists() else None,
                **drawing.groups.get(name, {}),
            )
        )
    data = report.ReportData(
        title=", ".join(state.groups) or "no master",
        frames=state.frames,
        groups=groups,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        stages=stages,
        settings={k: v for k, v in state.settings.items()},
        versions=provenance.versions(),
        machine=provenance.machine(),
        notes=list(state.notes),
    )
    report.write_report(out / "report.html", data, drawing.plots)


def _link_lines(state: RunState, name: str) -> list[str]:
    """Choices and near misses of a group, in words."""
    rows = [row for row in state.links if row["group"] == name]
    return [line for row in rows for line in (*row["lines"], *(f"near miss: {m}" for m in row["near_misses"]))]


def _surfaces(store: Store, state: RunState, name: str) -> list[report.Surface]:
    """Small pictures of the sky that was taken off the subs, evenly chosen when there are many."""
    group = state.groups[name]
    table = load_table(store.url, group.table)
    if table.ln_coefficients.shape[2] == 0:
        return []
    subs = [state.targets[group.target].subs[i] for i in group.subs]
    chosen = np.unique(np.linspace(0, len(subs) - 1, min(len(subs), _SURFACES_SHOWN)).astype(int))
    surfaces = []
    for k in chosen:
        height, width = subs[k].shape
        ys, xs = np.meshgrid(np.linspace(0, height - 1, 24), np.linspace(0, width - 1, 32), indexing="ij")
        ny, nx = surface_shape((height, width), table.tile_px)
        coefficients = table.ln_coefficients[k, 0, : ny + 3, : nx + 3]
        values = evaluate_surface(coefficients.astype(np.float64), (height, width), table.tile_px, ys, xs)
        surfaces.append(report.Surface(name=Path(subs[k].path).name, values=values))
    return surfaces


def _group_maps(store: Store, state: RunState, name: str) -> dict[str, Any]:
    """Maps and facts of a group that has a master."""
    read_rows, shape = _rows_of(store, state, name)
    noise, coverage, low, high = preview.reduce_planes(read_rows, shape, max_px=400).mean(axis=1)[1:]
    facts = {"size": f"{shape[2]} x {shape[1]} px"}
    if np.isfinite(noise).any():
        facts["noise"] = f"{np.nanmedian(noise):.3g} ADU"
    with np.errstate(invalid="ignore", divide="ignore"):
        offered = coverage + low + high
        return {
            "coverage": coverage,
            "rejected_low": low / offered,
            "rejected_high": high / offered,
            "facts": facts,
        }
