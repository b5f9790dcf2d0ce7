"""Classic rejection by the samples of a pixel alone: none, minmax, percentile, sigma, winsorized, mad.

In   a cube (rows, planes, columns) float32 of aligned samples, `MISSING` (1e30) where there is none
Out  per pixel the lowest and highest value kept (calibration frames: `winsorize`)

All these rules keep a contiguous slice of the sorted samples. A block of pixels is sorted at once (Batcher's merge
exchange on whole rows: min and max of two rows, no branches); what is left is read off the sorted columns. Winsorized
clipping first proves with vector passes which pixels lose nothing; only the others go through the exact scalar rule.
Formulas as published, with the limits tested by strict comparison; sigma has a floor of 1e-6 of the median.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA, MISSING, PRESENT
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.robust.sorting import LANES, sort_rows
from lerar_dask.kernels.robust.winsorized import WINSOR, deviation, keep_winsorized, middle_of, running_sums

__all__ = ["METHODS", "reject_bounds"]

METHODS = {"none": 0, "minmax": 1, "percentile": 2, "sigma": 3, "winsorized": 4, "mad": 5}
_NONE, _MINMAX, _PERCENTILE, _SIGMA, _WINSORIZED, _MAD = range(6)
_FAST = {"contract", "nsz", "arcp"}
_ZERO, _ONE, _TINY = np.float32(0.0), np.float32(1.0), np.float32(1e-30)
# Lanes' numbers lie in one flat array at constant offsets: the compiler then sees that they do not overlap.
_MIDDLE, _SPREAD, _BOUND, _SUM, _SQUARES, _BELOW, _ABOVE, _SETTLED, _PRESENT_N, _CHANGE = (LANES * k for k in range(10))


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
    # wider than its lanes: columns would otherwise fall into few sets of the cache
    block = np.empty((last - first, LANES + 16), np.float32)
    _bounds(cube, first, last, columns, METHODS[method], float(low), float(high), block, lowest, highest)
    return lowest, highest


# ------------------------------------------------------------------------------------------------------ sorted blocks


@kernel
def _bounds(cube, first, last, columns, method, low, high, block, lowest, highest):
    """Bounds of every pixel, in blocks of `LANES` pixels of a row."""
    n = last - first
    column = np.empty(n)
    sums = np.empty((2, n + 1))
    lanes = np.empty(10 * LANES, np.float32)
    counts = np.empty(LANES, np.int32)
    for y in range(cube.shape[0]):
        for x0 in range(0, columns, LANES):
            width = min(LANES, columns - x0)
            for k in range(n):
                source, to = cube[y, first + k, x0 : x0 + width], block[k]
                for i in range(width):
                    to[i] = source[i]
                for i in range(width, LANES):
                    to[i] = MISSING
            sort_rows(block)
            _count_present(block, counts)
            if method == _WINSORIZED:
                _settle_winsorized(block, counts, np.float32(low), np.float32(high), lanes)
            for i in range(width):
                m = int(counts[i])
                if m == 0:
                    lowest[y, x0 + i], highest[y, x0 + i] = -np.inf, PRESENT
                elif method == _WINSORIZED and lanes[_SETTLED + i] != _ZERO:
                    lowest[y, x0 + i], highest[y, x0 + i] = block[0, i], block[m - 1, i]
                else:
                    for k in range(m):
                        column[k] = block[k, i]
                    a, b = _slice(column[:m], method, low, high, sums)
                    lowest[y, x0 + i], highest[y, x0 + i] = block[a, i], block[b - 1, i]


@part
def _count_present(block, counts):
    """Samples of each column that are not missing."""
    for i in range(LANES):
        counts[i] = 0
    for k in range(block.shape[0]):
        row = block[k]
        for i in range(LANES):
            counts[i] += np.int32(row[i] < PRESENT)


# --------------------------------------------------------------------------------------- winsorized: who loses nothing


@part(fastmath=_FAST)
def _clamped_moments(block, lanes):
    """Sums of the deviations from the median, clamped at +- the bound, and of their squares."""
    for i in range(LANES):
        lanes[_SUM + i], lanes[_SQUARES + i] = _ZERO, _ZERO
    for k in range(block.shape[0]):
        row = block[k]
        for i in range(LANES):
            bound = lanes[_BOUND + i]
            d = row[i] - lanes[_MIDDLE + i]
            d = d if d < bound else bound
            d = d if d > -bound else -bound
            lanes[_SUM + i] += d
            lanes[_SQUARES + i] += d * d


@part(fastmath=_FAST)
def _narrow(lanes, n, factor, low, high):
    """One pass of the inner loop of all lanes: sigma, bound, and whether the lane is settled."""
    for i in range(LANES):
        m, bound, before = lanes[_PRESENT_N + i], lanes[_BOUND + i], lanes[_SPREAD + i]
        below, above, settled = lanes[_BELOW + i], lanes[_ABOVE + i], lanes[_SETTLED + i]
        # missing samples were clamped at +bound: they come off again
        absent = (n - m) * bound
        total = lanes[_SUM + i] - absent
        squares = lanes[_SQUARES + i] - absent * bound
        variance = (squares - total * total / max(m, _ONE)) / max(m - _ONE, _ONE)
        sigma = factor * np.sqrt(max(variance, _ZERO))
        change, last = abs(sigma - before), lanes[_CHANGE + i]
        slope = min(change / max(last, _TINY), np.float32(0.98))
        ahead = max(np.float32(6.0), np.float32(1.5) * slope / (_ONE - slope)) * change
        least = sigma - ahead - np.float32(2e-3) * sigma
        inside = _ONE if below < low * least else _ZERO
        inside = inside if above < high * least else _ZERO
        inside = inside if m > np.float32(4.0) else _ZERO
        lanes[_SETTLED + i] = max(settled, inside)
        lanes[_SPREAD + i] = sigma
        lanes[_CHANGE + i] = change
        lanes[_BOUND + i] = min(bound, np.float32(1.5) * sigma)


@part
def _settle_winsorized(block, counts, low, high, lanes):
    """Mark the lanes in which winsorized clipping certainly rejects nothing; the others stay 0.

    The inner loop runs a few passes for all lanes. From how fast its changes shrink follows how far sigma can still fall:
    a lane whose extremes lie inside even then is settled. Fewer than five samples shrink too slowly to tell.
    """
    for i in range(LANES):
        m = int(counts[i])
        lanes[_PRESENT_N + i] = m
        lanes[_SETTLED + i] = _ONE if m < 3 else _ZERO
        middle = np.float32(0.5) * (block[(m - 1) // 2, i] + block[m // 2, i]) if m > 0 else _ZERO
        lanes[_MIDDLE + i] = middle
        lanes[_BELOW + i] = middle - block[0, i] if m > 0 else _ZERO
        lanes[_ABOVE + i] = block[m - 1, i] - middle if m > 0 else _ZERO
        lanes[_BOUND + i] = max(lanes[_BELOW + i], lanes[_ABOVE + i])
        lanes[_SPREAD + i] = MISSING
        lanes[_CHANGE + i] = _TINY
    n = np.float32(block.shape[0])
    for step in range(5):
        _clamped_moments(block, lanes)
        _narrow(lanes, n, np.float32(WINSOR) if step > 0 else _ONE, low, high)


# --------------------------------------------------------------------------------------------- the rules, one pixel


@part
def _slice(v, method, low, high, sums):
    """Kept slice [a, b) of the sorted samples `v` (float64)."""
    n = v.size
    if method == _MINMAX:
        return _slice_minmax(n, int(low), int(high))
    if method == _PERCENTILE:
        return _slice_percentile(v, low, high)
    if method == _WINSORIZED:
        return keep_winsorized(v, low, high, sums)
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


@part
def _slice_minmax(n, low, high):
    """Drop counts at both ends, never leaving fewer than max(2, n / 2); nothing below four samples."""
    if n < 4:
        return 0, n
    least = max(2, (n + 1) // 2)
    low = min(low, n - least)
    high = min(high, n - least - low)
    return low, n - high


@part
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


@part
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
