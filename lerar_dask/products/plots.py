"""Plots of the subs over time for the report, linked: what is selected in one is selected in all and in the table.

In: rows of the FRAMES table in time order. Out: a script, an HTML element per plot, and bokeh's own scripts to be put
into the page, so that it needs no network.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Plots", "group_colors", "plots"]

Plots = tuple[str, list[str], str]
"""Script, one HTML element per plot, bokeh's scripts."""

_QUANTITIES = (
    ("fwhm_px", "FWHM [px]"),
    ("eccentricity", "Eccentricity"),
    ("background_adu", "Sky [ADU]"),
    ("noise_adu", "Noise [ADU]"),
    ("scale", "Scale"),
    ("weight", "Weight"),
    ("n_stars", "Stars"),
    ("rejected_fraction", "Rejected fraction"),
)
_SMALL_FROM, _WEBGL_FROM = 1000, 1500
"""Points from which they are small, and from which plots are drawn by WebGL."""
_COLORS = ("#3987d6", "#d98b2b", "#3aa37a", "#c05fa8", "#8a79d6", "#b0a332", "#4fb3bf", "#cf6a5d")
_ASIDE_COLOR = "#d64545"
_MUTED = "#8a8f98"


@dataclass(frozen=True)
class _Look:
    """What figures depend on, but for the numbers that they show."""

    is_in_time: bool = True
    """Along the time of one night; else by running numbers."""
    is_small: bool = False
    is_webgl: bool = False


@dataclass(frozen=True)
class _Sheet:
    """A figure for each quantity, still without numbers; it is used up when they are given."""

    look: _Look
    source: Any
    x_range: Any
    figures: Mapping[str, Any]


def plots(frames: Sequence[Mapping[str, Any]], *, gap_h: float = 6.0, prepared: _Sheet | None = None) -> Plots:
    """Script, one HTML element per plot, and bokeh's scripts; empty when no frame has a number to show.

    Parameters
    ----------
    gap_h : pause between frames after which a new session begins
    prepared : figures made before, taken if they look as these frames want it
    """
    shown = [key for key, _ in _QUANTITIES if any(_number(f.get(key)) is not None for f in frames)]
    if not shown:
        return "", [], ""
    from bokeh.document import Document
    from bokeh.embed import components
    from bokeh.resources import Resources

    x, nights = _abscissa(np.array([_epoch_s(f.get("date_obs")) for f in frames]), gap_h)
    look = _Look(nights is None, len(frames) >= _SMALL_FROM, len(frames) >= _WEBGL_FROM)
    sheet = prepared if prepared and prepared.look == look else _prepare(look)
    figures = [sheet.figures[key] for key in shown]
    _fill(sheet, figures, _columns(frames, x, shown), nights)
    document = Document()
    with document.models.freeze():  # else the models are collected anew for each figure, a third of the whole time
        for plot in figures:
            document.add_root(plot)
    script, divs = components(figures, wrap_script=False)
    parts: Any = ["bokeh", "bokeh-gl"] if look.is_webgl else ["bokeh"]
    resources = Resources(mode="inline", components=parts)
    return script, list(divs), "\n".join(resources.js_raw)


def group_colors(frames: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Color of each group's points."""
    groups = sorted({str(f.get("group") or "") for f in frames})
    return {group: _COLORS[i % len(_COLORS)] for i, group in enumerate(groups)}


def _prepare(look: _Look) -> _Sheet:
    """Figures of all quantities; they need nothing of a run, and so can be made before it has anything to show."""
    from bokeh.models import ColumnDataSource, CustomJS, Range1d

    source = ColumnDataSource(_columns([], np.empty(0), [key for key, _ in _QUANTITIES]), name="subs")
    source.selected.js_on_change(
        "indices", CustomJS(code="if (window.lerarSelect) window.lerarSelect(cb_obj.indices);")
    )
    x_range = Range1d()
    return _Sheet(
        look, source, x_range, {key: _figure(look, source, x_range, key, title) for key, title in _QUANTITIES}
    )


def _fill(sheet: _Sheet, figures: Sequence[Any], columns: dict[str, Any], nights: Mapping[float, str] | None) -> None:
    """Give the figures their numbers."""
    from bokeh.models import FixedTicker

    sheet.source.data = columns
    x = columns["x"]
    margin = 0.02 * (float(np.ptp(x)) or 1.0)
    sheet.x_range.update(start=float(np.min(x)) - margin, end=float(np.max(x)) + margin)
    if nights is not None:
        for plot in figures:
            plot.xaxis.ticker = FixedTicker(ticks=list(nights))
            plot.xaxis.major_label_overrides = dict(nights)


def _figure(look: _Look, source: Any, x_range: Any, key: str, title: str) -> Any:
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    plot = figure(
        height=190,
        sizing_mode="stretch_width",
        title=title,
        x_range=x_range,
        x_axis_type="datetime" if look.is_in_time else "linear",
        tools="box_select,lasso_select,tap,xwheel_zoom,xpan,reset",
        active_drag="box_select",
        active_scroll=None,
        output_backend="webgl" if look.is_webgl else "canvas",
    )
    dots = plot.scatter(
        "x",
        key,
        source=source,
        size=4 if look.is_small else 6,
        color="color",
        marker="marker",
        line_width=1.5,
        alpha=0.85,
        selection_alpha=1.0,
        nonselection_alpha=0.1,
    )
    tips = [
        ("", "@name"),
        ("group", "@group"),
        ("", "@fate @reason"),
        ("at", "@when"),
        (title, f"@{key}{{0.[0000]}}"),
    ]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tips, point_policy="snap_to_data"))
    _restrain(plot)
    return plot


def _restrain(plot: Any) -> None:
    """Quiet lines and a clear ground, readable on light and on dark pages."""
    plot.background_fill_alpha = plot.border_fill_alpha = 0
    plot.outline_line_color = None
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.title.text_color = _MUTED
    plot.title.text_font_size = "12px"
    plot.title.text_font_style = "normal"
    plot.min_border_left = 58
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = _MUTED
        axis.minor_tick_line_color = None
        axis.major_label_text_color = _MUTED
        axis.major_label_text_font_size = "11px"
    for grid in (*plot.xgrid, *plot.ygrid):
        grid.grid_line_color = _MUTED
        grid.grid_line_alpha = 0.18


def _columns(frames: Sequence[Mapping[str, Any]], x: np.ndarray, keys: Sequence[str]) -> dict[str, Any]:
    """Columns of the one source of all plots."""
    used = [f.get("fate") == "used" for f in frames]
    colors = group_colors(frames)
    columns: dict[str, Any] = {
        "x": x,
        "name": [Path(str(f.get("path", ""))).name for f in frames],
        "group": [str(f.get("group") or "") for f in frames],
        "fate": [str(f.get("fate") or "") for f in frames],
        "reason": [str(f.get("reason") or "") for f in frames],
        "when": [str(f.get("date_obs") or "time unknown")[:19].replace("T", " ") for f in frames],
        "color": [
            colors[str(f.get("group") or "")] if ok else _ASIDE_COLOR for f, ok in zip(frames, used, strict=True)
        ],
        "marker": ["circle" if ok else "x" for ok in used],
    }
    for key in keys:
        values = (_number(f.get(key)) for f in frames)
        columns[key] = np.array([np.nan if v is None else v for v in values], np.float32)
    return columns


def _abscissa(times: np.ndarray, gap_h: float) -> tuple[np.ndarray, dict[float, str] | None]:
    """Milliseconds within one night; over several nights, or without times, running numbers with the nights' names."""
    known = np.isfinite(times)
    gaps = np.flatnonzero(np.diff(times) > 3600.0 * gap_h)
    if known.all() and not len(gaps):
        return times * 1000.0, None
    x = np.arange(len(times), dtype=float)
    starts = [0, *(gaps + 1)] if known.any() else []
    every = max(1, -(-len(starts) // 8))
    return x, {float(i): _day(times[i]) for i in starts[::every] if np.isfinite(times[i])}


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _epoch_s(text: Any) -> float:
    """Seconds since 1970 of an ISO time in UTC; NaN when there is none."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return float("nan")
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, str):
        return None
    return float(value) if np.isfinite(value) else None


def main() -> None:
    """Draw for another process, which writes the frames and the pause between sessions, and reads what `plots` gives.

    What plots need is loaded, and figures as most nights want them are made, before that one has anything to show; where
    it has nothing, or ends, so does this one.
    """
    for module in ("bokeh.document", "bokeh.embed", "bokeh.resources"):
        importlib.import_module(module)
    prepared = _prepare(_Look())
    try:
        frames, gap_h = pickle.load(sys.stdin.buffer)
    except EOFError:
        return
    pickle.dump(plots(frames, gap_h=gap_h, prepared=prepared), sys.stdout.buffer)


if __name__ == "__main__":
    main()
