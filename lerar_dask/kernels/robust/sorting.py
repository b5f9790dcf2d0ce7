"""Many short columns sorted at once: min and max of two rows, no branches.

In   a block (n, at least `LANES`) float32; missing values as a large number, which goes to the end
Out  the first `LANES` columns sorted, in place
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING, PRESENT
from lerar_dask.kernels.compiled.kernel import part

__all__ = ["LANES", "sort_rows", "sorted_block"]

LANES = 128
"""Columns that are sorted at once. A block is best some columns wider: rows then fall into more sets of the cache."""


@part(borrows=True, fastmath={"contract", "nsz", "arcp"})
def _exchange(upper, lower):
    """Put the smaller of two rows' values into the first, the larger into the second."""
    for i in range(LANES):
        a, b = upper[i], lower[i]
        less = a < b
        upper[i] = a if less else b
        lower[i] = b if less else a


@part(borrows=True)
def sort_rows(block):
    """Sort every column of a block: Batcher's merge exchange (Knuth 5.2.2 M), any number of rows."""
    n = block.shape[0]
    top = 1
    while 2 * top < n:
        top *= 2
    p = top
    while p > 0 and n > 1:
        q, r, d = top, 0, p
        while True:
            for i in range(n - d):
                if (i & p) == r:
                    _exchange(block[i], block[i + d])
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2


@part(borrows=True)
def sorted_block(row, first, x0, width, block, counts):
    """Sort the samples of pixels x0 to x0 + width - 1, and count those of each that are not missing.

    Parameters
    ----------
    row : (planes, columns) float32     samples, `MISSING` or no number where there is none; from plane `first` on
    block : (n, >= LANES) float32       written
    counts : (LANES,) int32             written; 0 beyond `width`
    """
    for k in range(block.shape[0]):
        source, to = row[first + k, x0 : x0 + width], block[k]
        for i in range(width):
            v = source[i]
            to[i] = v if (v < PRESENT) & (v > -PRESENT) else MISSING
        for i in range(width, LANES):
            to[i] = MISSING
    sort_rows(block)
    for i in range(LANES):
        counts[i] = 0
    for k in range(block.shape[0]):
        values = block[k]
        for i in range(LANES):
            counts[i] += np.int32(values[i] < PRESENT)
