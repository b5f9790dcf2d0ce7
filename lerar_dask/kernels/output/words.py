"""Numbers as a FITS file holds them: big-endian words, and the sum of them that its checksums are made of.

In   rows of float32
Out  the same bits with their bytes turned, and the sum of the 32 bit words
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel

__all__ = ["turn_words"]


def turn_words(rows: np.ndarray, out: np.ndarray) -> int:
    """Turn the bytes of rows of float32.

    Parameters
    ----------
    rows : (y, x) float32
    out : (y, x) uint32     written

    Returns
    -------
    total : int     sum of the words as numbers, which does not depend on the order of bytes in memory

    Examples
    --------
    >>> out = np.empty((1, 2), np.uint32)
    >>> hex(turn_words(np.array([[1.0, 2.0]], np.float32), out)), out.tobytes().hex()
    ('0x7f800000', '3f80000040000000')
    """
    return int(_turn(rows.view(np.uint32), out))


@kernel(borrows=True)
def _turn(words, out):
    total = np.uint64(0)
    for y in range(words.shape[0]):
        source, to = words[y], out[y]
        for x in range(source.size):
            w = source[x]
            total += np.uint64(w)
            to[x] = (
                (w << np.uint32(24))
                | ((w & np.uint32(0xFF00)) << np.uint32(8))
                | ((w >> np.uint32(8)) & np.uint32(0xFF00))
                | (w >> np.uint32(24))
            )
    return total
