"""report.html: one page, offline, that says of every frame what became of it and why.

In: `ReportData`, plain values and small maps. Out: an HTML file with everything inside: styles, scripts, pictures.
Texts from headers and paths are foreign: the template escapes them, the table is built from JSON by `textContent`.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lerar_dask.products.hdus import atomic_path
from lerar_dask.products.plots import Plots, group_colors, plots
from lerar_dask.products.quantities import duration, size
from lerar_dask.products.report_maps import MapView, SurfaceViews

if TYPE_CHECKING:
    import jinja2

__all__ = [
    "GroupReport",
    "PictureReport",
    "ReportData",
    "StageTiming",
    "in_time",
    "page_template",
    "write_report",
]

_PREVIEW_PX = 1800
TABLE_COLUMNS = (
    ("name", "frame", ""),
    ("fate", "fate", ""),
    ("reason", "reason", ""),
    ("group", "group", ""),
    ("date_obs", "start (UTC)", ""),
    ("exposure_s", "exposure", "s"),
    ("fwhm_px", "FWHM", "px"),
    ("eccentricity", "ecc.", ""),
    ("n_stars", "stars", ""),
    ("background_adu", "sky", "ADU"),
    ("noise_adu", "noise", "ADU"),
    ("scale", "scale", ""),
    ("weight", "weight", ""),
    ("registration_rms_px", "reg. rms", "px"),
    ("rejected_fraction", "rejected", "%"),
    ("n_trails", "trails", ""),
)
"""Key, heading and unit of the table's columns; those without a value are left out."""


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """One master."""

    name: str
    n_used: int
    n_aside: int
    exposure_s: float = 0.0
    facts: Mapping[str, str] = field(default_factory=dict)
    """Other headline numbers, ready to print: `{"noise": "1.32 ADU"}`."""
    preview: Path | None = None
    """PNG, made smaller and put into the page."""
    maps: Sequence[MapView] = ()
    surfaces: SurfaceViews | None = None
    links: Sequence[str] = ()
    """Lines that say which dark, flat, bias were used, and why."""
    problem: str = ""
    """Why there is no master."""


@dataclass(frozen=True, kw_only=True)
class PictureReport:
    """The picture of one target."""

    name: str
    key: str
    """Identity of the finished picture."""
    facts: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[tuple[str, str]] = ()
    """Name of each step and its picture as a data URI, in their order."""


@dataclass(frozen=True, kw_only=True)
class StageTiming:
    """What a stage cost."""

    name: str
    n_tasks: int
    wall_s: float
    task_s: float
    """Sum over the tasks."""
    pixels: int = 0
    """Samples gone through."""
    peak_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything the page shows."""

    title: str
    frames: Sequence[Mapping[str, Any]]
    """Rows of the FRAMES table."""
    groups: Sequence[GroupReport]
    pictures: Sequence[PictureReport] = ()
    created: str = ""
    """UTC."""
    stages: Sequence[StageTiming] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Table -> name -> value."""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """Lines on what was learned on the way: missing masters, links that would now fit better."""


def in_time(frames: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of the FRAMES table as the page shows them: by their start, those without one last."""
    return sorted(frames, key=lambda row: str(row.get("date_obs") or "~"))


def write_report(path: Path, data: ReportData, drawn: Plots | None = None) -> None:
    """Write the page, at once or not at all.

    Parameters
    ----------
    drawn : what `plots` made of `in_time(data.frames)`, when that was done before
    """
    frames = in_time(data.frames)
    script, figures, resources = drawn or plots(frames)
    page = page_template().render(
        data=data,
        counts=_counts(frames),
        previews=[_jpeg_uri(g.preview) if g.preview and g.preview.exists() else "" for g in data.groups],
        columns=[c for c in TABLE_COLUMNS if c[0] == "name" or any(f.get(c[0]) not in (None, "") for f in frames)],
        table=_table_json(frames),
        plot_script=script,
        figures=figures,
        legend=list(group_colors(frames).items()),
        resources=resources,
    )
    with atomic_path(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace")  # names of files may be no text


@cache
def page_template() -> jinja2.Template:
    """The page, read and compiled once: that takes a tenth of a second, which nobody should wait for at the end of a run."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["duration"] = duration
    environment.filters["size"] = size
    return environment.get_template("report.html.j2")


def _counts(frames: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    fates = [str(f.get("fate", "")) for f in frames]
    return {fate: fates.count(fate) for fate in ("used", "aside", "failed")}


def _jpeg_uri(path: Path) -> str:
    """The preview as JPEG: a tenth of the PNG, so that many groups fit into one page."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.thumbnail((_PREVIEW_PX, _PREVIEW_PX), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.convert("L" if picture.mode == "L" else "RGB").save(buffer, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _table_json(frames: Sequence[Mapping[str, Any]]) -> str:
    """The table by columns as JSON that may stand in a script element: no `<` in it."""
    columns: dict[str, list[Any]] = {key: [_cell(f.get(key)) for f in frames] for key, _, _ in TABLE_COLUMNS[1:]}
    columns["name"] = [Path(str(f.get("path", ""))).name for f in frames]
    columns["path"] = [str(f.get("path", "")) for f in frames]
    columns["rejected_fraction"] = [None if v is None else 100 * v for v in columns["rejected_fraction"]]
    text = json.dumps(columns, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cell(value: Any) -> Any:
    """A JSON value with at most five digits."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return (value if isinstance(value, int) else float(f"{value:.5g}")) if np.isfinite(value) else None
    return str(value)
