"""A window of uncompressed inner chunks, read from an open file by compiled code.

Between two kernels of a thread every call to the system and every copy in Python gives the interpreter away and has to wait
for it again, some twenty times per window: among many threads that costs more than the reading. Here it is given away once.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from lerar_dask.kernels.compiled.cache import NOT_KEPT  # where compiled code is kept must be known before it is made

__all__ = ["NOT_KEPT", "read_rows"]

_pread = types.ExternalFunction("pread", types.intp(types.int32, types.CPointer(types.uint8), types.uintp, types.int64))


@njit(cache=True, nogil=True, error_model="numpy")
def read_rows(descriptor, offsets, chunk, window, packed, out):
    """Copy a window out of chunks that are known to be whole.

    Parameters
    ----------
    descriptor : int32
    offsets : (rows of chunks, columns of chunks) uint64     where each chunk begins in the file
    chunk : (rows, bytes of a row) of a chunk
    window : y0, y1, first and last byte (exclusive) of its rows; lies in the chunks
    packed : uint8, room for the rows of one row of chunks   written
    out : (y1 - y0, bytes) uint8                             written

    Returns
    -------
    bool
        False when the file could not be read, or is too short
    """
    height, width = chunk
    y0, y1, x0, x1 = window
    first, last = x0 // width, (x1 - 1) // width
    for cy in range(y0 // height, (y1 - 1) // height + 1):
        a, b = max(y0 - cy * height, 0), min(y1 - cy * height, height)
        size = (b - a) * width
        for cx in range(first, last + 1):
            part = packed[(cx - first) * size : (cx - first + 1) * size]
            if not _read(descriptor, part, np.int64(offsets[cy, cx]) + a * width):
                return False
            left, right = max(x0 - cx * width, 0), min(x1 - cx * width, width)
            for y in range(a, b):
                row = part[(y - a) * width + left : (y - a) * width + right]
                to = out[cy * height + y - y0, cx * width + left - x0 : cx * width + right - x0]
                for i in range(row.size):
                    to[i] = row[i]
    return True


@njit(nogil=True, error_model="numpy")
def _read(descriptor, into, at):
    """Fill an array from a place in a file; False when it is too short, or cannot be read."""
    done = np.int64(0)
    while done < into.size:
        got = _pread(descriptor, into[done:].ctypes, into.size - done, at + done)
        if got <= 0:
            return False
        done += got
    return True
