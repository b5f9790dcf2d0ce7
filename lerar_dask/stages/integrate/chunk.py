"""Integrate: from raw windows of all subs to one chunk of the master, in one fused pass.

Reads   stack/<key>/ (the table of the subs), raw/<geometry>, calibration/<set>/
Writes  master/<key>/image: one chunk with all channels and planes per task

A task works in tiles: as many rows (and, for thousands of subs, columns) of its chunk as the memory given to it holds.
For each sub: read a window, calibrate, repair defects, resample, take sky and scale off, into the cube of the tile;
then reject and combine. Buffers belong to the thread and are kept. Bits depend neither on tiles nor on threads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.constants import MISSING, NOISE_CELL_PX, PLANES
from lerar_dask.grid import Canvas, Window
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.combine.planes import combine_between, finish_planes
from lerar_dask.kernels.reject.classic import reject_bounds
from lerar_dask.kernels.reject.noise_model import combine_auto
from lerar_dask.kernels.resample import warp
from lerar_dask.kernels.resample.masks import drop_lines
from lerar_dask.kernels.resample.sample import join_lattices, sample_plane
from lerar_dask.kernels.resample.terms import Fallback, Lattice, Method, Part, Sky, SubTerms, Target
from lerar_dask.settings import Integrate
from lerar_dask.stages.integrate.rejected import NO_MARKS, found_in, has_rejected, write_rejected
from lerar_dask.stages.integrate.sources import (
    Source,
    calibrated_window,
    near_sources,
    source_window,
    thread_buffer,
    thread_scratch,
    turned_lattice,
)
from lerar_dask.stages.integrate.stack_table import Plane, load_table
from lerar_dask.stages.integrate.terms import noise_models, skies
from lerar_dask.stages.integrate.tiles import cube_pitch, cube_planes, fitting_tile, halo_px, resident_bytes, task_bytes
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = ["compute_chunk", "compute_sub", "integrate_chunk", "master_key", "plan", "resident_bytes", "task_bytes"]


def master_key(table_key: str, canvas: Canvas, settings: Integrate) -> str:
    """Identity of a master."""
    return digest("master", code_of(__name__), table_key, canvas, settings)[:20]


def plan(
    store_url: str,
    table_key: str,
    canvas: Canvas,
    settings: Integrate,
    *,
    name: str,
    memory_per_task: int,
    mark_rejected: bool = False,
) -> Step:
    """One task per chunk that any sub touches; chunks that none touches stay as the empty master has them (NaN).

    Parameters
    ----------
    name : str                 of the group, for the tasks' keys
    memory_per_task : int      bytes that one running task may hold
    mark_rejected : bool       keep lists of the samples that are rejected, beside the master
    """
    table, key = load_table(store_url, table_key), master_key(table_key, canvas, settings)
    if mark_rejected:
        memory_per_task = memory_per_task * 4 // 5  # a mark of one byte beside each sample of four
    tasks, most = [], 0
    for cy, cx in canvas.chunks():
        window = canvas.chunk(cy, cx)
        n = len(table.touching((window.y0, window.y1, window.x0, window.x1), canvas.origin_yx))
        most = max(most, n)
        if n == 0:
            continue
        arguments = {
            "store_url": store_url,
            "table_key": table_key,
            "canvas": canvas,
            "settings": settings,
            "cy": cy,
            "cx": cx,
            "memory": memory_per_task,
            "mark_rejected": mark_rejected,
        }
        task = Task(
            key=f"integrate/{name}/{cy}.{cx}",
            digest=digest(key, cy, cx),
            function=integrate_chunk,
            arguments=arguments,
            pixels=n * table.n_channels * window.shape[0] * window.shape[1],
        )
        tasks.append(task)
    needed = task_bytes(table, most, fitting_tile(table, most, memory_per_task, settings), settings) if most else 0
    needed = needed * 5 // 4 if mark_rejected else needed

    def is_there(store: Store, task: Task) -> bool:
        at = task.arguments["cy"], task.arguments["cx"]
        return store.has_chunk(key, *at) and (not mark_rejected or has_rejected(store, key, *at))

    return Step(
        name="integrate",
        group=name,
        tasks=tasks,
        task_bytes=needed,
        is_there=is_there,
    )


def integrate_chunk(
    *,
    store_url: str,
    table_key: str,
    canvas: Canvas,
    settings: Integrate,
    cy: int,
    cx: int,
    memory: int,
    mark_rejected: bool = False,
) -> dict[str, Any]:
    """Write one chunk of the master; what was rejected of each sub, and seconds by part."""
    work = _Chunk(store_url, table_key, canvas, settings, canvas.chunk(cy, cx), mark_rejected=mark_rejected)
    planes = work.run(memory)
    started = time.perf_counter()
    store, key = open_store(store_url), master_key(table_key, canvas, settings)
    written = store.write_chunk(key, cy, cx, planes)
    if mark_rejected:
        written += write_rejected(store, key, cy, cx, work.rejected)
    work.seconds["write"] = time.perf_counter() - started
    low, high = work.counts[:, 0], work.counts[:, 1]
    return {
        "subs": work.members.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "used": (work.offered - low - high).tolist(),
        "seconds": {part: round(value, 4) for part, value in work.seconds.items()},
        "written_bytes": written,
    }


def compute_chunk(
    store_url: str, table_key: str, canvas: Canvas, settings: Integrate, cy: int, cx: int, *, memory: int = 1 << 29
) -> np.ndarray:
    """Planes of one chunk, (channel, 5, h, w) float32: what `integrate_chunk` writes, bit by bit."""
    return _Chunk(store_url, table_key, canvas, settings, canvas.chunk(cy, cx)).run(memory)


def compute_sub(
    store_url: str, table_key: str, canvas: Canvas, settings: Integrate, i: int, window: Window, *, what: str
) -> np.ndarray:
    """One sub's pixels.

    Parameters
    ----------
    what : calibrated, registered or normalized
    window : Window     of the sub's own pixels for calibrated, else of the canvas

    Returns
    -------
    (h, w) float32 for calibrated, else (channel, h, w): NaN where the sub has no sample (of two green lattices, the
    mean). Repaired defects are shown, not left out.
    """
    if what == "calibrated":
        return calibrated_window(store_url, load_table(store_url, table_key), i, window)
    work = _Chunk(store_url, table_key, canvas, settings, window, members=np.array([i]))
    return work.one_sub(normalized=what == "normalized")


# ------------------------------------------------------------------------------------------------------------- a chunk


class _Chunk:
    """One window of the canvas and the subs that reach into it."""

    def __init__(
        self,
        store_url: str,
        table_key: str,
        canvas: Canvas,
        settings: Integrate,
        window: Window,
        *,
        members: np.ndarray | None = None,
        mark_rejected: bool = False,
    ) -> None:
        self.store_url = store_url
        self.store = open_store(store_url)
        self.table = load_table(store_url, table_key)
        self.canvas, self.settings, self.window = canvas, settings, window
        bounds = (window.y0, window.y1, window.x0, window.x1)
        self.members = self.table.touching(bounds, canvas.origin_yx) if members is None else members
        self.shapes = [(int(h), int(w)) for h, w in self.table.shape[self.members]]
        self.counts = np.zeros((len(self.members), 2), np.int64)
        self.offered = np.zeros(len(self.members), np.int64)
        self.mark_rejected = mark_rejected
        self.rejected: list[np.ndarray] = []
        self.seconds = {"read": 0.0, "warp": 0.0, "combine": 0.0}
        self.halo = halo_px(settings) if members is None else 0
        self.kind = warp.BILINEAR if settings.interpolation == "bilinear" else warp.LANCZOS3
        self.clamping = np.float32(settings.clamping if settings.clamping < 1 else 1e30)
        self.skies, self.first_node = skies(self.table, self.members, window, canvas.origin_yx)
        self.models = noise_models(self.table, self.members, window, canvas.origin_yx, settings)

    def run(self, memory: int) -> np.ndarray:
        """All planes of the window, (channel, 5, h, w) float32."""
        height, width = self.window.shape
        out = np.empty((self.table.n_channels, len(PLANES), height, width), np.float32)
        if len(self.members) == 0:
            out[:, :2], out[:, 2:] = np.nan, 0
            return out
        with near_sources(self.store_url, self.table, self.members, self.canvas.origin_yx, self._area()):
            self._all_tiles(out, memory)
        return out

    def _area(self) -> Window:
        """The window with its halo, on the canvas; a pixel more, for what rounds differently strip by strip."""
        w, halo = self.window, self.halo + 1
        return Window(w.y0 - halo, w.y1 + halo, w.x0 - halo, w.x1 + halo)

    def _all_tiles(self, out: np.ndarray, memory: int) -> None:
        height, width = self.window.shape
        rows, columns = fitting_tile(self.table, len(self.members), memory, self.settings)
        for x0 in range(0, width, columns):
            for y0 in range(0, height, rows):
                tile = Window(y0, min(y0 + rows, height), x0, min(x0 + columns, width))
                out[:, :, tile.y0 : tile.y1, tile.x0 : tile.x1] = self._tile(tile)

    def one_sub(self, *, normalized: bool) -> np.ndarray:
        """Samples of the only member, (channel, h, w) float32."""
        tile = Window(0, self.window.shape[0], 0, self.window.shape[1])
        cube, _, _ = self._fill(tile, normalized=normalized, masks=False)
        own = cube[:, : self.table.n_channels, : tile.shape[1]].transpose(1, 0, 2)
        return np.where(own < MISSING, own, np.float32(np.nan))

    def _tile(self, tile: Window) -> np.ndarray:
        """Planes of a tile (counted from the window's corner), (channel, 5, h, w)."""
        cube, dropped, fallback = self._fill(tile, normalized=True, masks=True)
        started = time.perf_counter()
        planes = np.zeros((self.table.n_channels, len(PLANES), *tile.shape), np.float32)
        n = len(self.members)
        owner = np.arange(n)
        for c, (model, blur) in enumerate(self.models):
            marks = np.zeros((n, *tile.shape), np.uint8) if self.mark_rejected else NO_MARKS
            x0, y0 = (self.window.x0 + tile.x0) // NOISE_CELL_PX, self.window.y0 + tile.y0
            cells = self.window.x0 // NOISE_CELL_PX, self.window.y0 // NOISE_CELL_PX
            common = {
                "model": model[x0 - cells[0] :],
                "level": float(self.table.level[c]),
                "row_cell": y0 - cells[1] * NOISE_CELL_PX,
                "owner": owner,
                "planes": planes[c],
                "counts": self.counts,
                "marks": marks,
            }
            low, high = self.settings.limits
            if self.settings.reject == "auto":
                combine_auto(cube, c * n, low=low, high=high, blur=blur, **common)
            else:
                lowest, highest = reject_bounds(
                    cube,
                    c * n,
                    (c + 1) * n,
                    method=self.settings.reject,
                    low=low,
                    high=high,
                    columns=tile.shape[1],
                )
                combine_between(cube, c * n, lowest=lowest, highest=highest, **common)
            if self.mark_rejected:
                self.rejected.append(found_in(marks, self.members, c * len(self.table), tile))
            finish_planes(planes[c], dropped[c], fallback[c], self.halo, np.float32(self.table.sky_level[c]))
        self.seconds["combine"] += time.perf_counter() - started
        return planes

    # --------------------------------------------------------------------------------------------------- samples

    def _fill(self, tile: Window, *, normalized: bool, masks: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cube of a tile with `halo` rows and columns around it; what was left out; what is used in need."""
        halo = self.halo
        rows, columns = tile.shape[0] + 2 * halo, tile.shape[1] + 2 * halo
        n = len(self.members)
        cube = thread_buffer("cube", (rows, cube_planes(self.table, n), cube_pitch(tile.shape[1])), np.float32)
        cube[:, :, columns:] = MISSING
        dropped = np.zeros((self.table.n_channels, rows, columns), np.int32)
        fallback = np.zeros((self.table.n_channels, 4, rows, columns))
        at = self.window.y0 + tile.y0 - halo, self.window.x0 + tile.x0 - halo
        for k in range(n):
            self._sample(k, cube, at, columns, dropped, fallback, normalized=normalized, masks=masks)
        return cube, dropped, fallback

    def _sample(
        self,
        k: int,
        cube: np.ndarray,
        at: tuple[int, int],
        columns: int,
        dropped: np.ndarray,
        fallback: np.ndarray,
        *,
        normalized: bool,
        masks: bool,
    ) -> None:
        """Samples of member `k` into its planes of the cube."""
        i, table = int(self.members[k]), self.table
        matrix, _, planes = table.planes(i, self.canvas.origin_yx)
        started = time.perf_counter()
        window = source_window(self.store_url, table, i, matrix, at, cube.shape[0], columns)
        self.seconds["read"] += time.perf_counter() - started
        started = time.perf_counter()
        if window is None:
            for c in range(table.n_channels):
                cube[:, c * len(self.members) + k, :columns] = MISSING
        else:
            lines = table.trails[table.trail_start[i] : table.trail_start[i + 1]]
            terms = _Terms(cube, at, columns, fallback, normalized, masks)
            for c in range(table.n_channels):
                to = c * len(self.members) + k
                first, *more = [plane for plane in planes if plane.channel == c]
                self.offered[k] += self._resample(k, first, window, to, terms)
                for plane in more:
                    self.offered[k] += self._resample(k, plane, window, cube.shape[1] - 1, terms)
                    self.offered[k] -= join_lattices(cube, to, cube.shape[1] - 1, columns, self.halo)
                if masks and self.settings.trails and len(lines):
                    weight, variance = self.models[c][0][0, 0, :2, k].tolist()
                    target = self._target(cube, to, at, columns)
                    rest = Fallback(fallback[c], weight, variance)
                    self.counts[k, 1] += drop_lines(lines, matrix, target, dropped[c], rest)
        self.seconds["warp"] += time.perf_counter() - started

    def _target(self, cube: np.ndarray, plane: int, at: tuple[int, int], columns: int) -> Target:
        return Target(cube, plane, *at, columns, self.halo)

    def _resample(self, k: int, plane: Plane, source: Source, to: int, terms: _Terms) -> int:
        """Resample one lattice into plane `to` of the cube, without what lies on defects; number of samples."""
        i, c, table = int(self.members[k]), plane.channel, self.table
        pixels, origin = source.pixels, (source.y0, source.x0)
        if plane.step != 1 or plane.turn != (False, False, False):
            pixels, *corner = turned_lattice(source, plane)
            origin = (corner[0], corner[1])
        sky = self.skies[k, c] if terms.normalized else np.zeros_like(self.skies[k, c])
        gain = table.inverse_scale[i, c] if terms.normalized else np.float32(1.0)
        weight, variance = self.models[c][0][0, 0, :2, k].tolist()
        matrix, inverse, _ = table.planes(i, self.canvas.origin_yx)
        none = source.defects[:0]
        left_out = (source.saturated, source.defects) if terms.masks else (none, none)
        missing = Part(source.missing, source.y0, source.x0)
        samples = sample_plane(
            Part(pixels, *origin),
            (*plane.turned_shape, plane.matrix),
            Lattice(plane.step, plane.phase_y, plane.phase_x),
            SubTerms(matrix, inverse, *self.shapes[k], missing, *left_out),
            Method(self.kind, self.clamping, table.offset[i, c], plane.stride),
            Sky(sky, *self.first_node, gain),
            self._target(terms.cube, to, terms.at, terms.columns),
            thread_scratch(terms.columns, pixels.shape[1]),
            Fallback(terms.fallback[c], weight, variance * float(table.n_lattices[i, c])),
        )
        return int(samples)


@dataclass(frozen=True)
class _Terms:
    """Where and how the samples of a sub are wanted."""

    cube: np.ndarray
    at: tuple[int, int]
    columns: int
    fallback: np.ndarray
    normalized: bool
    masks: bool
