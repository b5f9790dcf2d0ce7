"""Normalize: scale and sky of every sub of a group, all solved together; trails.

Reads   blocks, noise grids and star lists; the registration
Writes  normalization/<key>/{scale,scale_error,coefficients,f,trails,...}, scene and notes beside them
One task for a group (channels one after the other). `load` gives a `Normalization`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.kernels import transform as tf
from lerar_dask.kernels.cells import bin_cells, cell_size, mask_blocks, mask_radius
from lerar_dask.kernels.night import Cells, Site, Skies, linear_fit_skies, solve_skies
from lerar_dask.kernels.scales import match_stars, solve_scales
from lerar_dask.kernels.surface import surface_shape
from lerar_dask.settings import Normalize, digest
from lerar_dask.store.access import open_store
from lerar_dask.tasks import Step, Task

__all__ = ["Member", "Normalization", "load", "normalization_key", "plan", "solve_group"]

CODE_VERSION = 1
_SATURATED, _BLENDED = 2, 16
_KEEP_SHARE = 0.45
"""At least this share of the blocks stays outside the star mask."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A sub, as normalization sees it."""

    geometry: str
    slot: int
    measure: str
    shape: tuple[int, int]
    start: float
    """unix seconds; 0 = unknown"""
    exposure_s: float
    noise_cell_px: int


@dataclass(frozen=True)
class Normalization:
    """Scale and sky of each sub of a group: normalized = (value - sky) / scale + sky_level."""

    scale: np.ndarray
    """(n, channel) float64"""
    scale_error: np.ndarray
    """(n, channel) float64, relative."""
    coefficients: np.ndarray
    """(n, channel, py, px) float32, `kernels.surface.evaluate_surface`; (n, channel, 0, 0): no sky is taken off."""
    error: np.ndarray
    """(n, channel, ty, tx) float32: sigma of the sky on its tiles, ADU."""
    f: np.ndarray
    """(n, channel) float64: measured over formal variance of the cells."""
    sky_level: np.ndarray
    """(channel,) float64, ADU."""
    level: np.ndarray
    """(channel,) float64: what the sky is in normalized samples."""
    trails: np.ndarray
    """(m, 7) float64: sub, y0, x0, y1, x1, half width, SNR; in each sub's own pixels, by sub."""
    tile_px: int
    notes: dict[str, Any]


def normalization_key(
    members: Sequence[Member], registration: str, settings: Normalize, trails: bool, order: Any
) -> str:
    """Identity of a group's normalization."""
    return digest("normalize", CODE_VERSION, list(members), registration, settings, trails, order)[:20]


def plan(
    store_url: str,
    members: Sequence[Member],
    transforms: np.ndarray,
    settings: Normalize,
    *,
    key: str,
    name: str,
    reference: int,
    site: Site | None,
) -> Step:
    """The one task that solves a group."""
    arguments = {
        "store_url": store_url,
        "members": tuple(members),
        "transforms": transforms,
        "settings": settings,
        "key": key,
        "reference": reference,
        "site": site,
    }
    pixels = sum(m.shape[0] * m.shape[1] for m in members)
    task = Task(key=f"normalize/{name}", digest=digest(key), function=solve_group, arguments=arguments, pixels=pixels)
    return Step(name="normalize", tasks=[task], task_bytes=pixels // 5 + (64 << 20))


def solve_group(
    *,
    store_url: str,
    members: tuple[Member, ...],
    transforms: np.ndarray,
    settings: Normalize,
    key: str,
    reference: int,
    site: Site | None,
) -> dict[str, Any]:
    """Solve all subs of a group together and write the normalization."""
    store = open_store(store_url)
    readers = [store.measures(m.geometry, m.measure) for m in members]
    stars = [r.read_stars(m.slot) for r, m in zip(readers, members, strict=True)]
    blocks = [r.read_blocks(m.slot) for r, m in zip(readers, members, strict=True)]
    grids = [r.read_grid(m.slot) for r, m in zip(readers, members, strict=True)]
    ln_scale, scale_error, catalogue = _star_scales(stars, transforms, len(members))
    fwhm = max((float(np.median(s[:, 5])) for s in stars if len(s)), default=3.0)
    n_channels = blocks[0].shape[0]
    shapes = [m.shape for m in members]
    cell_px = cell_size(max(shapes), len(members))
    tile_px = settings.tile_px * max(1, cell_px // 16)
    results = []
    for channel in range(n_channels):
        parts = _cells(members, blocks, grids, transforms, catalogue, fwhm, channel, cell_px)
        results.append(
            _solve(parts, transforms, ln_scale, scale_error, members, settings, cell_px, tile_px, reference, site)
        )
    _write(store_url, key, results, settings, tile_px, [g[..., 0] for g in grids], shapes)
    return {"model": results[0].model, "cell_px": cell_px}


def load(store_url: str, key: str) -> Normalization:
    """The normalization that `solve_group` wrote."""
    store = open_store(store_url)
    at = f"normalization/{key}"
    names = ("scale", "scale_error", "coefficients", "error", "f", "sky_level", "level", "trails")
    notes = store.read_json(f"{at}/notes.json")
    columns = {name: store.read_array(f"{at}/{name}") for name in names}
    return Normalization(tile_px=notes["tile_px"], notes=notes, **columns)


def _star_scales(
    stars: Sequence[np.ndarray], transforms: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ln scale and its error of each sub; common stars (m, 3): x, y in the reference plane, flux."""
    places, subs = [], []
    for k, table in enumerate(stars):
        places.append(tf.apply(tf.invert(transforms[k]), table[:, :2]))
        subs.append(np.full(len(table), k))
    xy, sub, rows = np.concatenate(places), np.concatenate(subs), np.concatenate(stars)
    if len(xy) < 3:
        return np.full(n, np.nan), np.full(n, np.inf), np.zeros((0, 3))
    found = match_stars(xy, sub, tolerance_px=2.0)
    picked = rows[found.row]
    flags = picked[:, 9].astype(int)
    clean = (flags & (_SATURATED | _BLENDED)) == 0
    ln, error, _ = solve_scales(found.sub[clean], found.star[clean], picked[clean, 2], picked[clean, 3], n_subs=n)
    total = np.bincount(found.star, picked[:, 2] * np.exp(-np.nan_to_num(ln)[found.sub]), len(found.xy))
    count = np.bincount(found.star, minlength=len(found.xy))
    return ln, error, np.column_stack([found.xy, total / np.maximum(count, 1)])


def _cells(
    members: Sequence[Member],
    blocks: Sequence[np.ndarray],
    grids: Sequence[np.ndarray],
    transforms: np.ndarray,
    catalogue: np.ndarray,
    fwhm: float,
    channel: int,
    cell_px: int,
) -> list[Cells]:
    """Cells of all subs under one star mask, by frame shape."""
    noise = float(np.nanmedian([np.nanmedian(g[channel, ..., 1]) for g in grids]))
    mask = _common_mask(catalogue, fwhm, noise, members[0].shape)
    parts = []
    for shape in sorted({m.shape for m in members}):
        own = [k for k, m in enumerate(members) if m.shape == shape]
        values, weights = [], []
        for k in own:
            p = tf.apply(transforms[k], mask[:, :2]) if len(mask) else np.zeros((0, 2))
            masked = mask_blocks(p[:, 0], p[:, 1], mask[:, 2], shape=shape)
            value, weight = bin_cells(
                blocks[k][channel], masked, grids[k][channel, ..., 1], shape=shape, cell_px=cell_px,
                noise_cell_px=members[k].noise_cell_px,
            )  # fmt: skip
            values.append(value)
            weights.append(weight)
        parts.append(Cells(np.array(own, np.int64), shape, np.stack(values), np.stack(weights)))
    return parts


def _common_mask(catalogue: np.ndarray, fwhm: float, noise: float, shape: tuple[int, int]) -> np.ndarray:
    """Stars to be masked in all subs: x, y, radius; as faint as the field allows."""
    faintest = 5.0 * noise * fwhm * 1.5
    while True:
        chosen = catalogue[catalogue[:, 2] > faintest]
        radius = mask_radius(chosen[:, 2], fwhm_px=fwhm, faintest=0.1 * noise)
        if np.pi * np.sum(radius**2) < (1 - _KEEP_SHARE) * shape[0] * shape[1] or not len(chosen):
            return np.column_stack([chosen[:, :2], radius])
        faintest *= 2.0


def _solve(
    parts: list[Cells],
    transforms: np.ndarray,
    ln_scale: np.ndarray,
    scale_error: np.ndarray,
    members: Sequence[Member],
    settings: Normalize,
    cell_px: int,
    tile_px: int,
    reference: int,
    site: Site | None,
) -> Skies:
    """Skies of one channel by the method in force."""
    if settings.normalization == "linear-fit":
        return linear_fit_skies(parts, transforms, cell_px=cell_px, tile_px=tile_px, reference=reference)
    start = np.array([m.start or np.nan for m in members])
    return solve_skies(
        parts,
        transforms,
        ln_scale=ln_scale,
        scale_error=scale_error,
        exposure_s=np.array([m.exposure_s for m in members]),
        time_s=start,
        cell_px=cell_px,
        tile_px=tile_px,
        reference=reference,
        site=site,
        constant_only=settings.normalization == "global",
    )


def _write(
    store_url: str,
    key: str,
    results: Sequence[Skies],
    settings: Normalize,
    tile_px: int,
    levels: Sequence[np.ndarray],
    shapes: Sequence[tuple[int, int]],
) -> None:
    store, at = open_store(store_url), f"normalization/{key}"
    n = len(shapes)
    largest = [max(v) + 3 for v in zip(*(surface_shape(s, tile_px) for s in shapes), strict=True)]
    coefficients = np.zeros((n, len(results), *largest), np.float32)
    error = np.full((n, len(results), largest[0], largest[1]), np.nan, np.float32)
    for c, skies in enumerate(results):
        for k in range(n):
            part = skies.coefficients[k]
            coefficients[k, c, : part.shape[0], : part.shape[1]] = part
            tiles = skies.error[k]
            error[k, c, : tiles.shape[0], : tiles.shape[1]] = tiles
    scale = np.stack([s.scale for s in results], axis=1)
    sky_level = np.array([s.sky_level for s in results])
    level = np.zeros(len(results))
    if settings.normalization == "none":
        scale = np.ones_like(scale)
        coefficients = coefficients[:, :, :0, :0]
        sky_level = np.zeros(len(results))
        level = np.array([np.median([np.nanmedian(v[c]) for v in levels]) for c in range(len(results))])
    columns = {
        "scale": (scale, ("sub", "channel"), "1"),
        "scale_error": (np.stack([s.scale_error for s in results], axis=1), ("sub", "channel"), "1"),
        "coefficients": (coefficients, ("sub", "channel", "py", "px"), "adu"),
        "error": (error, ("sub", "channel", "ty", "tx"), "adu"),
        "f": (np.stack([s.f for s in results], axis=1), ("sub", "channel"), "1"),
        "sky_level": (sky_level, ("channel",), "adu"),
        "level": (level, ("channel",), "adu"),
        "trails": (np.zeros((0, 7)), ("trail", "column"), "px"),
        "scene": (np.stack([s.scene for s in results]), ("channel", "sy", "sx"), "adu"),
        "common": (np.stack([s.common for s in results]), ("channel", "term"), "adu"),
        "common_error": (np.stack([s.common_error for s in results]), ("channel", "term"), "adu"),
    }
    for name, (array, dims, unit) in columns.items():
        store.write_array(f"{at}/{name}", array, dims=dims, unit=unit)
    grid = results[0].scene_grid
    notes = {
        "tile_px": tile_px,
        "model": [s.model for s in results],
        "scene_origin_xy": list(grid.origin_xy),
        "cell_px": grid.cell_px,
        "components": int(max(s.component.max(initial=0) for s in results)) + 1,
    }
    store.write_json(f"{at}/notes.json", notes)
