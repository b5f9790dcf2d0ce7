"""Calibrated windows of subs, on memory that belongs to the thread.

Reads   raw/<geometry>, calibration/<set>/
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.constants import MISSING
from lerar_dask.grid import Window
from lerar_dask.kernels.resample import warp
from lerar_dask.kernels.resample.sample import prepare_window
from lerar_dask.kernels.resample.terms import Lattice, Numbers, Part, Scratch
from lerar_dask.kernels.resample.window import calibrate_into, lay_voids, take_plane
from lerar_dask.stages.calibration_maps import calibration_maps
from lerar_dask.stages.integrate.stack_table import Plane, StackTable
from lerar_dask.store.access import open_store
from lerar_dask.store.local_copy import copied
from lerar_dask.store.raw import RawReader

__all__ = [
    "Source",
    "calibrated_window",
    "mapped",
    "near_sources",
    "source_window",
    "thread_buffer",
    "thread_scratch",
    "turned_lattice",
]

_NOTHING = (np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32), np.zeros(0, np.int32))
_threads = threading.local()


@dataclass(frozen=True)
class Source:
    """A calibrated window of a sub; its first pixel may lie outside the frame."""

    pixels: np.ndarray
    y0: int
    x0: int
    missing: np.ndarray
    """uint8 like the pixels, 1 where there is no sample; (0, 0) when there is one everywhere."""
    saturated: np.ndarray
    """int32 sorted flat indices into the sub of samples that are lower bounds."""
    defects: np.ndarray


def source_window(
    store_url: str, table: StackTable, i: int, matrix: np.ndarray, at: tuple[int, int], rows: int, columns: int
) -> Source | None:
    """Calibrated and repaired window of sub `i` around what a tile needs; None when the tile lies outside it."""
    height, width = (int(v) for v in table.shape[i])
    step = 2 if table.patterns[i] else 1
    window = _needed(matrix, at, rows, columns, (height, width), step)
    if window is None:
        return None
    y0, y1, x0, x1 = window.y0, window.y1, window.x0, window.x1
    inside = window & Window(0, height, 0, width)
    reader = open_store(store_url).raw(table.geometries[table.geometry[i]])
    raw = thread_buffer("raw", inside.shape, reader.dtype)
    copy = getattr(_threads, "copy", None)
    if copy is not None and i in copy[1]:
        copy[0].read(copy[1][i], inside, raw)
    else:
        reader.window(int(table.slot[i]), inside.y0, inside.y1, inside.x0, inside.x1, raw)
    pixels = thread_buffer("window", (y1 - y0, x1 - x0), np.float32)
    pedestal, gain, defects = _calibration(store_url, table, i)
    numbers = Numbers(*(float(v[i]) for v in (table.scale, table.zero, table.blank, table.saturated_raw)))
    missing, saturated = prepare_window(
        Part(raw, inside.y0, inside.x0), numbers, pedestal, gain, (height, width), table.voids_of(i), defects, step,
        table.mean_sky[i], Part(pixels, y0, x0),
    )  # fmt: skip
    return Source(pixels, y0, x0, missing, saturated, defects)


@contextmanager
def near_sources(
    store_url: str, table: StackTable, members: np.ndarray, origin_yx: tuple[int, int], area: Window
) -> Iterator[None]:
    """Let this thread's `source_window` read what an area of the canvas needs of its members from this machine.

    Does nothing where the store is a folder.
    """
    wanted: list[tuple[RawReader, int, Window]] = []
    index: dict[int, int] = {}
    for i in (int(m) for m in members):
        reader = open_store(store_url).raw(table.geometries[table.geometry[i]])
        if not reader.is_far:
            break
        matrix, _, _ = table.planes(i, origin_yx)
        height, width = (int(v) for v in table.shape[i])
        step = 2 if table.patterns[i] else 1
        window = _needed(matrix, (area.y0, area.x0), *area.shape, (height, width), step)
        if window is not None:
            index[i] = len(wanted)
            wanted.append((reader, int(table.slot[i]), window & Window(0, height, 0, width)))
    if not wanted:
        yield
        return
    with copied(wanted) as copy:
        _threads.copy = copy, index
        try:
            yield
        finally:
            _threads.copy = None


def _needed(
    matrix: np.ndarray, at: tuple[int, int], rows: int, columns: int, shape: tuple[int, int], step: int
) -> Window | None:
    """Pixels of a sub around what a canvas rectangle needs, beyond its edges too; None where it lies outside."""
    box = _box(matrix.tolist(), at, rows, columns, shape)
    if box is None:
        return None
    pad = (warp.HALO + 1) * step
    return Window(box[0] - pad, box[2] + pad + 1, box[1] - pad, box[3] + pad + 1)


def calibrated_window(store_url: str, table: StackTable, i: int, window: Window) -> np.ndarray:
    """Calibrated pixels of a sub, (h, w) float32; NaN where it has no data; defects as they are."""
    raw = np.empty(window.shape, (reader := open_store(store_url).raw(table.geometries[table.geometry[i]])).dtype)
    reader.window(int(table.slot[i]), window.y0, window.y1, window.x0, window.x1, raw)
    pedestal, gain, _ = _calibration(store_url, table, i)
    out = np.empty(window.shape, np.float32)
    calibrate_into(raw, table.scale[i], table.zero[i], table.blank[i], pedestal, gain, window.y0, window.x0, out, 0, 0)
    lay_voids(out, window.y0, window.x0, *(int(v) for v in table.shape[i]), table.voids_of(i))
    out[out >= MISSING] = np.nan
    return out


def turned_lattice(source: Source, plane: Plane) -> tuple[np.ndarray, int, int]:
    """A lattice of a window as its turned plane, and the turned plane's pixel of its corner."""
    h, w = source.pixels.shape
    low = [-(-(source.y0 - plane.phase_y) // plane.step), -(-(source.x0 - plane.phase_x) // plane.step)]
    high = [(source.y0 + h - 1 - plane.phase_y) // plane.step, (source.x0 + w - 1 - plane.phase_x) // plane.step]
    for axis in (0, 1):
        if plane.turn[1 + axis]:
            last = plane.shape[axis] - 1
            low[axis], high[axis] = last - high[axis], last - low[axis]
    if plane.turn[0]:
        low.reverse()
        high.reverse()
    out = thread_buffer("turned", (high[0] - low[0] + 1, high[1] - low[1] + 1), np.float32)
    lattice = Lattice(plane.step, plane.phase_y, plane.phase_x)
    part = Part(source.pixels, source.y0, source.x0)
    take_plane(part, lattice, *plane.shape, plane.turn, Part(out, low[0], low[1]))
    return out, low[0], low[1]


def mapped(matrix: Any, ys: Any, xs: Any) -> tuple[Any, Any]:
    """Positions (y, x) of canvas pixels under a transform: rows of numbers, or of arrays that broadcast."""
    (ax, bx, cx), (ay, by, cy), (az, bz, cz) = matrix
    z = az * xs + bz * ys + cz
    return (ay * xs + by * ys + cy) / z, (ax * xs + bx * ys + cx) / z


def thread_buffer(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array on this thread's own memory, which is kept and grows; its contents are undefined."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    kept = getattr(_threads, name, None)
    if kept is None or kept.nbytes < size:
        kept = np.empty(size, np.uint8)
        setattr(_threads, name, kept)
    return kept[:size].view(dtype).reshape(shape)


def thread_scratch(columns: int, window_columns: int) -> Scratch:
    """Work arrays of the warp, of this thread."""
    kept = getattr(_threads, "scratch", None)
    if kept is None or kept[0] < (columns, window_columns) or kept[0][1] < window_columns:
        kept = ((columns, window_columns), warp.warp_scratch(columns, window_columns))
        _threads.scratch = kept
    return kept[1]


def _calibration(store_url: str, table: StackTable, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pedestal and gain (empty when there is none) and defects of sub `i`."""
    index = int(table.calibration[i])
    if index < 0:
        return _NOTHING
    pedestal, gain, defects = calibration_maps(store_url, table.calibrations[index])
    return _NOTHING[0] if pedestal is None else pedestal, _NOTHING[1] if gain is None else gain, defects


def _box(
    matrix: list[list[float]], at: tuple[int, int], rows: int, columns: int, shape: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Whole pixels y0, x0, y1, x1 of a sub that a canvas rectangle's positions lie between; None outside the frame."""
    corners = np.array([[at[0]], [at[0] + rows - 1]], float), np.array([at[1], at[1] + columns - 1], float)
    ys, xs = (positions.ravel().tolist() for positions in mapped(matrix, *corners))
    y0, y1 = max(min(ys), 0.0), min(max(ys), shape[0] - 1.0)
    x0, x1 = max(min(xs), 0.0), min(max(xs), shape[1] - 1.0)
    if y1 < y0 or x1 < x0:
        return None
    return math.floor(y0), math.floor(x0), math.floor(y1), math.floor(x1)
