"""Winsorized sigma clipping of many pixels at once; the rule itself, one pixel at a time, is in `winsorized`.

In   a cube (rows, planes, columns) float32 of aligned samples; `MISSING` (1e30) or no number where there is none
Out  per pixel the lowest and highest value that it keeps

A vector pass proves which pixels keep all their samples: where the samples clamped at 1.5 s have a sigma of s or more, and
the plain deviation is s or more, sigma never falls below s. The others wait in a queue: some passes of the rule's inner
loop show what lies beyond one of its sigmas, and so beyond the last; that the rest stays in this round is proven as
before, and the rest waits for the next round. Only what is in doubt goes through the rule. All this is done in float32,
with margins for what float32 may lose.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING, PRESENT
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.robust.sorting import LANES, sorted_block
from lerar_dask.kernels.robust.winsorized import WINSOR, keep_winsorized

__all__ = ["bound_winsorized", "room_for_lanes"]

_FAST = {"contract", "nsz", "arcp"}
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_PASSES = 8
"""Of the inner loop, the first with the plain deviation."""
_STANDS = np.float32(5e-4)
"""The rule's loop ends when sigma changes by no more than this share of it."""
_MARGIN = np.float32(1.002)
"""What rounding, and one pass more or less at the loop's end, may do to sigma."""
_PROOF_MARGIN = np.float32(1.0002)
"""What float32 may lose in a proof, squared; sums of many samples lose more."""
_ROUNDING = np.float32(3e-7)
"""Of the median: what float32 may do to a difference from it."""
_FLOOR = np.float32(2e-6)
"""Of the median: the rule takes half of this as the least sigma."""
# Numbers of the lanes lie in one flat array at constant offsets: the compiler then sees that they do not overlap.
_PRESENT_N, _MIDDLE, _NEED, _SUM, _SQUARES, _CLAMPED, _CLAMPED_SQUARES = (LANES * k for k in range(7))
_SPREAD, _CHANGE, _BOUND, _BELOW, _ABOVE = (LANES * k for k in range(7, 12))
_SURE_LOW, _SURE_HIGH, _LOST_LOW, _LOST_HIGH = (LANES * k for k in range(12, 16))
_NUMBERS = 16 * LANES


def room_for_lanes(n: int) -> np.ndarray:
    """Room for blocks of n samples; wider than its lanes: columns would otherwise fall into few sets of the cache."""
    return np.empty((2, n, LANES + 16), np.float32)


@kernel
def bound_winsorized(cube, first, columns, limits, blocks, lowest, highest):
    """Bounds of every pixel, in blocks of `LANES` pixels of a row.

    Parameters
    ----------
    cube : (rows, planes, pitch) float32     samples of the planes from `first` on, `MISSING` where there is none
    columns : int                            columns in use (<= pitch)
    limits : (2,) float64                    low and high, in sigma
    blocks : (2, n, > LANES) float32         `room_for_lanes`: of a block, and of those that wait
    lowest, highest : (rows, columns) float32     written: keep a sample when lowest <= sample <= highest
    """
    block, queue = blocks[0], blocks[1]
    lanes, counts = np.empty(_NUMBERS, np.float32), np.empty(LANES, np.int32)
    proven = np.empty(LANES, np.bool_)
    waiting, n_waiting = np.empty((3, LANES), np.int64), 0  # number of samples, row and column of what waits
    for y in range(cube.shape[0]):
        for x0 in range(0, columns, LANES):
            width = min(LANES, columns - x0)
            sorted_block(cube[y], first, x0, width, block, counts)
            _describe(block, counts, np.float32(limits[0]), np.float32(limits[1]), lanes)
            _prove(block, lanes, proven)
            for i in range(width):
                if proven[i]:
                    _keep_all(block, int(counts[i]), i, y, x0 + i, lowest, highest)
                    continue
                while n_waiting == LANES:
                    n_waiting = _end_round(queue, waiting, n_waiting, limits, lowest, highest)
                _append(block, i, 0, int(counts[i]), y, x0 + i, queue, waiting, n_waiting)
                n_waiting += 1
    while n_waiting > 0:
        n_waiting = _end_round(queue, waiting, n_waiting, limits, lowest, highest)


@part(borrows=True)
def _append(block, i, a, b, y, x, queue, waiting, at):
    """Let samples a to b - 1 of a lane wait in a queue."""
    for k in range(a, b):
        queue[k - a, at] = block[k, i]
    for k in range(b - a, queue.shape[0]):
        queue[k, at] = MISSING
    waiting[0, at], waiting[1, at], waiting[2, at] = b - a, y, x


@part
def _end_round(queue, waiting, n, limits, lowest, highest):
    """Find what the first n pixels of the queue lose in a round; those that lose something stay, with what they keep.

    Returns
    -------
    n : int     pixels that stay; fewer than before, or with fewer samples
    """
    lanes = np.empty(_NUMBERS, np.float32)
    whole, proven = np.empty(LANES, np.bool_), np.empty(LANES, np.bool_)
    _describe(queue, _filled(queue, waiting, n), np.float32(limits[0]), np.float32(limits[1]), lanes)
    _prove(queue, lanes, whole)
    _go_down(queue, np.float32(max(limits[0], limits[1])), lanes)
    _count_lost(queue, limits, lanes)
    _prove(queue, lanes, proven)
    left = 0
    for i in range(n):
        m, y, x = waiting[0, i], waiting[1, i], waiting[2, i]
        a, b = int(lanes[_LOST_LOW + i]), m - int(lanes[_LOST_HIGH + i])
        if whole[i]:
            _keep_all(queue, m, i, y, x, lowest, highest)
        elif proven[i] and 0 < b - a < m and lanes[_SPREAD + i] >= lanes[_NEED + i]:
            _append(queue, i, a, b, y, x, queue, waiting, left)
            left += 1
        else:
            _by_rule(queue, m, i, y, x, limits, lowest, highest)
    return left


@part
def _filled(queue, waiting, n):
    """Numbers of samples of the lanes of a queue, those beyond the n that are in use without any."""
    counts = np.zeros(LANES, np.int32)
    for i in range(n):
        counts[i] = waiting[0, i]
    for k in range(queue.shape[0]):
        for i in range(n, LANES):
            queue[k, i] = MISSING
    return counts


@part(borrows=True)
def _keep_all(block, m, i, y, x, lowest, highest):
    """Bounds of a pixel that loses nothing."""
    if m == 0:
        lowest[y, x], highest[y, x] = -np.inf, PRESENT
    else:
        lowest[y, x], highest[y, x] = block[0, i], block[m - 1, i]


@part
def _by_rule(block, m, i, y, x, limits, lowest, highest):
    """Bounds of a pixel by the rule itself."""
    column = np.empty(m)
    for k in range(m):
        column[k] = block[k, i]
    a, b = keep_winsorized(column, limits[0], limits[1], np.empty((2, m + 1)))
    lowest[y, x], highest[y, x] = block[a, i], block[b - 1, i]


# ----------------------------------------------------------------------------------------------------- lanes of a block


@part(borrows=True)
def _describe(block, counts, low, high, lanes):
    """Write number of samples, median, and the need: the sigma at which the farthest sample lies at its limit.

    Parameters
    ----------
    block : (n, > LANES) float32
    counts : (LANES,) int32     samples that are there
    low, high : float32         limits in sigma
    lanes : float32             written
    """
    for i in range(LANES):
        m = int(counts[i])
        lanes[_PRESENT_N + i], lanes[_MIDDLE + i], lanes[_NEED + i] = m, _ZERO, _ZERO
        if m > 0:
            middle = _HALF * (block[(m - 1) // 2, i] + block[m // 2, i])
            lanes[_MIDDLE + i] = middle
            lanes[_NEED + i] = max((middle - block[0, i]) / low, (block[m - 1, i] - middle) / high)


@part(borrows=True, fastmath=_FAST)
def _prove(block, lanes, proven):
    """Mark the lanes whose samples certainly stay as far out as the need sigma of 1 reach; fewer than three always do."""
    for i in range(LANES):
        lanes[_SUM + i], lanes[_SQUARES + i] = _ZERO, _ZERO
        lanes[_CLAMPED + i], lanes[_CLAMPED_SQUARES + i] = _ZERO, _ZERO
    for k in range(block.shape[0]):
        row = block[k]
        for i in range(LANES):
            bound = np.float32(1.5) * lanes[_NEED + i]
            d = row[i] - lanes[_MIDDLE + i] if row[i] < PRESENT else _ZERO
            lanes[_SUM + i] += d
            lanes[_SQUARES + i] += d * d
            d = d if d < bound else bound
            d = d if d > -bound else -bound
            lanes[_CLAMPED + i] += d
            lanes[_CLAMPED_SQUARES + i] += d * d
    for i in range(LANES):
        m = lanes[_PRESENT_N + i]
        count = max(m, _ONE)
        s = lanes[_NEED + i] + _ROUNDING * abs(lanes[_MIDDLE + i])
        least = s * s * (_MARGIN + np.float32(1.2e-7) * m) * (m - _ONE)
        plain = lanes[_SQUARES + i] - lanes[_SUM + i] * lanes[_SUM + i] / count
        clamped = lanes[_CLAMPED_SQUARES + i] - lanes[_CLAMPED + i] * lanes[_CLAMPED + i] / count
        enough = (plain >= least) & (np.float32(WINSOR * WINSOR) * clamped >= least)
        proven[i] = (m < np.float32(3.0)) | enough


@part(borrows=True)
def _go_down(block, limit, lanes):
    """Sigma of all lanes after some passes of the inner loop."""
    for i in range(LANES):
        lanes[_SPREAD + i], lanes[_CHANGE + i] = MISSING, MISSING
        lanes[_BOUND + i] = _MARGIN * limit * lanes[_NEED + i]  # beyond every sample
    for step in range(_PASSES):
        _clamped_sums(block, lanes)
        _narrow(lanes, np.float32(WINSOR) if step > 0 else _ONE)


@part(borrows=True, fastmath=_FAST)
def _clamped_sums(block, lanes):
    """Sums of the deviations from the median, clamped at +- the bound, and of their squares."""
    for i in range(LANES):
        lanes[_SUM + i], lanes[_SQUARES + i] = _ZERO, _ZERO
    for k in range(block.shape[0]):
        row = block[k]
        for i in range(LANES):
            bound = lanes[_BOUND + i]
            d = row[i] - lanes[_MIDDLE + i] if row[i] < PRESENT else _ZERO
            d = d if d < bound else bound
            d = d if d > -bound else -bound
            lanes[_SUM + i] += d
            lanes[_SQUARES + i] += d * d


@part(borrows=True, fastmath=_FAST)
def _narrow(lanes, factor):
    """One pass of the inner loop of all lanes; a lane whose sigma stands stays as it is."""
    for i in range(LANES):
        m, bound, before, last = lanes[_PRESENT_N + i], lanes[_BOUND + i], lanes[_SPREAD + i], lanes[_CHANGE + i]
        moves = last > _STANDS * before
        variance = (lanes[_SQUARES + i] - lanes[_SUM + i] * lanes[_SUM + i] / max(m, _ONE)) / max(m - _ONE, _ONE)
        sigma = factor * np.sqrt(max(variance, _ZERO))
        lanes[_SPREAD + i] = sigma if moves else before
        lanes[_CHANGE + i] = abs(sigma - before) if moves else last
        lanes[_BOUND + i] = min(bound, np.float32(1.5) * sigma) if moves else bound


@part(borrows=True, fastmath=_FAST)
def _count_lost(block, limits, lanes):
    """Samples at either end that lie beyond the limits; `_NEED` becomes that of the others."""
    low, high, n = np.float32(limits[0]), np.float32(limits[1]), np.float32(block.shape[0])
    for i in range(LANES):
        middle = lanes[_MIDDLE + i]
        most = max(lanes[_SPREAD + i] * _MARGIN, _FLOOR * abs(middle))
        rounding = _ROUNDING * abs(middle)
        lanes[_SURE_LOW + i] = middle - low * most - rounding
        lanes[_SURE_HIGH + i] = middle + high * most + rounding
        # missing samples lie above all others
        lanes[_LOST_LOW + i], lanes[_LOST_HIGH + i] = _ZERO, lanes[_PRESENT_N + i] - n
        lanes[_BELOW + i], lanes[_ABOVE + i] = _ZERO, _ZERO
    for k in range(block.shape[0]):
        row = block[k]
        for i in range(LANES):
            d = row[i] - lanes[_MIDDLE + i]
            lost_low, lost_high = row[i] < lanes[_SURE_LOW + i], row[i] > lanes[_SURE_HIGH + i]
            lanes[_LOST_LOW + i] += _ONE if lost_low else _ZERO
            lanes[_LOST_HIGH + i] += _ONE if lost_high else _ZERO
            lanes[_BELOW + i] = max(lanes[_BELOW + i], _ZERO if lost_low else -d)
            lanes[_ABOVE + i] = max(lanes[_ABOVE + i], _ZERO if lost_high else d)
    for i in range(LANES):
        lanes[_NEED + i] = max(lanes[_BELOW + i] / low, lanes[_ABOVE + i] / high)
