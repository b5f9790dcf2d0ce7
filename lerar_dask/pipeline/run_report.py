"""The report of a run: what is drawn, what it tells, and when it is as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.normalize.surface import evaluate_surface, surface_shape
from lerar_dask.pipeline.files import told_of
from lerar_dask.pipeline.header_facts import is_bottom_up
from lerar_dask.pipeline.preload import Beside
from lerar_dask.pipeline.products import rows_of
from lerar_dask.pipeline.session import Session
from lerar_dask.products import plots, preview, provenance, report, report_maps
from lerar_dask.run import RunState
from lerar_dask.stages.integrate.stack_table import load_table
from lerar_dask.store.access import Store

__all__ = ["Drawing", "draw", "report_digest", "timings", "write_run_report"]

_SURFACES_SHOWN = 60


@dataclass(frozen=True)
class Drawing:
    """The part of the report that needs nothing of the other products."""

    plots: plots.Plots
    groups: Mapping[str, Mapping[str, Any]]
    """Surfaces, maps and facts of each group that has a master."""


def draw(store: Store, state: RunState, beside: Beside | None = None) -> Drawing:
    """Draw the plots, and the maps and surfaces of all groups.

    Parameters
    ----------
    beside : processes of the run; without them the plots are drawn in this one
    """
    rows, gap_h = report.in_time(state.frames), state.settings["link"]["session_gap_h"]
    if beside:
        beside.plotter.ask((rows, gap_h))
    groups = {name: _group_pictures(store, state, name) for name in state.groups}
    drawn = beside and beside.plotter.answer()
    return Drawing(drawn or plots.plots(rows, gap_h=gap_h), groups)


def report_digest(state: RunState, problems: Mapping[str, str], pictures: Sequence[report.PictureReport]) -> str:
    """Identity of what the report tells, but for what the run cost."""
    shown = [(picture.key, dict(picture.facts)) for picture in pictures]
    return digest("report", code_of(__name__), state.to_json(), dict(problems), provenance.versions(), shown)


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
    pictures: Sequence[report.PictureReport],
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
        pictures=pictures,
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


def _group_pictures(store: Store, state: RunState, name: str) -> dict[str, Any]:
    """Surfaces, maps and facts of a group that has a master, turned as its preview is."""
    bottom_up = is_bottom_up(store, state, name)
    surfaces = _surfaces(store, state, name, bottom_up=bottom_up)
    return {"surfaces": surfaces, **_group_maps(store, state, name, bottom_up=bottom_up)}


def _surfaces(store: Store, state: RunState, name: str, *, bottom_up: bool) -> report_maps.SurfaceViews | None:
    """Small pictures of the sky that was taken off the subs, evenly chosen when there are many."""
    group = state.groups[name]
    table = load_table(store.url, group.table)
    if table.ln_coefficients.shape[2] == 0:
        return None
    subs = [state.targets[group.target].subs[i] for i in group.subs]
    chosen = np.unique(np.linspace(0, len(subs) - 1, min(len(subs), _SURFACES_SHOWN)).astype(int))
    surfaces = []
    for k in chosen:
        height, width = subs[k].shape
        ys, xs = np.meshgrid(np.linspace(0, height - 1, 24), np.linspace(0, width - 1, 32), indexing="ij")
        ny, nx = surface_shape((height, width), table.tile_px)
        coefficients = table.ln_coefficients[k, 0, : ny + 3, : nx + 3]
        values = evaluate_surface(coefficients.astype(np.float64), (height, width), table.tile_px, ys, xs)
        surfaces.append(report_maps.Surface(name=Path(subs[k].path).name, values=values))
    return report_maps.surface_views(surfaces, n_all=len(subs), bottom_up=bottom_up)


def _group_maps(store: Store, state: RunState, name: str, *, bottom_up: bool) -> dict[str, Any]:
    """Maps and facts of a group that has a master."""
    read_rows, shape = rows_of(store, state, name)
    noise, coverage, low, high = preview.reduce_planes(read_rows, shape, max_px=400).mean(axis=1)[1:]
    facts = {"size": f"{shape[2]} x {shape[1]} px"}
    if np.isfinite(noise).any():
        facts["noise"] = f"{np.nanmedian(noise):.3g} ADU"
    with np.errstate(invalid="ignore", divide="ignore"):
        offered = coverage + low + high
        maps = report_maps.map_views(coverage, low / offered, high / offered, bottom_up=bottom_up)
    return {"maps": maps, "facts": facts}
