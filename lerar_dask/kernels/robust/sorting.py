"""Many short columns sorted at once: min and max of two rows, no branches.

In   a block (n, at least `LANES`) float32; missing values as a large number, which goes to the end
Out  the first `LANES` columns sorted, in place
"""

from __future__ import annotations

from lerar_dask.kernels.compiled.kernel import part

__all__ = ["LANES", "sort_rows"]

LANES = 128
"""Columns that are sorted at once. A block is best some columns wider: rows then fall into more sets of the cache."""


@part(fastmath={"contract", "nsz", "arcp"})
def _exchange(upper, lower):
    """Put the smaller of two rows' values into the first, the larger into the second."""
    for i in range(LANES):
        a, b = upper[i], lower[i]
        less = a < b
        upper[i] = a if less else b
        lower[i] = b if less else a


@part
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
