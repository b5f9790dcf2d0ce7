"""Winsorized sigma clipping of many pixels at once; the rule itself, one pixel at a time, is in `robust.winsorized`.

In   a cube (rows, planes, columns) float32 of aligned samples, `MISSING` (1e30) where there is none
Out  per pixel the lowest and highest value that it keeps

A vector pass proves which pixels keep all their samples. The others wait in a queue: some passes of the rule's inner loop
show what lies beyond one of its sigmas, and so beyond the last; that the rest stays is proven as before. The rest then
waits for the next round, which is the first pass once more. Only what is in doubt goes through the rule.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING, PRESENT
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.robust.sorting import LANES, sorted_block
from lerar_dask.kernels.robust.winsorized import WINSOR, keep_winsorized
from lerar_dask.kernels.robust.winsorized_lanes import (
    MIDDLE,
    NEED,
    NUMBERS,
    PRESENT_N,
    ROUNDING,
    describe_lanes,
    prove_kept,
)

__all__ = ["bound_winsorized"]

_FAST = {"contract", "nsz", "arcp"}
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_PASSES = 8
"""Of the inner loop, the first with the plain deviation."""
_STANDS = np.float32(5e-4)
"""The rule's loop ends when sigma changes by no more than this share of it."""
_MARGIN = np.float32(1.002)
"""What rounding, and one pass more or less at the loop's end, may do to sigma."""
_FLOOR = np.float32(2e-6)
"""Of the median: the rule takes half of this as the least sigma."""
# Behind the numbers of every lane, at constant offsets as those.
_SPREAD, _CHANGE, _BOUND, _SUM, _SQUARES = (NUMBERS + LANES * k for k in range(5))
_SURE_LOW, _SURE_HIGH, _LOST_LOW, _LOST_HIGH, _BELOW, _ABOVE = (NUMBERS + LANES * k for k in range(5, 11))
_ALL_NUMBERS = NUMBERS + 11 * LANES


@kernel
def bound_winsorized(cube, first, columns, limits, blocks, lowest, highest):
    """Bounds of every pixel, in blocks of `LANES` pixels of a row.

    Parameters
    ----------
    cube : (rows, planes, pitch) float32     samples of the planes from `first` on, `MISSING` where there is none
    columns : int                            columns in use (<= pitch)
    limits : (2,) float64                    low and high, in sigma
    blocks : (3, n, > LANES) float32         room for the samples of `LANES` pixels, and of those that wait for more passes
        and for the next round
    lowest, highest : (rows, columns) float32     written: keep a sample when lowest <= sample <= highest
    """
    block, queue = blocks[0], blocks[1]
    lanes, counts = np.empty(_ALL_NUMBERS, np.float32), np.empty(LANES, np.int32)
    proven = np.empty(LANES, np.bool_)
    # Number of samples, row and column of what waits in each queue; how many wait.
    waiting, n_waiting = np.empty((2, 3, LANES), np.int64), np.zeros(2, np.int64)
    for y in range(cube.shape[0]):
        for x0 in range(0, columns, LANES):
            width = min(LANES, columns - x0)
            sorted_block(cube[y], first, x0, width, block, counts)
            describe_lanes(block, counts, np.float32(limits[0]), np.float32(limits[1]), lanes)
            prove_kept(block, lanes, proven)
            for i in range(width):
                if proven[i]:
                    _keep_all(block, int(counts[i]), i, y, x0 + i, lowest, highest)
                    continue
                if n_waiting[0] == LANES:
                    _end_round(blocks, waiting, n_waiting, limits, lowest, highest)
                _append(block, i, 0, int(counts[i]), y, x0 + i, queue, waiting[0], n_waiting[0])
                n_waiting[0] += 1
    _end_round(blocks, waiting, n_waiting, limits, lowest, highest)
    _next_round(blocks[2], waiting[1], n_waiting[1], limits, lowest, highest)


@part
def _append(block, i, a, b, y, x, queue, waiting, at):
    """Let samples a to b - 1 of a lane wait in a queue."""
    for k in range(a, b):
        queue[k - a, at] = block[k, i]
    for k in range(b - a, queue.shape[0]):
        queue[k, at] = MISSING
    waiting[0, at], waiting[1, at], waiting[2, at] = b - a, y, x


@part
def _end_round(blocks, waiting, n_waiting, limits, lowest, highest):
    """Find what the pixels that wait lose in their first round; what they keep waits for the next one."""
    queue, own, n = blocks[1], waiting[0], n_waiting[0]
    lanes, proven = np.empty(_ALL_NUMBERS, np.float32), np.empty(LANES, np.bool_)
    describe_lanes(queue, _filled(queue, own, n), np.float32(limits[0]), np.float32(limits[1]), lanes)
    _go_down(queue, np.float32(max(limits[0], limits[1])), lanes)
    _count_lost(queue, limits, lanes)
    prove_kept(queue, lanes, proven)
    for i in range(n):
        m, y, x = own[0, i], own[1, i], own[2, i]
        a, b = int(lanes[_LOST_LOW + i]), m - int(lanes[_LOST_HIGH + i])
        if not proven[i] or not 0 < b - a < m or not lanes[_SPREAD + i] >= lanes[NEED + i]:
            _by_rule(queue, m, i, y, x, limits, lowest, highest)
            continue
        if n_waiting[1] == LANES:
            _next_round(blocks[2], waiting[1], LANES, limits, lowest, highest)
            n_waiting[1] = 0
        _append(queue, i, a, b, y, x, blocks[2], waiting[1], n_waiting[1])
        n_waiting[1] += 1
    n_waiting[0] = 0


@part
def _next_round(queue, waiting, n, limits, lowest, highest):
    """Decide the pixels that have lost something."""
    lanes, proven = np.empty(_ALL_NUMBERS, np.float32), np.empty(LANES, np.bool_)
    describe_lanes(queue, _filled(queue, waiting, n), np.float32(limits[0]), np.float32(limits[1]), lanes)
    prove_kept(queue, lanes, proven)
    for i in range(n):
        m, y, x = waiting[0, i], waiting[1, i], waiting[2, i]
        if proven[i]:
            _keep_all(queue, m, i, y, x, lowest, highest)
        else:
            _by_rule(queue, m, i, y, x, limits, lowest, highest)


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


@part
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


# ------------------------------------------------------------------------------------------------- all lanes of a queue


@part
def _go_down(block, limit, lanes):
    """Sigma of all lanes after some passes of the inner loop."""
    for i in range(LANES):
        lanes[_SPREAD + i], lanes[_CHANGE + i] = MISSING, MISSING
        lanes[_BOUND + i] = _MARGIN * limit * lanes[NEED + i]  # beyond every sample
    for step in range(_PASSES):
        _clamped_moments(block, lanes)
        _narrow(lanes, np.float32(WINSOR) if step > 0 else _ONE)


@part(fastmath=_FAST)
def _clamped_moments(block, lanes):
    """Sums of the deviations from the median, clamped at +- the bound, and of their squares."""
    for i in range(LANES):
        lanes[_SUM + i], lanes[_SQUARES + i] = _ZERO, _ZERO
    for k in range(block.shape[0]):
        row = block[k]
        for i in range(LANES):
            bound = lanes[_BOUND + i]
            d = row[i] - lanes[MIDDLE + i] if row[i] < PRESENT else _ZERO
            d = d if d < bound else bound
            d = d if d > -bound else -bound
            lanes[_SUM + i] += d
            lanes[_SQUARES + i] += d * d


@part(fastmath=_FAST)
def _narrow(lanes, factor):
    """One pass of the inner loop of all lanes; a lane whose sigma stands stays as it is."""
    for i in range(LANES):
        m, bound, before, last = lanes[PRESENT_N + i], lanes[_BOUND + i], lanes[_SPREAD + i], lanes[_CHANGE + i]
        moves = last > _STANDS * before
        variance = (lanes[_SQUARES + i] - lanes[_SUM + i] * lanes[_SUM + i] / max(m, _ONE)) / max(m - _ONE, _ONE)
        sigma = factor * np.sqrt(max(variance, _ZERO))
        lanes[_SPREAD + i] = sigma if moves else before
        lanes[_CHANGE + i] = abs(sigma - before) if moves else last
        lanes[_BOUND + i] = min(bound, np.float32(1.5) * sigma) if moves else bound


@part(fastmath=_FAST)
def _count_lost(block, limits, lanes):
    """Samples at either end that lie beyond the limits; `NEED` becomes that of the others."""
    low, high, n = np.float32(limits[0]), np.float32(limits[1]), np.float32(block.shape[0])
    for i in range(LANES):
        middle = lanes[MIDDLE + i]
        most = max(lanes[_SPREAD + i] * _MARGIN, _FLOOR * abs(middle))
        rounding = ROUNDING * abs(middle)
        lanes[_SURE_LOW + i] = middle - low * most - rounding
        lanes[_SURE_HIGH + i] = middle + high * most + rounding
        # missing samples lie above all others
        lanes[_LOST_LOW + i], lanes[_LOST_HIGH + i] = _ZERO, lanes[PRESENT_N + i] - n
        lanes[_BELOW + i], lanes[_ABOVE + i] = _ZERO, _ZERO
    for k in range(block.shape[0]):
        row = block[k]
        for i in range(LANES):
            d = row[i] - lanes[MIDDLE + i]
            lost_low, lost_high = row[i] < lanes[_SURE_LOW + i], row[i] > lanes[_SURE_HIGH + i]
            lanes[_LOST_LOW + i] += _ONE if lost_low else _ZERO
            lanes[_LOST_HIGH + i] += _ONE if lost_high else _ZERO
            lanes[_BELOW + i] = max(lanes[_BELOW + i], _ZERO if lost_low else -d)
            lanes[_ABOVE + i] = max(lanes[_ABOVE + i], _ZERO if lost_high else d)
    for i in range(LANES):
        lanes[NEED + i] = max(lanes[_BELOW + i] / low, lanes[_ABOVE + i] / high)
