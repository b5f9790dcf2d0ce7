"""The stack table of a group: everything integration must know, in the order of the subs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lerar_dask.identity import code_of, digest
from lerar_dask.pipeline.session import Session
from lerar_dask.settings import Integrate
from lerar_dask.stages.integrate.stack_table import StackTable
from lerar_dask.stages.normalize.solve import load
from lerar_dask.stages.saturation import saturation_levels

if TYPE_CHECKING:
    from lerar_dask.pipeline.work import GroupWork

__all__ = ["make_table", "table_key"]


def table_key(group: GroupWork, settings: Integrate) -> str:
    """Key of a group's table, in the store."""
    named = [(s.id, s.geometry, s.slot, s.measure) for s in group.subs]
    solved = (group.target.registration_key, list(group.members), group.normalization)
    made_of = (group.calibrations, *solved, settings.weights)
    return digest("table", code_of(__name__), named, *made_of)[:20]


def make_table(session: Session, group: GroupWork) -> StackTable:
    """Everything integration must know, in the order of the subs."""
    store, settings, subs, keys = session.store, session.settings, group.subs, group.calibrations
    assert group.target.registration is not None
    normalization = load(store.url, group.normalization)
    frames = [store.frame(s.geometry, s.slot) for s in subs]
    geometries = sorted({s.geometry for s in subs})
    calibrations = sorted({key for key in keys if key})
    grids = [store.measures(s.geometry, s.measure).read_grid(s.slot) for s in subs]
    largest = tuple(max(g.shape[a] for g in grids) for a in (0, 1, 2))
    noise = np.full((len(subs), *largest), np.nan, np.float32)
    sky = np.zeros((len(subs), largest[0]), np.float32)
    for k, grid in enumerate(grids):
        noise[k, : grid.shape[0], : grid.shape[1], : grid.shape[2]] = grid[..., 1]
        sky[k, : grid.shape[0]] = np.nanmedian(grid[..., 0], axis=(1, 2))
    fwhm = np.array([s["fwhm_px"] or np.nan for s in group.summaries])
    lines = normalization.trails
    return StackTable(
        geometries=geometries,
        calibrations=calibrations,
        patterns=[s.cfa or "" for s in subs],
        geometry=np.array([geometries.index(s.geometry) for s in subs], np.int32),
        slot=np.array([s.slot for s in subs], np.int32),
        shape=np.array([s.shape for s in subs], np.int32),
        scale=np.array([f["scale"] for f in frames]),
        zero=np.array([f["zero"] for f in frames]),
        blank=np.array([np.nan if f["blank"] is None else f["blank"] for f in frames]),
        saturation=saturation_levels(frames, [s.geometry for s in subs]),
        calibration=np.array([calibrations.index(key) if key else -1 for key in keys], np.int32),
        transform=group.transforms,
        ln_scale=normalization.scale,
        ln_coefficients=normalization.coefficients,
        tile_px=normalization.tile_px,
        noise=noise,
        noise_cell_px=settings.ingest.background_cell_px,
        sky=sky,
        weight_factor=_weight_factor(settings.integrate.weights, fwhm),
        trails=lines[:, 1:6] if len(lines) else np.zeros((0, 5)),
        trail_start=np.searchsorted(lines[:, 0] if len(lines) else np.zeros(0), np.arange(len(subs) + 1)),
        e_per_adu=np.array([f["header"].get("e_per_adu") or 0.0 for f in frames]),
        fwhm=fwhm,
        registration_px=group.target.registration.rms_px[list(group.members)],
        sky_level=normalization.sky_level,
        level=normalization.level,
        voids=np.concatenate([_voids(f, k) for k, f in enumerate(frames)]),
    )


def _voids(record: Mapping[str, Any], k: int) -> np.ndarray:
    """Rows of the table for the parts of sub `k` that hold no data."""
    boxes = np.array(record.get("voids") or np.zeros((0, 4)), np.int32)
    return np.column_stack([np.full(len(boxes), k, np.int32), boxes])


def _weight_factor(weights: str, fwhm: np.ndarray) -> np.ndarray:
    """Factor on each sub's weight beyond its noise: sharp subs for `psf`."""
    if weights != "psf" or not np.isfinite(fwhm).any():
        return np.ones(len(fwhm))
    best = np.nanmedian(fwhm)
    return np.where(np.isfinite(fwhm), best / np.where(np.isfinite(fwhm), fwhm, best), 1.0) ** 2
