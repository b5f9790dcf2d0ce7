"""Samples that rejection took out of a chunk of a master, as one list: what drizzle leaves out as well.

Writes and reads  master/<key>/rejected/<chunk>: sorted numbers (channel * subs + sub) * 2^17 + pixel of the chunk
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lerar_dask.grid import CHUNK_SHAPE, Canvas, Window
from lerar_dask.store.access import Store

__all__ = ["NO_MARKS", "RejectedNear", "found_in", "has_rejected", "write_rejected"]

NO_MARKS = np.zeros((0, 0, 0), np.uint8)
"""Marks of nothing: rejected samples are counted, and not listed."""
_PIXELS = CHUNK_SHAPE[0] * CHUNK_SHAPE[1]


def _path(master: str, cy: int, cx: int) -> str:
    return f"master/{master}/rejected/{int(cy)}.{int(cx)}"


def found_in(marks: np.ndarray, members: np.ndarray, first: int, tile: Window) -> np.ndarray:
    """List of one channel and tile.

    Parameters
    ----------
    marks : (m, rows, columns) uint8     1: rejected
    members : (m,) int                   subs of the group
    first : int                          channel * subs of the group
    tile : Window                        counted from the chunk's corner
    """
    k, y, x = np.nonzero(marks)
    pixel = (tile.y0 + y) * CHUNK_SHAPE[1] + tile.x0 + x
    return (first + members[k].astype(np.int64)) * _PIXELS + pixel


def write_rejected(store: Store, master: str, cy: int, cx: int, lists: Iterable[np.ndarray]) -> int:
    """Keep the list of a chunk; bytes written."""
    values = np.sort(np.concatenate([np.zeros(0, np.int64), *lists]))
    return store.write_array(_path(master, cy, cx), values, dims=(f"rejected_{cy}.{cx}",))


def has_rejected(store: Store, master: str, cy: int, cx: int) -> bool:
    """Whether a chunk has its list."""
    return store.has(_path(master, cy, cx))


class RejectedNear:
    """Rejected samples in a window of the canvas."""

    def __init__(self, store: Store, master: str, canvas: Canvas, window: Window) -> None:
        self.window = window & Window(0, canvas.shape[0], 0, canvas.shape[1])
        self._mask = np.zeros(self.window.shape, np.uint8)
        self._lists = [self._read(store, master, cy, cx) for cy, cx in self._chunks()]

    def _chunks(self) -> Sequence[tuple[int, int]]:
        """Chunks that the window touches."""
        (h, w), own = CHUNK_SHAPE, self.window
        rows, columns = range(own.y0 // h, -(-own.y1 // h)), range(own.x0 // w, -(-own.x1 // w))
        return [(cy, cx) for cy in rows for cx in columns]

    def _read(self, store: Store, master: str, cy: int, cx: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Owners, rows and columns (of the window) of a chunk's list, as far as they lie in the window."""
        values = store.read_array(_path(master, cy, cx)) if has_rejected(store, master, cy, cx) else np.zeros(0, int)
        owner, pixel = np.divmod(values, _PIXELS)
        rows = pixel // CHUNK_SHAPE[1] + cy * CHUNK_SHAPE[0] - self.window.y0
        columns = pixel % CHUNK_SHAPE[1] + cx * CHUNK_SHAPE[1] - self.window.x0
        inside = (rows >= 0) & (columns >= 0) & (rows < self.window.shape[0]) & (columns < self.window.shape[1])
        return owner[inside], rows[inside].astype(np.int32), columns[inside].astype(np.int32)

    def mask(self, owner: int) -> np.ndarray:
        """Samples of channel * subs + sub, (h, w) uint8, 1: rejected; on memory that the next call uses again."""
        self._mask[:] = 0
        for owners, rows, columns in self._lists:
            first, last = np.searchsorted(owners, (owner, owner + 1))
            self._mask[rows[first:last], columns[first:last]] = 1
        return self._mask
