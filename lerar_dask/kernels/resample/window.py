"""Windows of subs before they are resampled: calibrate, void, repair, take a lattice and turn it, mirror the edges.

In   raw pixels of a window, calibration of the whole sub
Out  float32 windows that may begin outside the frame; `MISSING` (1e30) marks pixels without data until they are repaired
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.measure.lattices import part_pairs
from lerar_dask.kernels.robust.medians import median_of_few

__all__ = [
    "calibrate_into",
    "fill_missing",
    "find_saturated",
    "first_from",
    "lay_voids",
    "mirror_edges",
    "repair_defects",
    "take_plane",
]


@kernel(borrows=True)
def calibrate_into(raw, scale, zero, blank, pedestal, gain, y0, x0, out, oy, ox):
    """Calibrate a raw window into a part of a buffer: (raw * scale + zero - pedestal) * gain.

    Parameters
    ----------
    raw : (h, w) any dtype                 its first pixel is (y0, x0) of the sub
    blank : float64                        raw value that stands for "no data" (NaN: none); such pixels, and those that
        are not finite, become `MISSING`
    pedestal, gain : (H, W) float32        of the whole sub; (0, 0) when there is none
    out : float32                          out[oy + i, ox + j] is written

    Returns
    -------
    int
        number of pixels without data
    """
    h, w = raw.shape
    a, b = np.float32(scale), np.float32(zero)
    missing = 0
    for i in range(h):
        row, to = raw[i], out[oy + i, ox : ox + w]
        if raw.itemsize > 2:
            # numbers that float32 cannot hold: the pedestal comes off in float64
            for j in range(w):
                number = np.float64(row[j]) * scale + zero
                if pedestal.size > 0:
                    number -= pedestal[y0 + i, x0 + j]
                if gain.size > 0:
                    number *= gain[y0 + i, x0 + j]
                to[j] = np.float32(number)
        elif pedestal.size > 0 and gain.size > 0:
            p, g = pedestal[y0 + i, x0 : x0 + w], gain[y0 + i, x0 : x0 + w]
            for j in range(w):
                to[j] = (np.float32(row[j]) * a + b - p[j]) * g[j]
        elif pedestal.size > 0:
            p = pedestal[y0 + i, x0 : x0 + w]
            for j in range(w):
                to[j] = np.float32(row[j]) * a + b - p[j]
        elif gain.size > 0:
            g = gain[y0 + i, x0 : x0 + w]
            for j in range(w):
                to[j] = (np.float32(row[j]) * a + b) * g[j]
        else:
            for j in range(w):
                to[j] = np.float32(row[j]) * a + b
        bad = np.int32(0)
        for j in range(w):
            bad += np.int32(not (abs(to[j]) < MISSING))
        if blank == blank or bad > 0:
            for j in range(w):
                if row[j] == blank or not abs(to[j]) < MISSING:
                    to[j] = MISSING
                    missing += 1
    return missing


@kernel
def take_plane(source, lattice, height, width, turn, out):
    """Copy a lattice of a window, turned, into a window of the turned plane.

    Parameters
    ----------
    source : Part               of the sub, float32
    lattice : Lattice
    height, width               shape of the lattice's plane before it is turned
    turn : (transpose, flip_y, flip_x)
    out : Part                  of the turned plane, float32, written; pixels that the source does not hold are left alone
    """
    (pixels, sy0, sx0), (to, oy0, ox0) = source, out
    step, phase_y, phase_x = lattice
    transpose, flip_y, flip_x = turn
    over_rows = (height, phase_y, step, flip_y, sy0, pixels.shape[0])
    over_columns = (width, phase_x, step, flip_x, sx0, pixels.shape[1])
    if transpose:
        top, bottom, b, down = _span(oy0, to.shape[0], over_columns)
        left, right, a, along = _span(ox0, to.shape[1], over_rows)
        for i in range(top, bottom):
            for j in range(left, right):
                to[i, j] = pixels[a + along * (j - left), b + down * (i - top)]
        return
    top, bottom, a, down = _span(oy0, to.shape[0], over_rows)
    left, right, b, along = _span(ox0, to.shape[1], over_columns)
    if right <= left:
        return
    halves = np.empty((2, right - left), np.float32)
    for i in range(top, bottom):
        _take_row(pixels[a + down * (i - top)], b, along, halves, to[i, left:right])


@part(borrows=True)
def _span(first, n, axis):
    """Places of an axis that the source holds: the first, the one after the last, that of the first in the source, and the step.

    Parameters
    ----------
    first, n : pixel of the turned plane at place 0, and how many places there are
    axis : (length of the plane before it is turned, phase, step, flip, first pixel of the source, its length)
    """
    length, phase, step, flip, origin, held = axis
    low = max(-((phase - origin) // step), 0)
    high = min((held - 1 + origin - phase) // step, length - 1)
    if flip:
        low, high = length - 1 - high, length - 1 - low
    start, stop = max(low - first, 0), min(high + 1 - first, n)
    at = length - 1 - (first + start) if flip else first + start
    return start, stop, phase + step * at - origin, -step if flip else step


@part(borrows=True)
def _take_row(row, first, step, halves, to):
    """Copy the places first, first + step, ... of a row; a step is 1 or 2, or as far backwards."""
    n = to.size
    if step == 2:
        part_pairs(row[first : first + 2 * n - 1], to, halves[1, : n - 1])
        return
    if step == 1:
        for j in range(n):
            to[j] = row[first + j]
        return
    last = first + step * (n - 1)
    backwards = row[last : first + 1]
    if step == -2:
        part_pairs(backwards, halves[0, :n], halves[1, : n - 1])
        backwards = halves[0, :n]
    for j in range(n):
        to[j] = backwards[n - 1 - j]


@kernel(borrows=True)
def mirror_edges(window, wy0, wx0, height, width):
    """Fill the pixels of a window that lie outside its plane with the mirrored inside, in place.

    Parameters
    ----------
    window : (h, w) float32    its first pixel is (wy0, wx0) of a plane of (height, width)
    """
    h, w = window.shape
    top, bottom = max(0, -wy0), min(h, height - wy0)
    left, right = max(0, -wx0), min(w, width - wx0)
    for i in range(top, bottom):
        for j in range(left):
            window[i, j] = window[i, min(2 * left - j, right - 1)]
        for j in range(right, w):
            window[i, j] = window[i, max(2 * (right - 1) - j, left)]
    for i in range(top):
        for j in range(w):
            window[i, j] = window[min(2 * top - i, bottom - 1), j]
    for i in range(bottom, h):
        for j in range(w):
            window[i, j] = window[max(2 * (bottom - 1) - i, top), j]


@kernel
def repair_defects(window, y0, x0, height, width, defects, step, level):
    """Replace defects by the median of their good neighbors of the same color, in place.

    A defect without a good neighbor in the ring around it looks one ring further; then `level` is taken. The repair
    only keeps the kernel from smearing the defect; the samples themselves are left out by `drop_footprints`.

    Parameters
    ----------
    window : (h, w) float32    calibrated; first pixel (y0, x0) of a sub of (height, width), may begin outside it
    defects : int32            sorted flat indices into the sub
    step : int                 1, or 2 for a CFA sub
    """
    top, bottom = max(0, -y0), min(window.shape[0], height - y0)
    left, right = max(0, -x0), min(window.shape[1], width - x0)
    n = 0
    for i in range(top, bottom):
        origin = np.int64(y0 + i) * width + x0
        n += first_from(defects, origin + right) - first_from(defects, origin + left)
    found = np.empty((n, 2), np.int64)
    d = 0
    for i in range(top, bottom):
        origin = np.int64(y0 + i) * width + x0
        for at in range(first_from(defects, origin + left), first_from(defects, origin + right)):
            found[d, 0], found[d, 1] = i, defects[at] - origin
            d += 1
    for d in range(n):
        window[found[d, 0], found[d, 1]] = MISSING
    repaired = np.empty(n, np.float32)
    near = np.empty(24, np.float32)
    for d in range(n):
        m = 0
        for ring in (1, 2):
            for a in range(-ring, ring + 1):
                for b in range(-ring, ring + 1):
                    i, j = found[d, 0] + a * step, found[d, 1] + b * step
                    inside = i >= top and j >= left and i < bottom and j < right
                    if max(abs(a), abs(b)) == ring and inside and window[i, j] < MISSING:
                        near[m] = window[i, j]
                        m += 1
            if m > 0:
                break
        repaired[d] = median_of_few(near[:m]) if m > 0 else level
    for d in range(n):
        window[found[d, 0], found[d, 1]] = repaired[d]
    return n


@kernel(borrows=True)
def lay_voids(window, y0, x0, height, width, voids):
    """Mark the voids of a sub in a window of it as `MISSING`; number of pixels marked.

    Parameters
    ----------
    window : (h, w) float32    first pixel (y0, x0) of a sub of (height, width), may begin outside it
    voids : (m, 4) int32       rows y0..y1-1, columns x0..x1-1 of each
    """
    marked = 0
    for k in range(voids.shape[0]):
        left, right = max(voids[k, 2] - x0, 0, -x0), min(voids[k, 3] - x0, window.shape[1], width - x0)
        top, bottom = max(voids[k, 0] - y0, 0, -y0), min(voids[k, 1] - y0, window.shape[0], height - y0)
        for i in range(top, bottom):
            for j in range(left, right):
                window[i, j] = MISSING
                marked += 1
    return marked


@kernel(borrows=True)
def fill_missing(window, missing, top, left, rows, columns, step, level):
    """Give pixels without data the mean of the nearest good ones of their color, or `level`, in place.

    The fill only keeps the kernel from smearing what is not there into the samples beside it. It looks along rows and
    columns, two pixels of the color far: as far as a sample that stands beside missing pixels reaches over them.

    Parameters
    ----------
    window : (h, w) float32     `MISSING` where there is no data
    missing : (h, w) uint8      1 there
    top, left, rows, columns    the part of the window that lies in the sub
    step : int                  1, or 2 for a CFA sub
    """
    for i in range(top, top + rows):
        for j in range(left, left + columns):
            if missing[i, j] == 0:
                continue
            total, n = 0.0, 0
            for d in range(step, 2 * step + 1, step):
                if n == 0:
                    for a, b in ((i, j - d), (i, j + d), (i - d, j), (i + d, j)):
                        inside = a >= top and b >= left and a < top + rows and b < left + columns
                        if inside and missing[a, b] == 0:
                            total += window[a, b]
                            n += 1
            window[i, j] = np.float32(total / n) if n > 0 else level


@kernel
def find_saturated(raw, saturation, y0, x0, width):
    """Sorted flat indices, into a sub of a width, of the pixels of its raw window that are saturated.

    Parameters
    ----------
    raw : (h, w)              its first pixel is (y0, x0) of the sub
    saturation : float64      raw value from which on a pixel is saturated; infinite: none is
    """
    if not np.isfinite(saturation):
        return np.empty(0, np.int32)
    if raw.itemsize <= 2:
        # as whole numbers of 32 bits, of which twice as many as of float64 are compared at once
        return _find_from(raw, np.int32(min(max(np.ceil(saturation), -2147483648.0), 2147483647.0)), y0, x0, width)
    return _find_from(raw, saturation, y0, x0, width)


@part
def _find_from(raw, least, y0, x0, width):
    """As `find_saturated`, of a limit in a type of its own."""
    n = np.int64(0)
    for i in range(raw.shape[0]):
        n += _count_from(raw[i], least)
    found = np.empty(n, np.int32)
    k = 0
    for i in range(raw.shape[0]):
        if k == n:
            break
        if _count_from(raw[i], least) == 0:
            continue
        for j in range(raw.shape[1]):
            if raw[i, j] >= least:
                found[k] = np.int32(np.int64(y0 + i) * width + x0 + j)
                k += 1
    return found


@part(borrows=True)
def _count_from(row, least):
    """How many numbers are not below `least`."""
    count = np.int32(0)
    for j in range(row.size):
        count += np.int32(row[j] >= least)
    return np.int64(count)


@kernel(borrows=True)
def first_from(numbers, least):
    """Index of the first of sorted numbers that is not below `least` (`np.searchsorted` is slow to compile)."""
    low, high = 0, numbers.size
    while low < high:
        middle = (low + high) // 2
        if numbers[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low
