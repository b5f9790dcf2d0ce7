"""Windows of subs copied to this machine for the time of a task, where every read from the store costs a request.

A task walks through its chunk in strips and reads of every sub for every strip. From a bucket it fetches what it needs of each
sub at once, many subs at a time, into a file without a name in the folder for temporary files (TMPDIR).
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerar_dask.errors import space_error
from lerar_dask.grid import Window
from lerar_dask.store.raw import RawReader

__all__ = ["LocalCopy", "copied"]

_AT_ONCE = 32


@dataclass(frozen=True)
class LocalCopy:
    """The windows, one after the other in a file."""

    descriptor: int
    boxes: Sequence[Window]
    offsets: np.ndarray

    def read(self, k: int, window: Window, out: np.ndarray) -> None:
        """Copy a part of the k-th window into `out` (stored dtype)."""
        box, item = self.boxes[k], out.dtype.itemsize
        rows = np.empty((window.shape[0], box.shape[1]), out.dtype)
        at = int(self.offsets[k]) + (window.y0 - box.y0) * box.shape[1] * item
        if os.preadv(self.descriptor, [rows.data], at) < rows.nbytes:
            raise OSError(errno.EIO, "a copy of raw pixels was cut short", tempfile.gettempdir())
        out[...] = rows[:, window.x0 - box.x0 : window.x1 - box.x0]


@contextmanager
def copied(wanted: Sequence[tuple[RawReader, int, Window]]) -> Iterator[LocalCopy]:
    """Fetch windows of subs: reader, slot and window of each.

    Raises
    ------
    DamagedError
        when a shard is missing or damaged.
    SpaceError
        when the folder for temporary files is full.
    """
    sizes = [box.shape[0] * box.shape[1] * reader.dtype.itemsize for reader, _, box in wanted]
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    with tempfile.TemporaryFile() as file:

        def fetch(k: int) -> None:
            reader, slot, box = wanted[k]
            pixels = np.empty(box.shape, reader.dtype)
            reader.window(slot, box.y0, box.y1, box.x0, box.x1, pixels)
            if os.pwrite(file.fileno(), pixels.data, int(offsets[k])) < pixels.nbytes:  # a disk that is nearly full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tempfile.gettempdir())

        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(fetch, range(len(wanted))))
        except OSError as error:
            if full := space_error(error, Path(tempfile.gettempdir()), writing=True):
                raise full from error
            raise
        yield LocalCopy(file.fileno(), [box for _, _, box in wanted], offsets)
