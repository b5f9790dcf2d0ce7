"""Normalize: scale and sky of every sub of a group, all solved together.

Reads   blocks, noise grids and star lists; the registration
Writes  normalization/<key>/{scale,scale_error,coefficients,error,f,...} and notes; {mask,local_scale,local_coefficients},
        which the search for trails starts from
One task solves a group (channels one after the other). `load` gives a `Normalization`, with the trails that were found. A
sky is in the sub's own pixels and has the common gradient in it already: normalized = (value - sky) / scale + sky_level,
nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.errors import LerarError
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.normalize.cells import cell_size
from lerar_dask.kernels.normalize.channel import Site, Skies, linear_fit_skies, solve_skies
from lerar_dask.kernels.normalize.ln_reference import adopt_reference
from lerar_dask.kernels.normalize.surface import surface_shape
from lerar_dask.settings import Normalize
from lerar_dask.stages.group_cells import GroupCells
from lerar_dask.stages.solve_memory import solve_bytes
from lerar_dask.store.access import Store, open_store
from lerar_dask.sub import Sub
from lerar_dask.tasks import Step, Task

__all__ = [
    "LnReference",
    "Normalization",
    "Sub",
    "load",
    "normalization_key",
    "plan",
    "solve_group",
]


@dataclass(frozen=True, kw_only=True)
class LnReference:
    """The image that gives scale and sky, measured as a sub is."""

    member: Sub
    reference_to_sub: np.ndarray
    """(3, 3) float64 reference plane to the image."""
    name: str


@dataclass(frozen=True)
class Normalization:
    """Scale and sky of each sub of a group: normalized = (value - sky) / scale + sky_level."""

    scale: np.ndarray
    """(n, channel) float64"""
    scale_error: np.ndarray
    """(n, channel) float64, relative."""
    coefficients: np.ndarray
    """(n, channel, py, px) float32, `kernels.normalize.surface.evaluate_surface`; (n, channel, 0, 0): no sky is taken off."""
    error: np.ndarray
    """(n, channel, ty, tx) float32: sigma of the sky on its tiles, ADU; NaN beyond a smaller frame's tiles."""
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


def normalization_key(members: Sequence[Sub], registration: str, settings: Normalize, trails: bool, order: Any) -> str:
    """Identity of a group's normalization."""
    return digest("normalize", code_of(__name__), list(members), registration, settings, trails, order)[:20]


def plan(
    store_url: str,
    members: Sequence[Sub],
    transforms: np.ndarray,
    settings: Normalize,
    *,
    key: str,
    name: str,
    reference: int,
    site: Site | None,
    ln_reference: LnReference | None = None,
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
        "ln_reference": ln_reference,
    }
    task = Task(
        key=f"normalize/{name}",
        digest=digest(key),
        function=solve_group,
        arguments=arguments,
        pixels=sum(m.shape[0] * m.shape[1] for m in members),
    )
    return Step(
        name="normalize",
        group=name,
        tasks=[task],
        task_bytes=solve_bytes([m.shape for m in members]),
        is_there=lambda store, _: store.has(f"normalization/{key}/scale"),
    )


def solve_group(
    *,
    store_url: str,
    members: tuple[Sub, ...],
    transforms: np.ndarray,
    settings: Normalize,
    key: str,
    reference: int,
    site: Site | None,
    ln_reference: LnReference | None = None,
) -> dict[str, Any]:
    """Solve all subs of a group together and write the normalization."""
    store = open_store(store_url)
    group = GroupCells.of(store, members, transforms)
    cell_px = cell_size(max(m.shape for m in members), len(members))
    tile_px = settings.tile_px * max(1, cell_px // 16)
    method = settings.normalization
    known: dict[str, Any] = {
        "exposure_s": np.array([m.exposure_s for m in members]),
        "time_s": np.array([m.start or np.nan for m in members]),
        "cell_px": cell_px,
        "tile_px": tile_px,
        "reference": reference,
        "site": site,
    }
    local, results = [], []
    for channel, parts in enumerate(group.cells(cell_px)):
        solved = solve_skies(parts, transforms, ln_scale=group.ln_scale, scale_error=group.scale_error, **known)
        local.append(solved)
        if method == "linear-fit":
            # Legacy: no star mask.
            bare = group.cells(cell_px, channels=[channel], masked=False)[0]
            solved = linear_fit_skies(bare, transforms, cell_px=cell_px, tile_px=tile_px, reference=reference)
        elif method == "global":
            solved = solve_skies(
                parts, transforms, ln_scale=group.ln_scale, scale_error=group.scale_error, constant_only=True, **known
            )
        results.append(solved)
    _write_local(store, key, group, local, tile_px)
    told: dict[str, Any] = {}
    if ln_reference is not None:
        results, told = _adopt(group, ln_reference, results, cell_px, tile_px, constant_only=method == "global")
    _write(store, key, results, method, tile_px, group, told)
    return {"model": results[0].model, "cell_px": cell_px, "ln_reference": told}


def _adopt(
    group: GroupCells,
    given: LnReference,
    results: Sequence[Skies],
    cell_px: int,
    tile_px: int,
    *,
    constant_only: bool,
) -> tuple[list[Skies], dict[str, Any]]:
    """Skies of all channels in scale and sky of the image that the user gave, and what is to be told of it."""
    cells = group.cells_of_image(given.member, given.reference_to_sub, cell_px)
    if len(cells) != len(results):
        raise LerarError(f"--ln-reference {given.name}: it has {len(cells)} color channels, the subs {len(results)}")
    ln_scale = group.ln_scale_with(given.member, given.reference_to_sub)
    found = [
        adopt_reference(
            skies,
            part,
            given.reference_to_sub,
            transforms=group.transforms,
            shapes=[m.shape for m in group.members],
            ln_scale=ln_scale,
            tile_px=tile_px,
            constant_only=constant_only,
        )
        for skies, part in zip(results, cells, strict=True)
    ]
    if not np.isfinite(found[0].scale):
        raise LerarError(f"--ln-reference {given.name}: neither stars nor nebula tell its scale")
    if min(one.covered for one in found) == 0:
        raise LerarError(f"--ln-reference {given.name}: it hardly overlaps with the subs")
    told = {
        "name": given.name,
        "scale": [one.scale for one in found],
        "sky_adu": [one.skies.sky_level for one in found],
        "covered": found[0].covered,
        "f": [one.variance_ratio for one in found],
    }
    return [one.skies for one in found], told


def load(store_url: str, key: str) -> Normalization:
    """The normalization that `solve_group` wrote, and the trails found since."""
    store = open_store(store_url)
    at = f"normalization/{key}"
    names = ("scale", "scale_error", "coefficients", "error", "f", "sky_level", "level")
    notes = store.read_json(f"{at}/notes.json")
    arrays = {name: store.read_array(f"{at}/{name}") for name in names}
    parts = [store.read_array(f"{at}/trails/{first}") for first in sorted(map(int, store.names(f"{at}/trails")))]
    return Normalization(
        **arrays, trails=np.concatenate([np.zeros((0, 7)), *parts]), tile_px=notes["tile_px"], notes=notes
    )


# ------------------------------------------------------------------------------------------------------------- writing


def _write(
    store: Store,
    key: str,
    results: Sequence[Skies],
    method: str,
    tile_px: int,
    group: GroupCells,
    ln_reference: dict[str, Any],
) -> None:
    """Everything that others read; `scale` last, as the sign that all is there."""
    at = f"normalization/{key}"
    shapes = [m.shape for m in group.members]
    scale, coefficients = _stacked(results, shapes, tile_px)
    tiles = [max(v) for v in zip(*(surface_shape(s, tile_px) for s in shapes), strict=True)]
    error = np.full((len(shapes), len(results), *tiles), np.nan, np.float32)
    for c, skies in enumerate(results):
        for k, part in enumerate(skies.error):
            error[k, c, : part.shape[0], : part.shape[1]] = part
    sky_level = np.array([s.sky_level for s in results])
    level = np.zeros(len(results))
    if method == "none":
        scale = np.ones_like(scale)
        coefficients = coefficients[:, :, :0, :0]
        sky_level = np.zeros(len(results))
    if method in ("none", "linear-fit"):
        level = np.nanmedian(group.levels, axis=0)
    columns = {
        "scale_error": (np.stack([s.scale_error for s in results], axis=1), ("sub", "channel"), "1"),
        "coefficients": (coefficients, ("sub", "channel", "py", "px"), "adu"),
        "error": (error, ("sub", "channel", "ty", "tx"), "adu"),
        "f": (np.stack([s.variance_ratio for s in results], axis=1), ("sub", "channel"), "1"),
        "rejected": (np.stack([s.rejected for s in results], axis=1), ("sub", "channel"), "1"),
        "sky_level": (sky_level, ("channel",), "adu"),
        "level": (level, ("channel",), "adu"),
        "scene": (np.stack([s.scene for s in results]), ("channel", "sy", "sx"), "adu"),
        "common": (np.stack([s.common for s in results]), ("channel", "term"), "adu"),
        "common_error": (np.stack([s.common_error for s in results]), ("channel", "term"), "adu"),
        "scale": (scale, ("sub", "channel"), "1"),
    }
    grid = results[0].scene_grid
    notes = {
        "tile_px": tile_px,
        "model": [s.model for s in results],
        "scene_origin_xy": list(grid.origin_xy),
        "cell_px": grid.cell_px,
        "components": int(max(s.component.max(initial=0) for s in results)) + 1,
        "ln_reference": ln_reference,
        "gradient_error": [float(np.sqrt((s.common_error[1:] ** 2).sum())) for s in results],
    }
    store.write_json(f"{at}/notes.json", notes)
    for name, (array, dims, unit) in columns.items():
        store.write_array(f"{at}/{name}", array, dims=dims, unit=unit)


def _write_local(store: Store, key: str, group: GroupCells, skies: Sequence[Skies], tile_px: int) -> None:
    """Star mask, and the local scales and skies whatever the method in force: trails are looked for against them."""
    at = f"normalization/{key}"
    scale, coefficients = _stacked(skies, [m.shape for m in group.members], tile_px)
    store.write_array(f"{at}/mask", group.mask, dims=("star", "column"), unit="px", meaning="x, y, radius")
    store.write_array(f"{at}/local_scale", scale, dims=("sub", "channel"), unit="1")
    store.write_array(f"{at}/local_coefficients", coefficients, dims=("sub", "channel", "py", "px"), unit="adu")


def _stacked(
    results: Sequence[Skies], shapes: Sequence[tuple[int, int]], tile_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scales (n, channel) float64 and spline coefficients (n, channel, py, px) float32 of all channels."""
    largest = [max(v) + 3 for v in zip(*(surface_shape(s, tile_px) for s in shapes), strict=True)]
    coefficients = np.zeros((len(shapes), len(results), *largest), np.float32)
    for c, skies in enumerate(results):
        for k, part in enumerate(skies.coefficients):
            coefficients[k, c, : part.shape[0], : part.shape[1]] = part
    return np.stack([s.scale for s in results], axis=1), coefficients
