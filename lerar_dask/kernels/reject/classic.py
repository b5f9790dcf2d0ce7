"""Classic rejection by the samples of a pixel alone: none, minmax, percentile, sigma, winsorized, mad.

In   a cube (rows, planes, columns) float32 of aligned samples, `MISSING` (1e30) where there is none
Out  per pixel the lowest and highest value kept (calibration frames: `winsorize`)

All these rules keep a contiguous slice of the sorted samples. A block of pixels is sorted at once (Batcher's merge
exchange on whole rows: min and max of two rows, no branches); what is left is read off the sorted columns (winsorized
clipping does that for many pixels at once: `robust.winsorized_lanes`).
Formulas as published, with the limits tested by strict comparison; sigma has a floor of 1e-6 of the median.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA, PRESENT
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.robust.sorting import LANES, sorted_block
from lerar_dask.kernels.robust.winsorized import deviation, middle_of, running_sums
from lerar_dask.kernels.robust.winsorized_lanes import bound_winsorized, room_for_lanes

__all__ = ["METHODS", "reject_bounds"]

METHODS = {"none": 0, "minmax": 1, "percentile": 2, "sigma": 3, "winsorized": 4, "mad": 5}
_MINMAX, _PERCENTILE, _SIGMA = (METHODS[name] for name in ("minmax", "percentile", "sigma"))


def reject_bounds(
    cube: np.ndarray, first: int, last: int, *, method: str, low: float, high: float, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value that each pixel keeps.

    Parameters
    ----------
    cube : (rows, planes, pitch) float32    samples, `MISSING` where there is none
    first, last : int                       planes of one channel
    method : str                            one of `METHODS`
    low, high : float                       limits in sigma; counts for minmax, fractions of |median| for percentile
    columns : int                           columns in use (<= pitch)

    Returns
    -------
    lowest, highest : (rows, columns) float32
        keep a sample when lowest <= sample <= highest
    """
    lowest = np.empty((cube.shape[0], columns), np.float32)
    highest = np.empty_like(lowest)
    if method == "none":
        lowest[:], highest[:] = -np.inf, PRESENT
        return lowest, highest
    blocks = room_for_lanes(last - first)
    if method == "winsorized":
        bound_winsorized(cube, first, columns, np.array([low, high], float), blocks, lowest, highest)
    else:
        _bounds(cube, first, columns, METHODS[method], float(low), float(high), blocks[0], lowest, highest)
    return lowest, highest


# ------------------------------------------------------------------------------------------------------ sorted blocks


@kernel
def _bounds(cube, first, columns, method, low, high, block, lowest, highest):
    """Bounds of every pixel, in blocks of `LANES` pixels of a row."""
    n = block.shape[0]
    column = np.empty(n)
    sums = np.empty((2, n + 1))
    counts = np.empty(LANES, np.int32)
    for y in range(cube.shape[0]):
        for x0 in range(0, columns, LANES):
            width = min(LANES, columns - x0)
            sorted_block(cube[y], first, x0, width, block, counts)
            for i in range(width):
                m = int(counts[i])
                if m == 0:
                    lowest[y, x0 + i], highest[y, x0 + i] = -np.inf, PRESENT
                    continue
                for k in range(m):
                    column[k] = block[k, i]
                a, b = _slice(column[:m], method, low, high, sums)
                lowest[y, x0 + i], highest[y, x0 + i] = block[a, i], block[b - 1, i]


# --------------------------------------------------------------------------------------------- the rules, one pixel


@part(borrows=True)
def _slice(v, method, low, high, sums):
    """Kept slice [a, b) of the sorted samples `v` (float64)."""
    n = v.size
    if method == _MINMAX:
        return _slice_minmax(n, int(low), int(high))
    if method == _PERCENTILE:
        return _slice_percentile(v, low, high)
    if n < 3:
        return 0, n
    a, b = 0, n
    running_sums(v, sums)
    while b - a >= 3:
        middle = middle_of(v, a, b)
        sigma = deviation(sums, a, b) if method == _SIGMA else MAD_TO_SIGMA * _mad(v, a, b, middle)
        sigma = max(sigma, 1e-6 * abs(middle))
        c, d = a, b
        while c < d and middle - v[c] > low * sigma:
            c += 1
        while d > c and v[d - 1] - middle > high * sigma:
            d -= 1
        if (c == a and d == b) or c == d:
            break
        a, b = c, d
    return a, b


@part(borrows=True)
def _slice_minmax(n, low, high):
    """Drop counts at both ends, never leaving fewer than max(2, n / 2); nothing below four samples."""
    if n < 4:
        return 0, n
    least = max(2, (n + 1) // 2)
    low = min(low, n - least)
    high = min(high, n - least - low)
    return low, n - high


@part(borrows=True)
def _slice_percentile(v, low, high):
    """Drop what lies further from the median than a fraction of its absolute value, once."""
    n = v.size
    middle = middle_of(v, 0, n)
    a, b = 0, n
    while a < b and middle - v[a] > low * abs(middle):
        a += 1
    while b > a and v[b - 1] - middle > high * abs(middle):
        b -= 1
    return (a, b) if b > a else (0, n)


@part(borrows=True)
def _mad(v, a, b, middle):
    """Median of the absolute deviations of v[a:b], sorted: the two ends of the slice are walked inwards."""
    n = b - a
    c, d = a, b - 1
    higher = 0.0
    for k in range(n - 1, (n - 1) // 2 - 1, -1):
        left, right = middle - v[c], v[d] - middle
        largest = left
        if left >= right:
            c += 1
        else:
            largest = right
            d -= 1
        if k == n // 2:
            higher = largest
        if k == (n - 1) // 2:
            return 0.5 * (largest + higher)
    return 0.0
