"""Where the pixels of a canvas row lie in a plane: runs of pixels whose taps stand side by side, and fractions.

In   source positions of the row at its nodes, columns of the canvas that are multiples of 64; between them they are linear
Out  per pixel the fraction of its position, less 1/2; per run from where to where, and how far its taps are shifted

A stretch between nodes is one run, or a few where the line crosses a row or column of the plane; where it crosses many, as
in a sub that is rotated by some degrees, its pixels are scattered: each has taps of its own.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import part

__all__ = [
    "NODE",
    "SCATTERED",
    "along_row",
    "first_and_last",
    "number_of",
    "position_at",
    "ramp",
    "row_nodes",
    "up_columns",
]

NODE = 64
SCATTERED = np.int64(-(1 << 62))
"""In place of a run's value: each of its pixels has one of its own."""
_MOST_RUNS = 3
"""Runs that a stretch between nodes is cut into; where it would be more, its pixels are scattered."""


@part(borrows=True)
def row_nodes(matrix, row, first, xs, ys):
    """Source positions of an output row at canvas columns first * 64, (first + 1) * 64, ..."""
    ax, ay, az = matrix[0, 1] * row + matrix[0, 2], matrix[1, 1] * row + matrix[1, 2], matrix[2, 1] * row + matrix[2, 2]
    for k in range(xs.size):
        column = float((first + k) * NODE)
        z = matrix[2, 0] * column + az
        xs[k] = (matrix[0, 0] * column + ax) / z
        ys[k] = (matrix[1, 0] * column + ay) / z


@part(borrows=True)
def position_at(xs, ys, first, column):
    """Source position (x, y) at a canvas column."""
    k = column // NODE - first
    t = float(column - (first + k) * NODE) / NODE
    return xs[k] + t * (xs[k + 1] - xs[k]), ys[k] + t * (ys[k + 1] - ys[k])


@part(borrows=True, fastmath={"contract"})
def ramp(first, step, start, to):
    """Write first + step * (start + i), i = 0, 1, ..."""
    for i in range(to.size):
        to[i] = first + step * (start + np.float32(i))


@part(borrows=True)
def along_row(xs, first, a, b, stride, fraction, places, runs):
    """Fractions - 1/2 of the source columns of canvas columns [a, b), and runs (start, stop, floor(x) - place).

    Place 0 is that of column a, 1 that of a + stride, ..., `_place_of(1, ...)` that of a + 1, and so on. Of scattered pixels
    floor(x) stands in `places`.
    """
    n = 0
    for t in range(stride):
        column = a + t
        stop = column // stride + number_of(t, a, b, stride)
        place = _place_of(t, a, b, stride)
        n = _along(xs, first, column // stride, stop, stride, column % stride, place, fraction, places, runs, n)
    return n


@part(inline="always")
def number_of(t, a, b, stride):
    """How many of the canvas columns a + t, a + t + stride, ... lie before b."""
    return max(b - a - t + stride - 1, 0) // stride


@part(inline="always")
def _place_of(t, a, b, stride):
    """Place of canvas column a + t."""
    return t * number_of(0, a, b, stride)


@part(borrows=True)
def _along(xs, first, a, b, stride, phase, place, fraction, places, runs, n):
    """As `along_row`, for the canvas columns stride * m + phase, m in [a, b), in places from `place`; number of runs.

    Whether a stretch between nodes is one run is decided for the whole stretch, and its fractions count from its node, so
    that no bit depends on a and b.
    """
    stretch = NODE // stride
    to = place - a
    m = a
    while m < b:
        k = m // stretch - first
        node = (first + k) * stretch
        end = min(b, node + stretch)
        base = xs[k] + float(phase) * ((xs[k + 1] - xs[k]) / NODE)
        step = (xs[k + 1] - xs[k]) / stretch
        low = int(np.floor(base)) - node
        high = int(np.floor(base + (stretch - 1) * step)) - (node + stretch - 1)
        if low == high:
            origin = np.float32(base - float(node + low) - 0.5)
            ramp(origin, np.float32(step - 1.0), np.float32(m - node), fraction[m + to : end + to])
            n = _add_run(runs, n, m + to, end + to, low - to)
        elif abs(high - low) >= _MOST_RUNS:
            _scatter(base, step, m - node, fraction[m + to : end + to], places[m + to : end + to])
            n = _add_run(runs, n, m + to, end + to, SCATTERED)
        else:
            k = 0
            while k < end - node:
                value = _floor_less(base, step, k, 1)
                after = _end_of_run(base, step, 1, value, k, stretch)
                start, stop = max(node + k, m), min(node + after, end)
                if start < stop:
                    origin = np.float32(base + float(k) * step - float(k + value) - 0.5)
                    ramp(origin, np.float32(step - 1.0), np.float32(start - node - k), fraction[start + to : stop + to])
                    n = _add_run(runs, n, start + to, stop + to, value - node - to)
                k = after
        m = end
    return n


@part(borrows=True)
def up_columns(xs, ys, c0, c1, fraction, places, runs):
    """Fractions - 1/2 of the source rows of source columns [c0, c1) on the line of an output row, and their runs.

    Runs are (start, stop, floor(y)); starts and stops count from c0. Decisions as in `_along`.
    """
    n, c, k = 0, c0, 0
    while c < c1:
        while k < xs.size - 2 and xs[k + 1] <= c:
            k += 1
        begin, after = int(np.ceil(xs[k])), int(np.ceil(xs[k + 1]))
        end = min(c1, after) if k < xs.size - 2 else c1
        slope = (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k])
        base = ys[k] + (float(begin) - xs[k]) * slope
        low = int(np.floor(base))
        high = int(np.floor(base + float(after - 1 - begin) * slope))
        if low == high and c >= begin and end <= after:
            origin = np.float32(base - float(low) - 0.5)
            ramp(origin, np.float32(slope), np.float32(c - begin), fraction[c - c0 : end - c0])
            n = _add_run(runs, n, c - c0, end - c0, low)
        elif abs(high - low) >= _MOST_RUNS:
            _scatter(base, slope, c - begin, fraction[c - c0 : end - c0], places[c - c0 : end - c0])
            n = _add_run(runs, n, c - c0, end - c0, SCATTERED)
        else:
            place = min(c - begin, 0)
            while place < end - begin:
                value = _floor_less(base, slope, place, 0)
                beyond = _end_of_run(base, slope, 0, value, place, max(after, end) - begin)
                start, stop = max(begin + place, c), min(begin + beyond, end)
                if start < stop:
                    origin = np.float32(base + float(place) * slope - float(value) - 0.5)
                    ramp(origin, np.float32(slope), np.float32(start - begin - place), fraction[start - c0 : stop - c0])
                    n = _add_run(runs, n, start - c0, stop - c0, value)
                place = beyond
        c = end
    return n


@part(borrows=True)
def _scatter(base, slope, first, fraction, places):
    """Whole parts of a line at places first, first + 1, ..., and what is beyond them, less 1/2."""
    for i in range(places.size):
        x = base + float(first + i) * slope
        whole = np.floor(x)
        fraction[i] = np.float32(x - whole - 0.5)
        places[i] = np.int64(whole)


@part(borrows=True)
def _floor_less(base, slope, k, unit):
    """Whole part of a line at place k, less unit * k."""
    return int(np.floor(base + float(k) * slope)) - unit * k


@part(borrows=True)
def _end_of_run(base, slope, unit, value, k, stop):
    """First place after k, or `stop`, where the line's whole part less unit * place is not `value` any more."""
    drift = slope - unit
    edge = value + 1 if drift > 0.0 else value
    end = min(max(int(min(max((edge - base) / drift, -1e9), 1e9)), k + 1), stop)
    while end > k + 1 and _floor_less(base, slope, end - 1, unit) != value:
        end -= 1
    while end < stop and _floor_less(base, slope, end, unit) == value:
        end += 1
    return end


@part(inline="always")
def _add_run(runs, n, start, stop, value):
    """Append a run, or lengthen the last one."""
    if n > 0 and runs[n - 1, 2] == value:
        runs[n - 1, 1] = stop
        return n
    runs[n, 0], runs[n, 1], runs[n, 2] = start, stop, value
    return n + 1


@part(borrows=True)
def first_and_last(columns, runs, n):
    """First and last source column left of a position of n runs."""
    first, last = np.int64(1 << 62), np.int64(-(1 << 62))
    for i in range(n):
        start, end, value = runs[i, 0], runs[i, 1] - 1, runs[i, 2]
        scattered = value == SCATTERED
        first = min(first, columns[start] if scattered else start + value)
        last = max(last, columns[end] if scattered else end + value)
    return first, last
