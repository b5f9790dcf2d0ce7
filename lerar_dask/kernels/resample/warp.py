"""Resample a sub onto canvas rows: two-pass Lanczos-3 with clamping, or bilinear; sky and scale taken off on the way.

In   a calibrated float32 window of one sub (or of one color's lattice), a 3x3 matrix from canvas pixel to its pixels
Out  one plane of the cube (rows, planes, columns) float32, `MISSING` where the sub has no sample

An output row is a line in the sub: first every source column that it needs is interpolated to the height of the line,
then those values along it: 12 taps in place of 36. Source positions are computed in float64 at canvas columns that are
multiples of 64 and are linear between; nothing depends on where a window or strip begins, so that tiles never show.
Flips and quarter turns are folded into the window (`choose_turn`, `take_plane`). On a lattice of a color camera two
columns of the canvas lie in one of the plane: the even ones are resampled as a row of their own, then the odd ones
(`stride_of`). What remains of a large rotation or of another scale goes through a gather with 36 taps. Strong downscaling
does not widen the kernel.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.measure.lattices import join_pairs, part_pairs
from lerar_dask.kernels.resample.terms import Scratch

__all__ = ["BILINEAR", "HALO", "LANCZOS3", "choose_turn", "stride_of", "warp_plane", "warp_scratch"]

LANCZOS3, BILINEAR = 0, 1
HALO = 6
"""Pixels that a window must hold around the positions it is sampled at (taps, drift along the line, repair)."""
NODE = 64
SURFACE_NODE = 32
MAX_BEND = 0.2
"""Beyond this departure from the unit matrix (about 10 degrees) runs get so short that gathering is faster."""

_AT_ONCE = 256
"""Pixels whose taps are gathered at once: so many stay in the fastest cache."""

_SCATTERED = np.int64(-(1 << 62))
"""In place of a run's value: each of its pixels has one of its own."""
_MOST_RUNS = 3
"""Runs that a stretch between nodes is cut into; where it would be more, its pixels are scattered."""

_FAST = {"contract", "nsz", "arcp"}


def choose_turn(matrix: np.ndarray, shape: tuple[int, int]) -> tuple[tuple[bool, bool, bool], np.ndarray]:
    """Flip and quarter turn of a plane that bring its transform nearest to the unit matrix.

    Parameters
    ----------
    matrix : (3, 3) float64    canvas (x, y, 1) to plane pixel
    shape : rows and columns of the plane

    Returns
    -------
    turn : (transpose, flip_y, flip_x): turned[y, x] = plane[a, b], (a, b) = (x, y) if transpose else (y, x), each
        counted from the far end where flipped
    matrix : (3, 3) float64    canvas to turned plane
    """
    h, w = shape
    best: tuple[float, tuple[bool, bool, bool], np.ndarray] | None = None
    for transpose in (False, True):
        for flip_y in (False, True):
            for flip_x in (False, True):
                flip = np.array(
                    [
                        [-1.0 if flip_x else 1.0, 0, w - 1 if flip_x else 0],
                        [0, -1.0 if flip_y else 1.0, h - 1 if flip_y else 0],
                        [0, 0, 1],
                    ]
                )
                swap = np.eye(3)[[1, 0, 2]] if transpose else np.eye(3)
                turned = swap @ flip @ matrix
                jacobian = _jacobian(turned, shape)
                score = float(np.trace(jacobian)) / float(np.linalg.norm(jacobian))
                if best is None or score > best[0] + 1e-9:
                    best = (score, (transpose, flip_y, flip_x), turned)
    assert best is not None
    return best[1], best[2]


def stride_of(matrix: np.ndarray, shape: tuple[int, int]) -> int:
    """Canvas columns from one to the next that lie a column of the plane apart: 1, or 2 on a plane of half the scale.

    0 where a (turned) transform rotates or scales too much for the two-pass warp.
    """
    jacobian = _jacobian(matrix, shape)
    if jacobian[0, 0] <= 0.0:
        return 0
    slope = jacobian[1, 0] / jacobian[0, 0]
    bends = {stride: abs(stride * jacobian[0, 0] - 1.0) + abs(slope) for stride in (1, 2)}
    stride = min(bends, key=lambda some: bends[some])
    return stride if bends[stride] <= MAX_BEND else 0


def warp_scratch(columns: int, window_columns: int) -> Scratch:
    """Work arrays of `warp_plane` for rows of `columns` pixels out of windows of `window_columns`."""
    width = max(columns, window_columns) + 2 * NODE
    return Scratch(
        floats=np.empty((6, width), np.float32),
        runs=np.empty((2 * width, 3), np.int64),
        nodes=np.empty((2, columns // NODE + 8)),
        taps=np.empty((14, _AT_ONCE), np.float32),
        places=np.empty((2, width), np.int64),
    )


def _jacobian(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Derivative of the map where it meets the middle of the plane, (2, 2) d(x, y)/d(X, Y)."""
    middle = np.linalg.inv(matrix) @ np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2, 1.0])
    x, y, z = matrix @ (middle / middle[2])
    return (matrix[:2, :2] - np.outer([x / z, y / z], matrix[2, :2])) / z


@part(borrows=True)
def _nodes(matrix, row, first, xs, ys):
    """Source positions of an output row at canvas columns first * 64, (first + 1) * 64, ..."""
    ax, ay, az = matrix[0, 1] * row + matrix[0, 2], matrix[1, 1] * row + matrix[1, 2], matrix[2, 1] * row + matrix[2, 2]
    for k in range(xs.size):
        column = float((first + k) * NODE)
        z = matrix[2, 0] * column + az
        xs[k] = (matrix[0, 0] * column + ax) / z
        ys[k] = (matrix[1, 0] * column + ay) / z


@part(borrows=True)
def _position(xs, ys, first, column):
    """Source position (x, y) at a canvas column."""
    k = column // NODE - first
    t = float(column - (first + k) * NODE) / NODE
    return xs[k] + t * (xs[k + 1] - xs[k]), ys[k] + t * (ys[k + 1] - ys[k])


@kernel(borrows=True)
def _inside(xs, ys, first, column, height, width):
    """Whether a canvas column's position lies within the rectangle of pixel centers."""
    x, y = _position(xs, ys, first, column)
    return x >= 0.0 and y >= 0.0 and x <= width - 1.0 and y <= height - 1.0


@kernel(borrows=True)
def _reach(xs, ys, first, x0, x1, height, width):
    """Canvas columns [a, b) of [x0, x1) whose positions lie in the plane (an interval, since planes are convex)."""
    start, stop = x1, x1
    column = x0
    while column < x1:
        end = min(x1, (column // NODE + 1) * NODE)
        whole = _inside(xs, ys, first, column, height, width) and _inside(xs, ys, first, end - 1, height, width)
        for c in range(column, end):
            if whole or _inside(xs, ys, first, c, height, width):
                if start == x1:
                    start = c
                    stop = c
                if whole:
                    stop = end
                    break
                stop = c + 1
        column = end
    return start, stop


@part(borrows=True, fastmath={"contract"})
def _ramp(first, step, start, to):
    """Write first + step * (start + i), i = 0, 1, ..."""
    for i in range(to.size):
        to[i] = first + step * (start + np.float32(i))


@part(borrows=True)
def _along_row(xs, first, a, b, stride, fraction, places, runs):
    """Fractions - 1/2 of the source columns of canvas columns [a, b), and runs (start, stop, floor(x) - place).

    Place 0 is that of column a, 1 that of a + stride, ..., `_place_of(1, ...)` that of a + 1, and so on. Of scattered pixels
    floor(x) stands in `places`.
    """
    n = 0
    for t in range(stride):
        column = a + t
        stop = column // stride + _number(t, a, b, stride)
        place = _place_of(t, a, b, stride)
        n = _along(xs, first, column // stride, stop, stride, column % stride, place, fraction, places, runs, n)
    return n


@part(inline="always")
def _number(t, a, b, stride):
    """How many of the canvas columns a + t, a + t + stride, ... lie before b."""
    return max(b - a - t + stride - 1, 0) // stride


@part(inline="always")
def _place_of(t, a, b, stride):
    """Place of canvas column a + t."""
    return t * _number(0, a, b, stride)


@part(borrows=True)
def _along(xs, first, a, b, stride, phase, place, fraction, places, runs, n):
    """As `_along_row`, for the canvas columns stride * m + phase, m in [a, b), in places from `place`; number of runs.

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
            _ramp(origin, np.float32(step - 1.0), np.float32(m - node), fraction[m + to : end + to])
            n = _add_run(runs, n, m + to, end + to, low - to)
        elif abs(high - low) >= _MOST_RUNS:
            _scatter(base, step, m - node, fraction[m + to : end + to], places[m + to : end + to])
            n = _add_run(runs, n, m + to, end + to, _SCATTERED)
        else:
            k = 0
            while k < end - node:
                value = _floor_less(base, step, k, 1)
                after = _end_of_run(base, step, 1, value, k, stretch)
                start, stop = max(node + k, m), min(node + after, end)
                if start < stop:
                    origin = np.float32(base + float(k) * step - float(k + value) - 0.5)
                    _ramp(
                        origin, np.float32(step - 1.0), np.float32(start - node - k), fraction[start + to : stop + to]
                    )
                    n = _add_run(runs, n, start + to, stop + to, value - node - to)
                k = after
        m = end
    return n


@part(borrows=True)
def _up_columns(xs, ys, c0, c1, fraction, places, runs):
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
            _ramp(origin, np.float32(slope), np.float32(c - begin), fraction[c - c0 : end - c0])
            n = _add_run(runs, n, c - c0, end - c0, low)
        elif abs(high - low) >= _MOST_RUNS:
            _scatter(base, slope, c - begin, fraction[c - c0 : end - c0], places[c - c0 : end - c0])
            n = _add_run(runs, n, c - c0, end - c0, _SCATTERED)
        else:
            place = min(c - begin, 0)
            while place < end - begin:
                value = _floor_less(base, slope, place, 0)
                beyond = _end_of_run(base, slope, 0, value, place, max(after, end) - begin)
                start, stop = max(begin + place, c), min(begin + beyond, end)
                if start < stop:
                    origin = np.float32(base + float(place) * slope - float(value) - 0.5)
                    _ramp(
                        origin, np.float32(slope), np.float32(start - begin - place), fraction[start - c0 : stop - c0]
                    )
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


@part(fastmath=_FAST, inline="always")
def _lanczos(s, v0, v1, v2, v3, v4, v5, offset, clamping):
    """Lanczos-3 at fraction 1/2 + s of six values plus offset, negative lobes held below `clamping` times the positive.

    Only a value below both its neighbors is a ring and held, up to the lower one: on the flank of a star, where the lobes
    are large as well, holding them would add light, the more the brighter the star (0.3 % of its flux).
    The weights pair up as E(u) -+ s O(u), u = s^2, cubics fitted to the normalized kernel (error 4e-6); their signs are
    known (+ - + + - +), which makes clamping cheap.
    """
    u = s * s
    e0 = np.float32(0.0244572595) + u * (
        np.float32(-0.0882171032) + u * (np.float32(-0.0550301214) + u * np.float32(0.0663738144))
    )
    e1 = np.float32(-0.135868442) + u * (
        np.float32(0.570623339) + u * (np.float32(-0.111256995) + u * np.float32(0.0107014895))
    )
    o0 = s * (
        np.float32(0.0639227855)
        + u * (np.float32(-0.309785349) + u * (np.float32(0.237671926) + u * np.float32(-0.0852779061)))
    )
    o1 = s * (
        np.float32(-0.181155329)
        + u * (np.float32(0.841006564) + u * (np.float32(-0.515289303) + u * np.float32(0.199235197)))
    )
    o2 = s * (
        np.float32(1.33666363)
        + u * (np.float32(-1.54429755) + u * (np.float32(0.88989891) + u * np.float32(-0.397779188)))
    )
    e2 = np.float32(0.5) - e0 - e1
    lobes = np.float32(-2.0) * e1
    positive = (e0 - o0) * v0 + (e0 + o0) * v5 + (e2 - o2) * v2 + (e2 + o2) * v3 + offset * (np.float32(1.0) + lobes)
    negative = offset * lobes - ((e1 - o1) * v1 + (e1 + o1) * v4)
    limit = max(clamping * positive, positive - offset - min(v2, v3))
    if (positive > np.float32(0.0)) & (negative > limit):
        negative = limit
    return positive - negative


@part(borrows=True, fastmath=_FAST)
def _vertical(window, row, a, b, f, kind, clamping, offset, to):
    """Interpolate columns a..b-1 of a window between its rows around `row`, plus offset."""
    n = to.size
    if kind == BILINEAR:
        v2, v3 = window[row, a:b], window[row + 1, a:b]
        for i in range(n):
            to[i] = offset + v2[i] + (f[i] + np.float32(0.5)) * (v3[i] - v2[i])
        return
    v0, v1, v2 = window[row - 2, a:b], window[row - 1, a:b], window[row, a:b]
    v3, v4, v5 = window[row + 1, a:b], window[row + 2, a:b], window[row + 3, a:b]
    for i in range(n):
        to[i] = _lanczos(f[i], v0[i], v1[i], v2[i], v3[i], v4[i], v5[i], offset, clamping)


@part(borrows=True, fastmath=_FAST)
def _horizontal(line, start, fraction, kind, clamping, gain, sky, to):
    """Interpolate along a line of source columns; to = gain * value - sky."""
    n = to.size
    zero = np.float32(0.0)
    if kind == BILINEAR:
        v2, v3 = line[start : start + n], line[start + 1 : start + 1 + n]
        for i in range(n):
            to[i] = gain * (v2[i] + (fraction[i] + np.float32(0.5)) * (v3[i] - v2[i])) - sky[i]
        return
    v0, v1, v2 = line[start - 2 : start - 2 + n], line[start - 1 : start - 1 + n], line[start : start + n]
    v3, v4, v5 = line[start + 1 : start + 1 + n], line[start + 2 : start + 2 + n], line[start + 3 : start + 3 + n]
    for i in range(n):
        to[i] = gain * _lanczos(fraction[i], v0[i], v1[i], v2[i], v3[i], v4[i], v5[i], zero, clamping) - sky[i]


@part(borrows=True)
def _sky_row(surface, sy0, sx0, row, x0, gain, offset, sky):
    """Sky of one canvas row, bilinear between nodes, as it is subtracted: (b + offset) * gain."""
    k = row // SURFACE_NODE
    t = np.float32(row - k * SURFACE_NODE) / np.float32(SURFACE_NODE)
    upper, lower = surface[k - sy0], surface[k - sy0 + 1]
    column, x1 = x0, x0 + sky.size
    while column < x1:
        j = column // SURFACE_NODE
        end = min(x1, (j + 1) * SURFACE_NODE)
        b0 = upper[j - sx0] + t * (lower[j - sx0] - upper[j - sx0])
        b1 = upper[j - sx0 + 1] + t * (lower[j - sx0 + 1] - upper[j - sx0 + 1])
        b0 = (b0 + offset) * gain
        slope = ((b1 + offset) * gain - b0) / np.float32(SURFACE_NODE)
        begin = column - j * SURFACE_NODE
        _ramp(b0, slope, np.float32(begin), sky[column - x0 : end - x0])
        column = end


@part(borrows=True)
def _gather_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, sky, taps, places, to):
    """Resample canvas columns [a, b) of a row with 36 taps per pixel, or 4."""
    kind, clamping, offset, _ = method
    pixels, pitch = window.reshape(window.size), window.shape[1]
    for start in range(a, b, _AT_ONCE):
        stop = min(b, start + _AT_ONCE)
        n = stop - start
        s, t, at = taps[12, :n], taps[13, :n], places[0, :n]
        column = start
        while column < stop:
            k = column // NODE - first
            i, j = column - start, min(stop, (first + k + 1) * NODE) - start
            _find_places(xs[k : k + 2], ys[k : k + 2], column % NODE, wy0, wx0, pitch, s[i:j], t[i:j], at[i:j])
            column = start + j
        into, under = to[start - a : stop - a], sky[start - a : stop - a]
        if kind == BILINEAR:
            _mix_four(pixels, pitch, at, s, t, offset, gain, under, into)
        else:
            for r in range(6):
                _take_taps(pixels, (r - 2) * pitch - 2, 1, at, taps)
                _mix_six(taps, 0, s, clamping, offset, taps[6 + r, :n])
            _mix_six(taps, 6, t, clamping, np.float32(0.0), into)
            _scale_row(gain, under, into)


@part(borrows=True)
def _find_places(xs, ys, start, wy0, wx0, pitch, s, t, at):
    """Fractions - 1/2 of the positions between two nodes, and the places of the pixels left above them in the window."""
    dx, dy = xs[1] - xs[0], ys[1] - ys[0]
    for i in range(at.size):
        along = float(start + i) / NODE
        x, y = xs[0] + along * dx, ys[0] + along * dy
        j, k = np.floor(x), np.floor(y)
        s[i], t[i] = np.float32(x - j - 0.5), np.float32(y - k - 0.5)
        at[i] = (np.int64(k) - wy0) * pitch + np.int64(j) - wx0


@part(borrows=True)
def _take_taps(pixels, offset, step, at, taps):
    """Copy six neighbors of each place side by side: computing with them is vector code then."""
    v0, v1, v2, v3, v4, v5 = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5]
    for i in range(at.size):
        j = at[i] + offset
        v0[i], v1[i], v2[i] = pixels[np.uint64(j)], pixels[np.uint64(j + step)], pixels[np.uint64(j + 2 * step)]
        j += 3 * step
        v3[i], v4[i], v5[i] = pixels[np.uint64(j)], pixels[np.uint64(j + step)], pixels[np.uint64(j + 2 * step)]


@part(borrows=True, fastmath=_FAST)
def _mix_six(taps, first, s, clamping, offset, to):
    """Lanczos-3 of six rows of taps from the first on, plus offset."""
    v0, v1, v2 = taps[first], taps[first + 1], taps[first + 2]
    v3, v4, v5 = taps[first + 3], taps[first + 4], taps[first + 5]
    for i in range(to.size):
        to[i] = _lanczos(s[i], v0[i], v1[i], v2[i], v3[i], v4[i], v5[i], offset, clamping)


@part(borrows=True, fastmath=_FAST)
def _mix_four(pixels, pitch, at, s, t, offset, gain, sky, to):
    """Bilinear value of four neighbors; to = gain * value - sky."""
    half = np.float32(0.5)
    for i in range(to.size):
        j = at[i]
        upper, lower = pixels[np.uint64(j)], pixels[np.uint64(j + pitch)]
        upper += (s[i] + half) * (pixels[np.uint64(j + 1)] - upper)
        lower += (s[i] + half) * (pixels[np.uint64(j + pitch + 1)] - lower)
        to[i] = gain * (offset + upper + (t[i] + half) * (lower - upper)) - sky[i]


@kernel(borrows=True)
def warp_plane(part, height, width, matrix, method, sky_terms, target, scratch):
    """Resample a plane onto canvas rows: cube[i, plane, j] = (value - sky) * gain.

    Parameters
    ----------
    part : Part                   the plane around what the rows need (`HALO` pixels more), float32, edges mirrored
    height, width : int           shape of the plane; positions outside [0, height-1] x [0, width-1] give `MISSING`
    matrix : (3, 3) float64       canvas pixel (x, y, 1) to plane pixel
    method, sky_terms, target, scratch : Method, Sky, Target, Scratch

    Returns
    -------
    int
        number of samples
    """
    window, wy0, wx0 = part
    _, _, offset, stride = method
    surface, sy0, sx0, gain = sky_terms
    cube, plane, y0, x0, columns, halo = target
    floats, _, nodes, taps, places = scratch
    x1 = x0 + columns
    first = (x0 - NODE) // NODE
    n_nodes = (x1 - 1 + NODE) // NODE + 2 - first
    xs, ys = nodes[0, :n_nodes], nodes[1, :n_nodes]
    sky = floats[0, :columns]
    samples = 0
    for r in range(cube.shape[0]):
        row = y0 + r
        to = cube[r, plane, :columns]
        _nodes(matrix, float(row), first, xs, ys)
        a, b = _reach(xs, ys, first, x0, x1, height, width)
        to[: a - x0] = MISSING
        to[b - x0 :] = MISSING
        if b <= a:
            continue
        if r >= halo and r < cube.shape[0] - halo:
            samples += max(0, min(b, x1 - halo) - max(a, x0 + halo))
        _sky_row(surface, sy0, sx0, row, x0, gain, offset, sky)
        own, under = to[a - x0 : b - x0], sky[a - x0 : b - x0]
        if stride == 0:
            _gather_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, under, taps, places, own)
        elif stride == 1:
            _warp_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, under, scratch, own)
        else:
            n, middle = b - a, _number(0, a, b, 2)
            apart, skies = floats[4, :n], floats[5, :n]
            part_pairs(under, skies[:middle], skies[middle:])
            _warp_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, skies, scratch, apart)
            join_pairs(apart[:middle], apart[middle:], own)
    return samples


@part(borrows=True)
def _warp_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, sky, scratch, to):
    """Resample canvas columns [a, b) of a row in two passes; sky and result lie in the places of `_along_row`."""
    kind, clamping, offset, stride = method
    floats, runs, _, taps, places = scratch
    line, up, along = floats[1], floats[2], floats[3]
    columns, rows = places[0], places[1]
    n = _along_row(xs, first, a, b, stride, along, columns, runs)
    c0, c1 = _columns_of(columns, runs, n)
    c0, c1 = c0 - 2, c1 + 4
    m = _up_columns(xs, ys, c0, c1, up, rows, runs[n:])
    for i in range(n, n + m):
        start, stop = runs[i, 0], runs[i, 1]
        if runs[i, 2] == _SCATTERED:
            _vertical_scattered(window, wy0, wx0 - c0, start, stop, up, rows, kind, clamping, offset, taps, line)
            continue
        left, row = start + c0 - wx0, runs[i, 2] - wy0
        _vertical(window, row, left, left + stop - start, up[start:stop], kind, clamping, offset, line[start:stop])
    for i in range(n):
        start, stop, at = runs[i, 0], runs[i, 1], runs[i, 0] + runs[i, 2] - c0
        if runs[i, 2] == _SCATTERED:
            _horizontal_scattered(line, c0, start, stop, along, columns, kind, clamping, gain, sky, taps, to)
            continue
        _horizontal(line, at, along[start:stop], kind, clamping, gain, sky[start:stop], to[start:stop])


@part(borrows=True)
def _columns_of(columns, runs, n):
    """First and last source column left of a position of n runs."""
    first, last = np.int64(1 << 62), np.int64(-(1 << 62))
    for i in range(n):
        start, end, value = runs[i, 0], runs[i, 1] - 1, runs[i, 2]
        scattered = value == _SCATTERED
        first = min(first, columns[start] if scattered else start + value)
        last = max(last, columns[end] if scattered else end + value)
    return first, last


@part(borrows=True)
def _vertical_scattered(window, wy0, wx0, start, stop, fraction, rows, kind, clamping, offset, taps, to):
    """As `_vertical`, each column between rows of its own; columns count from wx0 of the window."""
    pixels, pitch = window.reshape(window.size), window.shape[1]
    for first in range(start, stop, _AT_ONCE):
        end = min(stop, first + _AT_ONCE)
        for i in range(first, end):
            rows[i] = (rows[i] - wy0) * pitch + i - wx0
        if kind == BILINEAR:
            for i in range(first, end):
                above, below = pixels[np.uint64(rows[i])], pixels[np.uint64(rows[i] + pitch)]
                to[i] = offset + above + (fraction[i] + np.float32(0.5)) * (below - above)
            continue
        _take_taps(pixels, -2 * pitch, pitch, rows[first:end], taps)
        _mix_six(taps, 0, fraction[first:end], clamping, offset, to[first:end])


@part(borrows=True)
def _horizontal_scattered(line, c0, start, stop, fraction, columns, kind, clamping, gain, sky, taps, to):
    """As `_horizontal`, of a line that begins at column c0."""
    for first in range(start, stop, _AT_ONCE):
        end = min(stop, first + _AT_ONCE)
        if kind == BILINEAR:
            for i in range(first, end):
                left, right = line[np.uint64(columns[i] - c0)], line[np.uint64(columns[i] - c0 + 1)]
                to[i] = left + (fraction[i] + np.float32(0.5)) * (right - left)
        else:
            _take_taps(line, -2 - c0, 1, columns[first:end], taps)
            _mix_six(taps, 0, fraction[first:end], clamping, np.float32(0.0), to[first:end])
        _scale_row(gain, sky[first:end], to[first:end])


@part(borrows=True, fastmath=_FAST)
def _scale_row(gain, sky, to):
    """To = gain * to - sky."""
    for i in range(to.size):
        to[i] = gain * to[i] - sky[i]
