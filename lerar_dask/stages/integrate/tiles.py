"""How much of a chunk fits into the memory of a task: the sum of the buffers that integration holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lerar_dask.constants import NOISE_CELL_PX, PLANES
from lerar_dask.grid import CHUNK_SHAPE, SURFACE_NODE_PX
from lerar_dask.kernels.reject.noise_model import PITCH_PAD
from lerar_dask.kernels.resample import warp
from lerar_dask.settings import Integrate
from lerar_dask.stages.calibration_maps import KEPT_SETS
from lerar_dask.stages.integrate.stack_table import StackTable

__all__ = ["Extent", "Foretold", "cube_pitch", "cube_planes", "fitting_tile", "halo_px", "resident_bytes", "task_bytes"]


class Extent(Protocol):
    """What memory depends on of a group's subs: a stack table, or what is foretold of one."""

    @property
    def n_channels(self) -> int:
        """Color channels of the master."""

    @property
    def n_lattices(self) -> np.ndarray:
        """(n, channel) lattices of each sub."""

    @property
    def transform(self) -> np.ndarray:
        """(m, 3, 3) reference plane to sub, of those that are turned most."""


@dataclass(frozen=True)
class Foretold:
    """An `Extent` before anything is registered: subs that lie on one another."""

    n_channels: int
    n_lattices: np.ndarray
    transform: np.ndarray

    @classmethod
    def of(cls, cfa: str | None) -> Foretold:
        """Of subs of a mono or a color camera."""
        return cls(3 if cfa else 1, np.array([[1, 2, 1]] if cfa else [[1]]), np.eye(3)[None])


_SMALLEST = (16, NOISE_CELL_PX)
"""Rows and columns of the smallest tile."""


def task_bytes(table: Extent, n: int, tile: tuple[int, int], settings: Integrate) -> int:
    """Bytes that a task over `n` subs holds at most: the sum of its buffers."""
    halo = halo_px(settings)
    rows, columns = tile[0] + 2 * halo, tile[1] + 2 * halo
    samples = cube_planes(table, n)
    cube = 4 * rows * samples * cube_pitch(tile[1])
    windows = _window_pixels(table, rows, columns) * (8 + 4 + 4)
    h, w = CHUNK_SHAPE
    fallback = table.n_channels * rows * columns * (4 * 8 + 4)
    output = 2 * 4 * table.n_channels * len(PLANES) * h * w
    queue = 2 * 4 * samples * 256 + 8 * tile[0] * tile[1]
    nodes = 4 * n * table.n_channels * (h // SURFACE_NODE_PX + 3) * (w // SURFACE_NODE_PX + 3)
    models = 4 * 4 * samples * (h // NOISE_CELL_PX) * (w // NOISE_CELL_PX) * 3
    return int(cube + windows + fallback + output + queue + nodes + models) + (4 << 20)


def resident_bytes(table: StackTable) -> int:
    """Bytes that a process keeps for all its tasks: calibration and the table itself."""
    arrays = [v for v in vars(table).values() if isinstance(v, np.ndarray)]
    most = int(table.shape.astype(np.int64).prod(axis=1).max()) if len(table) else 0
    return sum(a.nbytes for a in arrays) + min(len(table.calibrations), KEPT_SETS) * 8 * most


def fitting_tile(table: Extent, n: int, memory: int, settings: Integrate) -> tuple[int, int]:
    """Rows and columns of a tile that fits into `memory`; the smallest one if none does."""
    for columns in (CHUNK_SHAPE[1], CHUNK_SHAPE[1] // 2, _SMALLEST[1]):
        for rows in range(CHUNK_SHAPE[0], _SMALLEST[0] - 1, -16):
            large_enough = rows >= 64 or columns == _SMALLEST[1]
            if large_enough and task_bytes(table, n, (rows, columns), settings) <= memory:
                return rows, columns
    return _SMALLEST


def halo_px(settings: Integrate) -> int:
    """Rows and columns around a tile that the rejection looks at."""
    return 1 if settings.reject == "auto" else 0


def cube_planes(table: Extent, n: int) -> int:
    """Planes of a cube over `n` subs: one per sub and channel, and one to sample a second lattice into."""
    return n * table.n_channels + int(table.n_lattices.max(initial=1) > 1)


def cube_pitch(columns: int) -> int:
    """Columns of a cube: whole cells, and what the rejection reads beyond them."""
    return -(-columns // NOISE_CELL_PX) * NOISE_CELL_PX + PITCH_PAD


def _window_pixels(table: Extent, rows: int, columns: int) -> int:
    """Pixels of the largest window of any sub that a tile needs."""
    sides = np.abs(table.transform[:, :2, :2]) @ np.array([columns, rows], float)
    return int((1.02 * sides + 4 * warp.HALO + 8).prod(axis=1).max())
