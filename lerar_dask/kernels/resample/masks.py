"""Leave samples out of a cube: on trails, and where a void, a clipped pixel or a defect touches their footprint.

In   a plane of the cube (rows, planes, columns) float32 of resampled samples, the transform it was made with
Out  `MISSING` in their place; counts; sums of what was left out, for pixels where no other sub has a sample
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.resample.window import first_from

__all__ = ["drop_footprints", "drop_lines", "drop_missing"]


@kernel(borrows=True)
def drop_footprints(defects, sub, lattice, target, fallback):
    """Take samples out of a cube whose bilinear footprint touches a defect by more than 2 %.

    Parameters
    ----------
    defects : int32                  sorted flat indices into the sub
    sub : SubTerms
    lattice : Lattice                that the plane was taken from
    target, fallback : Target, Fallback

    Returns
    -------
    int
        number of samples taken out
    """
    matrix, inverse, height, width = sub.matrix, sub.inverse, sub.height, sub.width
    step, phase_y, phase_x = lattice
    cube, plane, y0, x0, columns, halo = target
    sums, weight, variance = fallback
    low_y, high_y, low_x, high_x = _bounds(matrix, y0, x0, cube.shape[0], columns, height, width)
    across = 1.05 * step * (abs(inverse[0, 0]) + abs(inverse[0, 1]))
    down = 1.05 * step * (abs(inverse[1, 0]) + abs(inverse[1, 1]))
    dropped = 0
    for y in range(low_y, high_y):
        if y % step != phase_y:
            continue
        at = first_from(defects, np.int64(y) * width + low_x)
        while at < defects.size and defects[at] < np.int64(y) * width + high_x:
            x = int(defects[at] - np.int64(y) * width)
            at += 1
            if x % step != phase_x:
                continue
            z = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
            center_x = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / z
            center_y = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / z
            for i in range(max(y0, int(np.ceil(center_y - down))), min(y0 + cube.shape[0], int(center_y + down) + 1)):
                for j in range(max(x0, int(np.ceil(center_x - across))), min(x0 + columns, int(center_x + across) + 1)):
                    value = cube[i - y0, plane, j - x0]
                    if value == MISSING:
                        continue
                    z = 1.0 / (matrix[2, 0] * j + matrix[2, 1] * i + matrix[2, 2])
                    dx = abs((matrix[0, 0] * j + matrix[0, 1] * i + matrix[0, 2]) * z - x) / step
                    dy = abs((matrix[1, 0] * j + matrix[1, 1] * i + matrix[1, 2]) * z - y) / step
                    if dx < 1.0 and dy < 1.0 and (1.0 - dx) * (1.0 - dy) > 0.02:
                        sums[0, i - y0, j - x0] += weight * value
                        sums[1, i - y0, j - x0] += weight
                        sums[2, i - y0, j - x0] += 1.0
                        sums[3, i - y0, j - x0] += weight * weight * variance
                        cube[i - y0, plane, j - x0] = MISSING
                        dropped += _counted(i - y0, j - x0, cube.shape[0], columns, halo)
    return dropped


@part(borrows=True)
def drop_missing(part, matrix, lattice, target):
    """Take samples out of a cube whose bilinear footprint touches a pixel without data by more than 2 %.

    Nothing of them is kept: what was no sample is not used in need either.

    Parameters
    ----------
    part : Part                      of the sub, uint8: 1 where it has no data
    matrix : (3, 3)                  canvas pixel to sub pixel
    lattice, target : Lattice, Target

    Returns
    -------
    int
        number of samples taken out
    """
    missing, wy0, wx0 = part
    step, phase_y, phase_x = lattice
    cube, plane, y0, x0, columns, halo = target
    height, width = missing.shape
    dropped = 0
    for i in range(cube.shape[0]):
        for j in range(columns):
            if cube[i, plane, j] == MISSING:
                continue
            z = 1.0 / (matrix[2, 0] * (x0 + j) + matrix[2, 1] * (y0 + i) + matrix[2, 2])
            x = ((matrix[0, 0] * (x0 + j) + matrix[0, 1] * (y0 + i) + matrix[0, 2]) * z - phase_x) / step
            y = ((matrix[1, 0] * (x0 + j) + matrix[1, 1] * (y0 + i) + matrix[1, 2]) * z - phase_y) / step
            bx, by = np.floor(x), np.floor(y)
            tx, ty = x - bx, y - by
            touched = False
            for b in range(2):
                for a in range(2):
                    share = (tx if a == 1 else 1.0 - tx) * (ty if b == 1 else 1.0 - ty)
                    v = int(by + b) * step + phase_y - wy0
                    u = int(bx + a) * step + phase_x - wx0
                    if share > 0.02 and v >= 0 and u >= 0 and v < height and u < width and missing[v, u] > 0:
                        touched = True
            if touched:
                cube[i, plane, j] = MISSING
                dropped += _counted(i, j, cube.shape[0], columns, halo)
    return dropped


@part(inline="always")
def _counted(i, j, rows, columns, halo):
    """1 inside the halo, 0 in it."""
    return 1 if i >= halo and j >= halo and i < rows - halo and j < columns - halo else 0


@kernel(borrows=True)
def _bounds(matrix, y0, x0, rows, columns, height, width):
    """Sub pixels around a canvas window: y from, y to, x from, x to."""
    low_x, high_x, low_y, high_y = 1e18, -1e18, 1e18, -1e18
    for i in (y0, y0 + rows - 1):
        for j in (x0, x0 + columns - 1):
            z = matrix[2, 0] * j + matrix[2, 1] * i + matrix[2, 2]
            x = (matrix[0, 0] * j + matrix[0, 1] * i + matrix[0, 2]) / z
            y = (matrix[1, 0] * j + matrix[1, 1] * i + matrix[1, 2]) / z
            low_x, high_x = min(low_x, x), max(high_x, x)
            low_y, high_y = min(low_y, y), max(high_y, y)
    return (
        max(0, int(np.floor(low_y)) - 2),
        min(height, int(np.ceil(high_y)) + 3),
        max(0, int(np.floor(low_x)) - 2),
        min(width, int(np.ceil(high_x)) + 3),
    )


@kernel(borrows=True)
def drop_lines(lines, matrix, target, high, fallback):
    """Take samples out of a cube that lie on trails, and count them.

    Parameters
    ----------
    lines : (m, 5) float64           y0, x0, y1, x1, half width of segments in the sub's pixels (flat ends)
    matrix : (3, 3) float64          canvas pixel to sub pixel
    target, fallback : Target, Fallback
    high : (rows, columns) int32     counts samples left out

    Returns
    -------
    int
        number of samples taken out
    """
    cube, plane, y0, x0, columns, halo = target
    sums, weight, variance = fallback
    dropped = 0
    for m in range(lines.shape[0]):
        ly, lx = lines[m, 2] - lines[m, 0], lines[m, 3] - lines[m, 1]
        length = np.hypot(ly, lx)
        ly, lx = ly / length, lx / length
        for r in range(cube.shape[0]):
            # rows are short: test the row's ends first, since most rows of a strip are far from the line
            near = _off_line(lines, m, matrix, float(x0), float(y0 + r), ly, lx)[0]
            far = _off_line(lines, m, matrix, float(x0 + columns - 1), float(y0 + r), ly, lx)[0]
            if (near > 0.0) == (far > 0.0) and min(abs(near), abs(far)) > lines[m, 4] + 1.0:
                continue
            for j in range(columns):
                across, along = _off_line(lines, m, matrix, float(x0 + j), float(y0 + r), ly, lx)
                if abs(across) <= lines[m, 4] and along >= 0.0 and along <= length and cube[r, plane, j] != MISSING:
                    sums[0, r, j] += weight * cube[r, plane, j]
                    sums[1, r, j] += weight
                    sums[2, r, j] += 1.0
                    sums[3, r, j] += weight * weight * variance
                    cube[r, plane, j] = MISSING
                    high[r, j] += 1
                    dropped += _counted(r, j, cube.shape[0], columns, halo)
    return dropped


@part(borrows=True)
def _off_line(lines, m, matrix, column, row, ly, lx):
    """Distance of a canvas pixel from a line, and where along it, in sub pixels."""
    z = matrix[2, 0] * column + matrix[2, 1] * row + matrix[2, 2]
    x = (matrix[0, 0] * column + matrix[0, 1] * row + matrix[0, 2]) / z - lines[m, 1]
    y = (matrix[1, 0] * column + matrix[1, 1] * row + matrix[1, 2]) / z - lines[m, 0]
    return x * ly - y * lx, x * lx + y * ly
