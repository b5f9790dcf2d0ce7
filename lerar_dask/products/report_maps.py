"""Small pictures of the report: maps of a master, and the sky surfaces that were taken off its subs.

In: reduced maps and coarse surfaces. Out: PNGs as data URIs with their words, ready for the page.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lerar_dask.products.preview import map_png

__all__ = ["MapView", "Surface", "SurfaceViews", "map_views", "surface_views"]


@dataclass(frozen=True, kw_only=True)
class MapView:
    """A map, or the surface of one sub."""

    label: str
    uri: str
    text: str
    """The range of its values."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The sky surface that was taken off one sub."""

    name: str
    """File name of the sub."""
    values: np.ndarray
    """(y, x) float, ADU, coarse (a value per tile or so)."""


@dataclass(frozen=True, kw_only=True)
class SurfaceViews:
    """Surfaces about their own means, all on one scale."""

    views: Sequence[MapView]
    limit_adu: float
    """The scale reaches from minus to plus this."""
    n_all: int
    """Subs that have one; of many, some are shown."""


def map_views(
    coverage: np.ndarray, rejected_low: np.ndarray, rejected_high: np.ndarray, *, bottom_up: bool
) -> list[MapView]:
    """Maps of one master.

    Parameters
    ----------
    coverage : (y, x) float, reduced; NaN = no data
    rejected_low, rejected_high : (y, x) float, reduced, fractions of the samples
    bottom_up : whether the rows run upwards
    """
    top = max(float(np.nanmax(coverage)), 1.0) if np.isfinite(coverage).any() else 1.0
    views = [_map_view("Coverage", coverage, top, f"0 to {top:.3g} subs", bottom_up)]
    for label, values in (("Rejected low", rejected_low), ("Rejected high", rejected_high)):
        top = max(float(np.nanquantile(values, 0.999)), 1e-4) if np.isfinite(values).any() else 1e-4
        views.append(_map_view(label, values, top, f"0 to {100 * top:.2g} % of the samples", bottom_up))
    return views


def surface_views(surfaces: Sequence[Surface], *, n_all: int, bottom_up: bool) -> SurfaceViews | None:
    """Small pictures of the gradients of subs; None where none has a value.

    Parameters
    ----------
    surfaces : those that are shown
    n_all : subs that have one
    bottom_up : whether the rows run upwards
    """
    shown = [s for s in surfaces if np.isfinite(s.values).any()]
    shapes = [s.values - np.nanmean(s.values) for s in shown]
    if not shapes:
        return None
    limit = float(np.quantile([np.nanmax(np.abs(s)) for s in shapes], 0.95)) or 1.0
    views = []
    for surface, shape in zip(shown, shapes, strict=True):
        png = map_png(shape, low=-limit, high=limit, palette="balance", max_px=96, bottom_up=bottom_up)
        text = f"{np.nanmin(shape):+.1f} to {np.nanmax(shape):+.1f} ADU about {np.nanmean(surface.values):.1f}"
        views.append(MapView(label=surface.name, uri=_uri(png), text=text))
    return SurfaceViews(views=views, limit_adu=limit, n_all=n_all)


def _map_view(label: str, values: np.ndarray, top: float, text: str, bottom_up: bool) -> MapView:
    return MapView(label=label, uri=_uri(map_png(values, low=0.0, high=top, bottom_up=bottom_up)), text=text)


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
