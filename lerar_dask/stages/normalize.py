"""Normalize: scale and sky of every sub of a group, all solved together; then the trails in each sub.

Reads   blocks, noise grids and star lists; the registration; for the few lines found, pixels of the raw shard beside them
Writes  normalization/<key>/{scale,scale_error,coefficients,error,f,...} and notes; normalization/<key>/trails/<batch>
Two steps: `plan` solves a group in one task (channels one after the other); `plan_trails` looks for lines, one task per
batch of subs. `load` gives a `Normalization`. A sky is in the sub's own pixels and has the common gradient in it already:
normalized = (value - sky) / scale + sky_level, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.errors import LerarError
from lerar_dask.kernels import block_scene, trail_fit, trails
from lerar_dask.kernels.cells import BLOCK_PX, cell_size
from lerar_dask.kernels.ln_reference import adopt_reference
from lerar_dask.kernels.night import Site, Skies, linear_fit_skies, solve_skies
from lerar_dask.kernels.normalize import scene_canvas
from lerar_dask.kernels.surface import axis_matrix, surface_shape
from lerar_dask.settings import Normalize, digest
from lerar_dask.stages.group_cells import GroupCells, Member, masked_blocks
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = [
    "LnReference",
    "Member",
    "Normalization",
    "find_trails",
    "load",
    "normalization_key",
    "plan",
    "plan_trails",
    "solve_group",
]

CODE_VERSION = 4
TRAIL_BATCH = 8
"""Subs whose trails one task looks for."""
SCENE_SUBS = 64
"""Subs, spread over the group, that make the scene at block scale."""


@dataclass(frozen=True, kw_only=True)
class LnReference:
    """The image that gives scale and sky, measured as a sub is."""

    member: Member
    pull: np.ndarray
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
    """(n, channel, py, px) float32, `kernels.surface.evaluate_surface`; (n, channel, 0, 0): no sky is taken off."""
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
    # 40 bytes per cell (values, weights, positions, work) and a few subs' blocks.
    cell_px = cell_size(max(m.shape for m in members), len(members))
    cells = sum(m.shape[0] * m.shape[1] for m in members) // cell_px**2
    return Step(name="normalize", tasks=[task], task_bytes=40 * cells + (96 << 20))


def plan_trails(
    store_url: str,
    members: Sequence[Member],
    transforms: np.ndarray,
    cfas: Sequence[str | None],
    *,
    key: str,
    name: str,
) -> Step:
    """Tasks that look for trails in a solved group, one per batch of subs."""
    tasks = []
    for first in range(0, len(members), TRAIL_BATCH):
        batch = slice(first, first + TRAIL_BATCH)
        arguments = {
            "store_url": store_url,
            "members": tuple(members[batch]),
            "transforms": transforms[batch],
            "cfas": tuple(cfas[batch]),
            "key": key,
            "first": first,
        }
        tasks.append(
            Task(
                key=f"trails/{name}/{first}",
                digest=digest(key, "trails", first),
                function=find_trails,
                arguments=arguments,
                pixels=sum(m.shape[0] * m.shape[1] for m in members[batch]),
            )
        )
    pixels = max(m.shape[0] * m.shape[1] for m in members)
    return Step(name="trails", tasks=tasks, task_bytes=2 * pixels + (48 << 20))


def solve_group(
    *,
    store_url: str,
    members: tuple[Member, ...],
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
    skies = _Surfaces.of(local, [m.shape for m in members], tile_px)
    _write_trail_inputs(store, key, group, skies)
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
    cells = group.cells_of_image(given.member, given.pull, cell_px)
    if len(cells) != len(results):
        raise LerarError(f"--ln-reference {given.name}: it has {len(cells)} color channels, the subs {len(results)}")
    ln_scale = group.ln_scale_with(given.member, given.pull)
    found = [
        adopt_reference(
            skies,
            part,
            given.pull,
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
        "f": [one.f for one in found],
    }
    return [one.skies for one in found], told


def find_trails(
    *,
    store_url: str,
    members: tuple[Member, ...],
    transforms: np.ndarray,
    cfas: tuple[str | None, ...],
    key: str,
    first: int,
) -> dict[str, Any]:
    """Look for trails in a batch of subs and write them: (m, 7) sub, y0, x0, y1, x1, half width, SNR."""
    store = open_store(store_url)
    at = f"normalization/{key}"
    notes = store.read_json(f"{at}/notes.json")
    mask, scenes = store.read_array(f"{at}/mask"), store.read_array(f"{at}/block_scene")
    skies = _Surfaces(
        store.read_array(f"{at}/local_scale"), store.read_array(f"{at}/local_coefficients"), notes["tile_px"]
    )
    rows: list[tuple[float, ...]] = []
    for i, (member, pull, cfa) in enumerate(zip(members, transforms, cfas, strict=True)):
        reader = store.measures(member.geometry, member.measure)
        blocks, grid = reader.read_blocks(member.slot), reader.read_grid(member.slot)
        masked = masked_blocks(mask, pull, member.shape)
        total = np.zeros(blocks.shape[1:3], np.float32)
        for channel in range(len(blocks)):
            total += block_scene.block_residuals(
                blocks[channel],
                masked,
                skies.on_blocks(first + i, channel, member.shape),
                pull,
                scenes[channel],
                scale=float(skies.scale[first + i, channel]),
                noise=np.ascontiguousarray(grid[channel, ..., 1]),
                noise_cell_px=member.noise_cell_px,
                origin_xy=tuple(notes["block_origin_xy"]),
            )
        total /= np.float32(np.sqrt(len(blocks)))
        for line in trails.find_lines(total, shape=member.shape):
            for fine in _refined(store, member, line, cfa):
                rows.append((first + i, fine.y0, fine.x0, fine.y1, fine.x1, fine.half_width, fine.snr))
    table = np.array(rows, np.float64).reshape(-1, 7)
    store.write_array(f"{at}/trails/{first}", table, dims=("trail", "column"), unit="px", meaning="lines to leave out")
    return {"n_trails": len(table)}


def load(store_url: str, key: str) -> Normalization:
    """The normalization that `solve_group` and `find_trails` wrote."""
    store = open_store(store_url)
    at = f"normalization/{key}"
    names = ("scale", "scale_error", "coefficients", "error", "f", "sky_level", "level")
    notes = store.read_json(f"{at}/notes.json")
    arrays = {name: store.read_array(f"{at}/{name}") for name in names}
    parts = [
        store.read_array(f"{at}/trails/{first}")
        for first in range(0, len(arrays["scale"]), TRAIL_BATCH)
        if store.has(f"{at}/trails/{first}")
    ]
    lines = np.concatenate([np.zeros((0, 7)), *parts])
    return Normalization(**arrays, trails=lines, tile_px=notes["tile_px"], notes=notes)


# -------------------------------------------------------------------------------------------------------------- trails


@dataclass(frozen=True)
class _Surfaces:
    """Scales and skies of all subs in arrays."""

    scale: np.ndarray
    """(n, channel) float64"""
    coefficients: np.ndarray
    """(n, channel, py, px) float32"""
    tile_px: int

    @classmethod
    def of(cls, results: Sequence[Skies], shapes: Sequence[tuple[int, int]], tile_px: int) -> _Surfaces:
        largest = [max(v) + 3 for v in zip(*(surface_shape(s, tile_px) for s in shapes), strict=True)]
        coefficients = np.zeros((len(shapes), len(results), *largest), np.float32)
        for c, skies in enumerate(results):
            for k, part in enumerate(skies.coefficients):
                coefficients[k, c, : part.shape[0], : part.shape[1]] = part
        return cls(np.stack([s.scale for s in results], axis=1), coefficients, tile_px)

    def on_blocks(self, k: int, channel: int, shape: tuple[int, int]) -> np.ndarray:
        """Sky of a sub at its block centers, (by, bx) float32."""
        pieces = surface_shape(shape, self.tile_px)
        rows, columns = (
            axis_matrix(np.arange(-(-length // BLOCK_PX)) * BLOCK_PX + (BLOCK_PX - 1) / 2, length, n)
            for length, n in zip(shape, pieces, strict=True)
        )
        table = self.coefficients[k, channel, : pieces[0] + 3, : pieces[1] + 3].astype(np.float64)
        return (rows @ table @ columns.T).astype(np.float32)


def _write_trail_inputs(store: Store, key: str, group: GroupCells, skies: _Surfaces) -> None:
    """Star mask, scene at block scale, and the local skies: what `find_trails` compares a sub with."""
    at = f"normalization/{key}"
    shapes = np.array([m.shape for m in group.members])
    canvas = scene_canvas(group.transforms, shapes, cell_px=BLOCK_PX)
    n_channels = skies.scale.shape[1]
    known: np.ndarray | None = None
    chosen = np.unique(np.linspace(0, len(shapes) - 1, SCENE_SUBS).astype(int))
    for _ in range(2):
        sums, counts = np.zeros((2, n_channels, *canvas.shape)), np.zeros((2, n_channels, *canvas.shape), np.int32)
        for k in chosen:
            m = group.members[k]
            reader = store.measures(m.geometry, m.measure)
            blocks, grid = reader.read_blocks(m.slot), reader.read_grid(m.slot)
            hidden = masked_blocks(group.mask, group.transforms[k], m.shape)
            for c in range(n_channels):
                block_scene.add_to_scene(
                    blocks[c],
                    hidden,
                    skies.on_blocks(k, c, m.shape),
                    group.transforms[k],
                    scale=float(skies.scale[k, c]),
                    sigma=float(np.nanmedian(grid[c, ..., 1])),
                    origin_xy=canvas.origin_xy,
                    total=sums[0, c],
                    weight=sums[1, c],
                    known=None if known is None else known[c],
                )
                block_scene.add_clipped(
                    blocks[c],
                    hidden,
                    group.transforms[k],
                    origin_xy=canvas.origin_xy,
                    clipped=counts[0, c],
                    seen=counts[1, c],
                )
        known = np.stack([block_scene.scene_of(sums[0, c], sums[1, c]) for c in range(n_channels)])
    assert known is not None
    known[block_scene.lasting_light(*counts)] = np.nan
    store.write_array(f"{at}/mask", group.mask, dims=("star", "column"), unit="px", meaning="x, y, radius")
    store.write_array(f"{at}/block_scene", known.astype(np.float32), dims=("channel", "by", "bx"), unit="adu")
    store.write_array(f"{at}/local_scale", skies.scale, dims=("sub", "channel"), unit="1")
    store.write_array(f"{at}/local_coefficients", skies.coefficients, dims=("sub", "channel", "py", "px"), unit="adu")
    store.write_json(f"{at}/blocks.json", {"origin_xy": list(canvas.origin_xy)})


def _refined(store: Store, member: Member, line: trails.Line, cfa: str | None) -> list[trails.Line]:
    """A line with position and width from the raw pixels beside it."""
    raw = store.raw(member.geometry)
    windows = trail_fit.extent_windows(line, member.shape)
    pixels = []
    for y0, y1, x0, x1 in windows:
        out = np.empty((y1 - y0, x1 - x0), raw.dtype)
        raw.window(member.slot, int(y0), int(y1), int(x0), int(x1), out)
        pixels.append(np.nan_to_num(out.astype(np.float32)))
    return trail_fit.refine_line(line, windows, pixels, shape=member.shape, cfa=bool(cfa))


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
    surfaces = _Surfaces.of(results, shapes, tile_px)
    scale, coefficients = surfaces.scale, surfaces.coefficients
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
        "f": (np.stack([s.f for s in results], axis=1), ("sub", "channel"), "1"),
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
        "block_origin_xy": store.read_json(f"{at}/blocks.json")["origin_xy"],
        "ln_reference": ln_reference,
        "gradient_error": [float(np.sqrt((s.common_error[1:] ** 2).sum())) for s in results],
    }
    store.write_json(f"{at}/notes.json", notes)
    for name, (array, dims, unit) in columns.items():
        store.write_array(f"{at}/{name}", array, dims=dims, unit=unit)
