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
from lerar_dask.kernels.resample.interpolation import (
    AT_ONCE,
    BILINEAR,
    LANCZOS3,
    gather_row,
    horizontal,
    horizontal_scattered,
    vertical,
    vertical_scattered,
)
from lerar_dask.kernels.resample.runs import (
    NODE,
    SCATTERED,
    along_row,
    first_and_last,
    number_of,
    position_at,
    ramp,
    row_nodes,
    up_columns,
)
from lerar_dask.kernels.resample.terms import Scratch

__all__ = ["BILINEAR", "HALO", "LANCZOS3", "choose_turn", "stride_of", "warp_plane", "warp_scratch"]

HALO = 6
"""Pixels that a window must hold around the positions it is sampled at (taps, drift along the line, repair)."""
SURFACE_NODE = 32
MAX_BEND = 0.43
"""Departure from the unit matrix (about 20 degrees) up to which two passes do: the farther apart source columns lie along the
line, the worse for sharp stars. At FWHM 2.6 px the error of 36 taps is exceeded by 2 % at 9 degrees, 13 % at 20, 44 % at 30."""


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
        taps=np.empty((14, AT_ONCE), np.float32),
        places=np.empty((2, width), np.int64),
    )


def _jacobian(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Derivative of the map where it meets the middle of the plane, (2, 2) d(x, y)/d(X, Y)."""
    middle = np.linalg.inv(matrix) @ np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2, 1.0])
    x, y, z = matrix @ (middle / middle[2])
    return (matrix[:2, :2] - np.outer([x / z, y / z], matrix[2, :2])) / z


@kernel(borrows=True)
def _inside(xs, ys, first, column, height, width):
    """Whether a canvas column's position lies within the rectangle of pixel centers."""
    x, y = position_at(xs, ys, first, column)
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
        ramp(b0, slope, np.float32(begin), sky[column - x0 : end - x0])
        column = end


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
        row_nodes(matrix, float(row), first, xs, ys)
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
            gather_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, under, taps, places, own)
        elif stride == 1:
            _warp_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, under, scratch, own)
        else:
            n, middle = b - a, number_of(0, a, b, 2)
            apart, skies = floats[4, :n], floats[5, :n]
            part_pairs(under, skies[:middle], skies[middle:])
            _warp_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, skies, scratch, apart)
            join_pairs(apart[:middle], apart[middle:], own)
    return samples


@part(borrows=True)
def _warp_row(window, wy0, wx0, xs, ys, first, a, b, method, gain, sky, scratch, to):
    """Resample canvas columns [a, b) of a row in two passes; sky and result lie in the places of `along_row`."""
    kind, clamping, offset, stride = method
    floats, runs, _, taps, places = scratch
    line, up, along = floats[1], floats[2], floats[3]
    columns, rows = places[0], places[1]
    n = along_row(xs, first, a, b, stride, along, columns, runs)
    c0, c1 = first_and_last(columns, runs, n)
    c0, c1 = c0 - 2, c1 + 4
    m = up_columns(xs, ys, c0, c1, up, rows, runs[n:])
    for i in range(n, n + m):
        start, stop = runs[i, 0], runs[i, 1]
        if runs[i, 2] == SCATTERED:
            vertical_scattered(window, wy0, wx0 - c0, start, stop, up, rows, kind, clamping, offset, taps, line)
            continue
        left, row = start + c0 - wx0, runs[i, 2] - wy0
        vertical(window, row, left, left + stop - start, up[start:stop], kind, clamping, offset, line[start:stop])
    for i in range(n):
        start, stop, at = runs[i, 0], runs[i, 1], runs[i, 0] + runs[i, 2] - c0
        if runs[i, 2] == SCATTERED:
            horizontal_scattered(line, c0, start, stop, along, columns, kind, clamping, gain, sky, taps, to)
            continue
        horizontal(line, at, along[start:stop], kind, clamping, gain, sky[start:stop], to[start:stop])
