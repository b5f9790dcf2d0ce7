"""Trails: lines of light in single subs, found on their blocks against the scene that all subs make.

Reads   normalization/<key>/{mask,local_scale,local_coefficients}; blocks and noise grids; for the few lines found, pixels
        of the raw shard beside them
Writes  normalization/<key>/block_scene; normalization/<key>/trails/<batch>
Two steps: `plan_scene` makes the scene at block scale, one task per band of rows; `plan` looks for lines, one task per
batch of subs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.constants import BLOCK_PX
from lerar_dask.identity import digest
from lerar_dask.kernels.normalize import block_scene
from lerar_dask.kernels.normalize.slab import Scene, scene_canvas
from lerar_dask.kernels.normalize.surface import surface_on_grid, surface_shape
from lerar_dask.kernels.register.transform import apply
from lerar_dask.kernels.trails import fit as trail_fit
from lerar_dask.kernels.trails import search as kernel
from lerar_dask.stages.group_cells import masked_blocks
from lerar_dask.store.access import Store, open_store
from lerar_dask.sub import Sub
from lerar_dask.tasks import Step, Task

__all__ = ["find_trails", "make_scene", "plan", "plan_scene", "prepare_scene"]

BATCH = 8
"""Subs whose trails one task looks for."""
SCENE_SUBS = 64
"""Subs, spread over the group, that make the scene at block scale."""
_SCENE_BLOCKS = 160_000
"""Blocks of the scene that one task makes at most; each reads the blocks of all those subs."""
_HALO = 2
"""Rows around a band that must be known for the second round to be right in all of its own."""


def prepare_scene(store: Store, members: Sequence[Sub], transforms: np.ndarray, n_channels: int, *, key: str) -> None:
    """Make the array that the tasks of `plan_scene` fill (driver only)."""
    path = f"normalization/{key}/block_scene"
    canvas = _canvas(members, transforms)
    if not store.has(path):
        store.create_array(
            path,
            shape=(n_channels, *canvas.shape),
            dtype="float32",
            chunks=(n_channels, _scene_rows(canvas), canvas.shape[1]),
            dims=("channel", "by", "bx"),
        )


def plan_scene(store_url: str, members: Sequence[Sub], transforms: np.ndarray, *, key: str, name: str) -> Step:
    """Tasks that make the scene at block scale, one per band of its rows."""
    chosen = np.unique(np.linspace(0, len(members) - 1, SCENE_SUBS).astype(int)).tolist()
    canvas = _canvas(members, transforms)
    most = _scene_rows(canvas)
    tasks = []
    for band in range(-(-canvas.shape[0] // most)):
        arguments = {
            "store_url": store_url,
            "members": tuple(members[k] for k in chosen),
            "transforms": transforms[chosen],
            "numbers": tuple(chosen),
            "canvas": canvas,
            "key": key,
            "band": band,
        }
        rows = min(most, canvas.shape[0] - band * most)
        tasks.append(
            Task(
                key=f"scene/{name}/{band}",
                digest=digest(key, "scene", band),
                function=make_scene,
                arguments=arguments,
                pixels=len(chosen) * rows * canvas.shape[1] * BLOCK_PX**2,
            )
        )
    # Blocks (12 bytes), sky and mask of all subs in a band, and one sub's whole.
    bytes_ = 17 * len(chosen) * (most + 8) * canvas.shape[1] + 16 * canvas.shape[0] * canvas.shape[1]
    at = f"normalization/{key}/block_scene"
    return Step(
        name="scene",
        group=name,
        tasks=tasks,
        task_bytes=bytes_ + (32 << 20),
        is_there=lambda store, task: store.has_band(at, task.arguments["band"]),
    )


def plan(
    store_url: str,
    members: Sequence[Sub],
    transforms: np.ndarray,
    cfas: Sequence[str | None],
    *,
    key: str,
    name: str,
) -> Step:
    """Tasks that look for trails in a solved group, one per batch of subs."""
    canvas = _canvas(members, transforms)
    tasks = []
    for first in range(0, len(members), BATCH):
        batch = slice(first, first + BATCH)
        arguments = {
            "store_url": store_url,
            "members": tuple(members[batch]),
            "transforms": transforms[batch],
            "cfas": tuple(cfas[batch]),
            "canvas": canvas,
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
    at = f"normalization/{key}/trails"
    return Step(
        name="trails",
        group=name,
        tasks=tasks,
        task_bytes=2 * pixels + (48 << 20),
        is_there=lambda store, task: store.has(f"{at}/{task.arguments['first']}"),
    )


def make_scene(
    *,
    store_url: str,
    members: tuple[Sub, ...],
    transforms: np.ndarray,
    numbers: tuple[int, ...],
    canvas: Scene,
    key: str,
    band: int,
) -> dict[str, Any]:
    """Make a band of the scene at block scale, in two rounds: what lies far off the first is left out of the second."""
    store = open_store(store_url)
    skies = _Skies.of(store, key)
    mask = store.read_array(f"normalization/{key}/mask")
    most = _scene_rows(canvas)
    first = band * most - _HALO
    rows = min(most, canvas.shape[0] - band * most) + 2 * _HALO
    origin_xy = (canvas.origin_xy[0], canvas.origin_xy[1] + BLOCK_PX * first)
    parts = [
        _part(store, member, reference_to_sub, skies, number, mask, origin_xy, (rows, canvas.shape[1]))
        for member, reference_to_sub, number in zip(members, transforms, numbers, strict=True)
    ]
    shape = (skies.scale.shape[1], rows, canvas.shape[1])
    clipped, seen = np.zeros((2, *shape), np.int32)
    known: np.ndarray | None = None
    for _ in range(2):
        sums = np.zeros((2, *shape))
        for part, number in zip(parts, numbers, strict=True):
            for c in range(shape[0] if len(part.masked) else 0):
                block_scene.add_to_scene(
                    part.blocks[c],
                    part.masked,
                    part.sky[c],
                    part.reference_to_sub,
                    scale=float(skies.scale[number, c]),
                    sigma=part.sigma[c],
                    origin_xy=origin_xy,
                    total=sums[0, c],
                    weight=sums[1, c],
                    known=None if known is None else known[c],
                )
                if known is None:
                    block_scene.add_clipped(
                        part.blocks[c],
                        part.masked,
                        part.reference_to_sub,
                        origin_xy=origin_xy,
                        clipped=clipped[c],
                        seen=seen[c],
                    )
        known = np.stack([block_scene.scene_of(sums[0, c], sums[1, c]) for c in range(shape[0])])
    assert known is not None
    known[block_scene.lasting_light(clipped, seen)] = np.nan
    store.write_band(f"normalization/{key}/block_scene", band, known[:, _HALO:-_HALO].astype(np.float32))
    return {}


def find_trails(
    *,
    store_url: str,
    members: tuple[Sub, ...],
    transforms: np.ndarray,
    cfas: tuple[str | None, ...],
    canvas: Scene,
    key: str,
    first: int,
) -> dict[str, Any]:
    """Look for trails in a batch of subs and write them: (m, 7) sub, y0, x0, y1, x1, half width, SNR."""
    store = open_store(store_url)
    at = f"normalization/{key}"
    mask, scenes = store.read_array(f"{at}/mask"), store.read_array(f"{at}/block_scene")
    skies = _Skies.of(store, key)
    rows: list[tuple[float, ...]] = []
    for i, (member, reference_to_sub, cfa) in enumerate(zip(members, transforms, cfas, strict=True)):
        blocks, grid = _measures(store, member)
        masked = masked_blocks(mask, reference_to_sub, member.shape)
        total = np.zeros(blocks.shape[1:3], np.float32)
        for channel in range(len(blocks)):
            total += block_scene.block_residuals(
                blocks[channel],
                masked,
                skies.on_blocks(first + i, channel, member.shape),
                reference_to_sub,
                scenes[channel],
                scale=float(skies.scale[first + i, channel]),
                noise=np.ascontiguousarray(grid[channel, ..., 1]),
                noise_cell_px=member.noise_cell_px,
                origin_xy=canvas.origin_xy,
            )
        total /= np.float32(np.sqrt(len(blocks)))
        for line in kernel.find_lines(total, shape=member.shape):
            for fine in _refined(store, member, line, cfa):
                rows.append((first + i, fine.y0, fine.x0, fine.y1, fine.x1, fine.half_width, fine.snr))
    table = np.array(rows, np.float64).reshape(-1, 7)
    store.write_array(f"{at}/trails/{first}", table, dims=("trail", "column"), unit="px", meaning="lines to leave out")
    return {"n_trails": len(table)}


@dataclass(frozen=True)
class _Skies:
    """Scales and skies of all subs, as they were solved."""

    scale: np.ndarray
    """(n, channel) float64"""
    coefficients: np.ndarray
    """(n, channel, py, px) float32"""
    tile_px: int

    @classmethod
    def of(cls, store: Store, key: str) -> _Skies:
        at = f"normalization/{key}"
        scale, coefficients = (store.read_array(f"{at}/local_{n}") for n in ("scale", "coefficients"))
        return cls(scale, coefficients, store.read_json(f"{at}/notes.json")["tile_px"])

    def on_blocks(self, k: int, channel: int, shape: tuple[int, int], rows: slice = slice(None)) -> np.ndarray:
        """Sky of a sub at the centers of its blocks, of some rows of them, (by, bx) float32."""
        pieces = surface_shape(shape, self.tile_px)
        ys, xs = (np.arange(-(-length // BLOCK_PX)) * BLOCK_PX + (BLOCK_PX - 1) / 2 for length in shape)
        table = self.coefficients[k, channel, : pieces[0] + 3, : pieces[1] + 3]
        return surface_on_grid(table, shape, self.tile_px, ys[rows], xs)


@dataclass(frozen=True)
class _Part:
    """The rows of a sub's blocks that may touch a band of the scene."""

    blocks: np.ndarray
    """(channel, rows, bx, 3) float32"""
    masked: np.ndarray
    """(rows, bx) bool"""
    sky: np.ndarray
    """(channel, rows, bx) float32"""
    sigma: list[float]
    """Noise of a pixel by channel."""
    reference_to_sub: np.ndarray
    """(3, 3) float64 reference plane to pixels counted from the first of the rows."""


def _part(
    store: Store,
    member: Sub,
    reference_to_sub: np.ndarray,
    skies: _Skies,
    number: int,
    mask: np.ndarray,
    origin_xy: tuple[float, float],
    shape: tuple[int, int],
) -> _Part:
    """Blocks of a sub below `shape` blocks of the scene from `origin_xy` on."""
    corners = np.array([[x, y] for x in (0, shape[1]) for y in (0, shape[0])], float) * BLOCK_PX + origin_xy
    inside = apply(reference_to_sub, corners)[:, 1]
    n_rows = -(-member.shape[0] // BLOCK_PX)
    low, high = (int(np.clip(v // BLOCK_PX + step, 0, n_rows)) for v, step in ((inside.min(), -1), (inside.max(), 2)))
    rows = slice(low, max(low, high))
    blocks, grid = _measures(store, member)
    shift = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, -BLOCK_PX * low], [0.0, 0.0, 1.0]])
    return _Part(
        blocks=blocks[:, rows].copy(),
        masked=masked_blocks(mask, reference_to_sub, member.shape)[rows],
        sky=np.stack([skies.on_blocks(number, c, member.shape, rows) for c in range(len(blocks))]),
        sigma=[float(np.nanmedian(channel[..., 1])) for channel in grid],
        reference_to_sub=shift @ reference_to_sub,
    )


def _scene_rows(canvas: Scene) -> int:
    """Rows of blocks that one task makes of the scene: bands of one height, as few as may be."""
    height, width = canvas.shape
    bands = -(-height // max(_SCENE_BLOCKS // width, 1))
    return -(-height // bands)


def _canvas(members: Sequence[Sub], transforms: np.ndarray) -> Scene:
    """Where the blocks of the scene lie."""
    return scene_canvas(transforms, np.array([m.shape for m in members]), cell_px=BLOCK_PX)


def _measures(store: Store, member: Sub) -> tuple[np.ndarray, np.ndarray]:
    reader = store.measures(member.geometry, member.measure)
    return reader.read_blocks(member.slot), reader.read_grid(member.slot)


def _refined(store: Store, member: Sub, line: kernel.Line, cfa: str | None) -> list[kernel.Line]:
    """A line with position and width from the raw pixels beside it."""
    raw = store.raw(member.geometry)
    windows = trail_fit.extent_windows(line, member.shape)
    pixels = []
    for y0, y1, x0, x1 in windows:
        out = np.empty((y1 - y0, x1 - x0), raw.dtype)
        raw.window(member.slot, int(y0), int(y1), int(x0), int(x1), out)
        pixels.append(np.nan_to_num(out.astype(np.float32)))
    return trail_fit.refine_line(line, windows, pixels, shape=member.shape, cfa=bool(cfa))
