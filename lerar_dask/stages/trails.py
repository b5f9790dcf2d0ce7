"""Trails: lines of light in single subs, found on their blocks against the scene that all subs make.

Reads   normalization/<key>/{mask,local_scale,local_coefficients}; blocks and noise grids; for the few lines found, pixels
        of the raw shard beside them
Writes  normalization/<key>/block_scene; normalization/<key>/trails/<batch>
Two steps: `plan_scene` makes the scene at block scale in one task; `plan` looks for lines, one task per batch of subs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.kernels import block_scene, trail_fit
from lerar_dask.kernels import trails as kernel
from lerar_dask.kernels.cells import BLOCK_PX
from lerar_dask.kernels.normalize import scene_canvas
from lerar_dask.kernels.surface import surface_on_grid, surface_shape
from lerar_dask.settings import digest
from lerar_dask.stages.group_cells import Member, masked_blocks
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = ["find_trails", "make_scene", "plan", "plan_scene"]

BATCH = 8
"""Subs whose trails one task looks for."""
SCENE_SUBS = 64
"""Subs, spread over the group, that make the scene at block scale."""


def plan_scene(store_url: str, members: Sequence[Member], transforms: np.ndarray, *, key: str, name: str) -> Step:
    """The one task that makes the scene at block scale."""
    arguments = {"store_url": store_url, "members": tuple(members), "transforms": transforms, "key": key}
    task = Task(
        key=f"scene/{name}",
        digest=digest(key, "scene"),
        function=make_scene,
        arguments=arguments,
        pixels=sum(members[k].shape[0] * members[k].shape[1] for k in _chosen(len(members))),
    )
    pixels = max(m.shape[0] * m.shape[1] for m in members)
    return Step(name="scene", tasks=[task], task_bytes=4 * pixels + (48 << 20))


def plan(
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
    for first in range(0, len(members), BATCH):
        batch = slice(first, first + BATCH)
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


def make_scene(*, store_url: str, members: tuple[Member, ...], transforms: np.ndarray, key: str) -> dict[str, Any]:
    """Make the scene at block scale, in two rounds: what lies far off the first is left out of the second."""
    store = open_store(store_url)
    skies = _Skies.of(store, key)
    mask = store.read_array(f"normalization/{key}/mask")
    canvas = scene_canvas(transforms, np.array([m.shape for m in members]), cell_px=BLOCK_PX)
    shape = (skies.scale.shape[1], *canvas.shape)
    chosen = _chosen(len(members))
    hidden = {k: masked_blocks(mask, transforms[k], members[k].shape) for k in chosen}
    known: np.ndarray | None = None
    clipped, seen = np.zeros((2, *shape), np.int32)
    for _ in range(2):
        sums = np.zeros((2, *shape))
        for k in chosen:
            blocks, grid = _measures(store, members[k])
            for c, channel in enumerate(blocks):
                block_scene.add_to_scene(
                    channel,
                    hidden[k],
                    skies.on_blocks(k, c, members[k].shape),
                    transforms[k],
                    scale=float(skies.scale[k, c]),
                    sigma=float(np.nanmedian(grid[c, ..., 1])),
                    origin_xy=canvas.origin_xy,
                    total=sums[0, c],
                    weight=sums[1, c],
                    known=None if known is None else known[c],
                )
                if known is None:
                    block_scene.add_clipped(
                        channel,
                        hidden[k],
                        transforms[k],
                        origin_xy=canvas.origin_xy,
                        clipped=clipped[c],
                        seen=seen[c],
                    )
        known = np.stack([block_scene.scene_of(sums[0, c], sums[1, c]) for c in range(shape[0])])
    assert known is not None
    known[block_scene.lasting_light(clipped, seen)] = np.nan
    at = f"normalization/{key}"
    store.write_json(f"{at}/block_scene_origin.json", list(canvas.origin_xy))
    store.write_array(f"{at}/block_scene", known.astype(np.float32), dims=("channel", "by", "bx"), unit="adu")
    return {}


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
    mask, scenes = store.read_array(f"{at}/mask"), store.read_array(f"{at}/block_scene")
    origin_xy = tuple(store.read_json(f"{at}/block_scene_origin.json"))
    skies = _Skies.of(store, key)
    rows: list[tuple[float, ...]] = []
    for i, (member, pull, cfa) in enumerate(zip(members, transforms, cfas, strict=True)):
        blocks, grid = _measures(store, member)
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
                origin_xy=origin_xy,
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

    def on_blocks(self, k: int, channel: int, shape: tuple[int, int]) -> np.ndarray:
        """Sky of a sub at its block centers, (by, bx) float32."""
        pieces = surface_shape(shape, self.tile_px)
        ys, xs = (np.arange(-(-length // BLOCK_PX)) * BLOCK_PX + (BLOCK_PX - 1) / 2 for length in shape)
        table = self.coefficients[k, channel, : pieces[0] + 3, : pieces[1] + 3]
        return surface_on_grid(table, shape, self.tile_px, ys, xs)


def _chosen(n: int) -> list[int]:
    """Subs that make the scene."""
    return np.unique(np.linspace(0, n - 1, SCENE_SUBS).astype(int)).tolist()


def _measures(store: Store, member: Member) -> tuple[np.ndarray, np.ndarray]:
    reader = store.measures(member.geometry, member.measure)
    return reader.read_blocks(member.slot), reader.read_grid(member.slot)


def _refined(store: Store, member: Member, line: kernel.Line, cfa: str | None) -> list[kernel.Line]:
    """A line with position and width from the raw pixels beside it."""
    raw = store.raw(member.geometry)
    windows = trail_fit.extent_windows(line, member.shape)
    pixels = []
    for y0, y1, x0, x1 in windows:
        out = np.empty((y1 - y0, x1 - x0), raw.dtype)
        raw.window(member.slot, int(y0), int(y1), int(x0), int(x1), out)
        pixels.append(np.nan_to_num(out.astype(np.float32)))
    return trail_fit.refine_line(line, windows, pixels, shape=member.shape, cfa=bool(cfa))
