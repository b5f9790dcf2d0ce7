"""Drizzle: a second master on finer pixels, from raw subs, without the samples that the first one rejected.

Reads   stack/<key>/, raw/<geometry>, calibration/<set>/, master/<first>/rejected/, master/<first>/image
Writes  master/<key>/image: one chunk of the fine grid with all channels and planes per task

Sub after sub is calibrated and poured: memory does not depend on their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lerar_dask.constants import NOISE_CELL_PX, PLANES
from lerar_dask.grid import CHUNK_SHAPE, Canvas, Window
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.drizzle.pour import finish_drops, pour
from lerar_dask.kernels.drizzle.terms import KERNELS, SUMS, Drop, Fine, Rules
from lerar_dask.kernels.drizzle.use import mark_use
from lerar_dask.kernels.resample.terms import Lattice, Part, Sky
from lerar_dask.settings import Drizzle, Integrate
from lerar_dask.stages.integrate.rejected import RejectedNear
from lerar_dask.stages.integrate.sources import Source, source_window, thread_buffer
from lerar_dask.stages.integrate.stack_table import StackTable, load_table
from lerar_dask.stages.integrate.terms import noise_models, skies
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = ["compute_chunk", "drizzle_chunk", "drizzle_key", "fine_canvas", "plan"]

_REACH = 3
"""Canvas pixels around a chunk whose subs' pixels may drop into it."""


def drizzle_key(master: str, settings: Drizzle) -> str:
    """Identity of a drizzled master."""
    return digest("drizzle", code_of(__name__), master, settings)[:20]


def fine_canvas(canvas: Canvas, scale: int) -> Canvas:
    """The grid of a drizzled master, its pixels counted from the canvas's corner."""
    return Canvas((0, 0), (canvas.shape[0] * scale, canvas.shape[1] * scale))


def plan(
    store_url: str, table_key: str, master: str, canvas: Canvas, integrate: Integrate, settings: Drizzle, *, name: str
) -> Step:
    """One task per chunk of the fine grid that any sub touches.

    Parameters
    ----------
    master : key of the master that says what is rejected
    """
    table, key = load_table(store_url, table_key), drizzle_key(master, settings)
    tasks, fine, most = [], fine_canvas(canvas, settings.drizzle), 0
    for cy, cx in fine.chunks():
        n = len(_members(table, canvas, _beneath(fine.chunk(cy, cx), settings.drizzle)))
        most = max(most, n)
        if n == 0:
            continue
        arguments = {
            "store_url": store_url,
            "table_key": table_key,
            "master": master,
            "canvas": canvas,
            "integrate": integrate,
            "settings": settings,
            "cy": cy,
            "cx": cx,
        }
        task = Task(
            key=f"drizzle/{name}/{cy}.{cx}",
            digest=digest(key, cy, cx),
            function=drizzle_chunk,
            arguments=arguments,
            pixels=n * CHUNK_SHAPE[0] * CHUNK_SHAPE[1] // settings.drizzle**2,
        )
        tasks.append(task)
    return Step(
        name="drizzle",
        group=name,
        tasks=tasks,
        task_bytes=_task_bytes(table, most),
        is_there=lambda store, task: store.has_chunk(key, task.arguments["cy"], task.arguments["cx"]),
    )


def drizzle_chunk(
    *,
    store_url: str,
    table_key: str,
    master: str,
    canvas: Canvas,
    integrate: Integrate,
    settings: Drizzle,
    cy: int,
    cx: int,
) -> dict[str, Any]:
    """Write one chunk of a drizzled master; how many of its pixels no drop reaches."""
    planes = compute_chunk(store_url, table_key, master, canvas, integrate, settings, cy, cx)
    written = open_store(store_url).write_chunk(drizzle_key(master, settings), cy, cx, planes)
    reached = _reached(planes)
    holes = reached & ~np.isfinite(planes[:, 0])
    return {"written_bytes": written, "holes": int(holes.sum()), "reached": int(reached.sum())}


def _reached(planes: np.ndarray) -> np.ndarray:
    """Pixels that lie between covered ones of their row: where an empty one is a hole, (channel, h, w)."""
    some = np.isfinite(planes[:, 0])
    left, right = np.maximum.accumulate(some, axis=2), np.maximum.accumulate(some[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.asarray(left & right)


def compute_chunk(
    store_url: str,
    table_key: str,
    master: str,
    canvas: Canvas,
    integrate: Integrate,
    settings: Drizzle,
    cy: int,
    cx: int,
) -> np.ndarray:
    """Planes of one chunk, (channel, 5, h, w) float32: what `drizzle_chunk` writes, bit by bit."""
    store, table = open_store(store_url), load_table(store_url, table_key)
    scale = settings.drizzle
    window = fine_canvas(canvas, scale).chunk(cy, cx)
    beneath = _beneath(window, scale)
    members = _members(table, canvas, beneath)
    sums = thread_buffer("drops", (table.n_channels, *window.shape, len(SUMS)), np.float64)
    sums[:] = 0
    if len(members):
        near = _grown(beneath, _REACH)
        rejected = RejectedNear(store, master, canvas, near)
        drop = Drop(KERNELS[settings.drizzle_kernel], settings.drop)
        models = [model for model, _ in noise_models(table, members, near, canvas.origin_yx, integrate)]
        surfaces, node = skies(table, members, near, canvas.origin_yx)
        for k in range(len(members)):
            _pour_sub(store_url, table, canvas, near, members, k, drop, (surfaces, node), rejected, models,
                      [Fine(own, scale, window.y0, window.x0) for own in sums])  # fmt: skip
    planes = np.empty((table.n_channels, len(PLANES), *window.shape), np.float32)
    for c in range(table.n_channels):
        finish_drops(sums[c], scale, float(table.level[c]), float(table.sky_level[c]), planes[c])
        planes[c, 3:] = _of_first(store, master, c, window, scale)
    return planes


def _pour_sub(
    store_url: str,
    table: StackTable,
    canvas: Canvas,
    near: Window,
    members: np.ndarray,
    k: int,
    drop: Drop,
    sky: tuple[np.ndarray, tuple[int, int]],
    rejected: RejectedNear,
    models: list[np.ndarray],
    fine: list[Fine],
) -> None:
    """Pour all colors of member `k`."""
    i = int(members[k])
    matrix, inverse, planes = table.planes(i, canvas.origin_yx)
    source = source_window(store_url, table, i, matrix, (near.y0, near.x0), *near.shape)
    if source is None:
        return
    use = _use_of(table, i, source)
    cells = near.y0 // NOISE_CELL_PX, near.x0 // NOISE_CELL_PX
    for plane in planes:
        c = plane.channel
        lattices = float(table.n_lattices[i, c])
        model = models[c][:, :, :3, k] * np.array([1, lattices, lattices], np.float32)
        mask = rejected.mask(c * len(table) + i)
        rules = Rules(use, mask, rejected.window.y0, rejected.window.x0, np.ascontiguousarray(model), *cells)
        pour(
            Part(source.pixels, source.y0, source.x0),
            Lattice(plane.step, plane.phase_y, plane.phase_x),
            inverse,
            drop,
            Sky(sky[0][k, c], *sky[1], table.inverse_scale[i, c]),
            rules,
            fine[c],
        )


def _use_of(table: StackTable, i: int, source: Source) -> np.ndarray:
    """How each pixel of a window is used."""
    use = thread_buffer("use", source.pixels.shape, np.uint8)
    lines = table.trails[table.trail_start[i] : table.trail_start[i + 1]]
    shape = (int(table.shape[i, 0]), int(table.shape[i, 1]))
    mark_use(use, source.y0, source.x0, *shape, source.missing, source.saturated, source.defects, lines)
    return use


def _of_first(store: Store, master: str, channel: int, window: Window, scale: int) -> np.ndarray:
    """Counts of rejected samples of the first master beneath a window of the fine grid, (2, h, w)."""
    rows, columns = np.arange(window.y0, window.y1) // scale, np.arange(window.x0, window.x1) // scale
    out = np.zeros((2, *window.shape), np.float32)
    for cy in np.unique(rows // CHUNK_SHAPE[0]):
        for cx in np.unique(columns // CHUNK_SHAPE[1]):
            own_y, own_x = rows // CHUNK_SHAPE[0] == cy, columns // CHUNK_SHAPE[1] == cx
            chunk = np.nan_to_num(store.read_chunk(master, int(cy), int(cx))[channel, 3:])
            at = np.ix_(rows[own_y] % CHUNK_SHAPE[0], columns[own_x] % CHUNK_SHAPE[1])
            out[(slice(None), *np.ix_(own_y, own_x))] = chunk[(slice(None), *at)]
    return out


def _members(table: StackTable, canvas: Canvas, beneath: Window) -> np.ndarray:
    """Subs whose pixels may drop into a window."""
    near = _grown(beneath, _REACH)
    return table.touching((near.y0, near.y1, near.x0, near.x1), canvas.origin_yx)


def _beneath(window: Window, scale: int) -> Window:
    """Pixels of the canvas under a window of the fine grid."""
    return Window(window.y0 // scale, -(-window.y1 // scale), window.x0 // scale, -(-window.x1 // scale))


def _grown(window: Window, by: int) -> Window:
    return Window(window.y0 - by, window.y1 + by, window.x0 - by, window.x1 + by)


def _task_bytes(table: StackTable, n: int) -> int:
    """Bytes that a task over `n` subs holds at most."""
    pixels = CHUNK_SHAPE[0] * CHUNK_SHAPE[1]
    sums = 8 * len(SUMS) * table.n_channels * pixels
    output = 2 * 4 * len(PLANES) * table.n_channels * pixels
    lists = 3 * 8 * n * table.n_channels * pixels // 64
    windows = 16 * 2 * pixels
    return sums + output + lists + windows + (4 << 20)
