"""Lanczos-3 with clamping, and bilinear: along columns, along rows, and with all 36 taps of a pixel.

In   rows of a plane, fractions of positions, taps
Out  values; sky and scale are taken off in the last pass

Loops over runs are vector code as they stand. Taps of scattered pixels are copied side by side first: as they lie, the
compiler would take them one by one.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import part
from lerar_dask.kernels.resample.runs import NODE

__all__ = [
    "AT_ONCE",
    "BILINEAR",
    "LANCZOS3",
    "gather_row",
    "horizontal",
    "horizontal_scattered",
    "vertical",
    "vertical_scattered",
]

LANCZOS3, BILINEAR = 0, 1
AT_ONCE = 256
"""Pixels whose taps are gathered at once: so many stay in the fastest cache."""

_FAST = {"contract", "nsz", "arcp"}


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
def vertical(window, row, a, b, f, kind, clamping, offset, to):
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
def horizontal(line, start, fraction, kind, clamping, gain, sky, to):
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
def vertical_scattered(window, wy0, wx0, start, stop, fraction, rows, kind, clamping, offset, taps, to):
    """As `vertical`, each column between rows of its own; columns count from wx0 of the window."""
    pixels, pitch = window.reshape(window.size), window.shape[1]
    for first in range(start, stop, AT_ONCE):
        end = min(stop, first + AT_ONCE)
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
def horizontal_scattered(line, c0, start, stop, fraction, columns, kind, clamping, gain, sky, taps, to):
    """As `horizontal`, of a line that begins at column c0."""
    for first in range(start, stop, AT_ONCE):
        end = min(stop, first + AT_ONCE)
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
    """Scale a row and take its sky off: gain * to - sky."""
    for i in range(to.size):
        to[i] = gain * to[i] - sky[i]


@part(borrows=True)
def gather_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, sky, taps, places, to):
    """Resample canvas columns [a, b) of a row with 36 taps per pixel, or 4."""
    kind, clamping, offset, _ = method
    pixels, pitch = window.reshape(window.size), window.shape[1]
    for start in range(a, b, AT_ONCE):
        stop = min(b, start + AT_ONCE)
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
