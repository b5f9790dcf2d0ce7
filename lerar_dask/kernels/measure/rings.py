"""Rings: the level around a place, by some 40 pixels of a ring about it.

In   a sub, positions, radii
Out  per position the median of its ring and the point below which seven of eight of its pixels lie
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel
from lerar_dask.kernels.robust.sorting import LANES, sort_rows

__all__ = ["ring_levels"]

_MOST = 128
_LEAST = 8
_NONE = np.float32(3e38)


def ring_levels(image: np.ndarray, xy: np.ndarray, *, inner_px: float, outer_px: float) -> np.ndarray:
    """Median and 7/8 point of the ring around each position.

    Parameters
    ----------
    image : (y, x) float32      C-contiguous; NaN and what lies outside is left out
    xy : (n, 2) float64         centers, taken to the nearest pixel

    Returns
    -------
    levels : (n, 2) float64     NaN where fewer than 8 pixels are left
    """
    down = np.argsort(xy[:, 1], kind="stable")  # along the rows memory is read in its order
    found = np.empty((len(xy), 2))
    _rings(image, xy[down].astype(np.float64), float(inner_px), float(outer_px), found)
    levels = np.empty_like(found)
    levels[down] = found
    return levels


@kernel
def _rings(image, xy, inner, outer, out):
    reach = int(outer)
    # Every k-th pixel of the ring, so that about 40 remain whatever its size.
    jump = max(int(np.pi * (outer * outer - inner * inner) / 40.0), 1)
    offsets, counts = np.empty((_MOST, 2), np.int64), np.empty(LANES, np.int64)
    m = seen = 0
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            d2 = dx * dx + dy * dy
            if inner * inner <= d2 <= outer * outer:
                seen += 1
                if seen % jump == 0 and m < _MOST:
                    offsets[m, 0], offsets[m, 1] = dy, dx
                    m += 1
    block = np.empty((m, LANES + 16), np.float32)
    for first in range(0, xy.shape[0], LANES):
        n_lanes = min(LANES, xy.shape[0] - first)
        block[:] = _NONE
        for k in range(n_lanes):
            cx, cy = int(np.rint(xy[first + k, 0])), int(np.rint(xy[first + k, 1]))
            n = 0
            for i in range(m):
                y, x = cy + offsets[i, 0], cx + offsets[i, 1]
                if 0 <= y < image.shape[0] and 0 <= x < image.shape[1] and np.isfinite(image[y, x]):
                    block[n, k] = image[y, x]
                    n += 1
            counts[k] = n
        sort_rows(block)
        for k in range(n_lanes):
            n = counts[k]
            out[first + k, 0] = block[n // 2, k] if n >= _LEAST else np.nan
            out[first + k, 1] = block[(7 * n) // 8, k] if n >= _LEAST else np.nan
