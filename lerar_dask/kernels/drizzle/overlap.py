"""Area that a parallelogram has in common with pixels, exactly.

Green's theorem: the sum over the edges of the area between an edge and the pixel's lower side, each cut to the pixel. Edges
are laid once for a drop and cut once for a column; what is left for a pixel is a mean of heights.
"""

from __future__ import annotations

from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = ["cut_edges", "lay_edges", "overlap"]

_FLAT = 1e-7
"""Rise of an edge below which it counts as level: the formula of a slope would lose its digits."""


@kernel(borrows=True)
def lay_edges(x, y, xu, xv, yu, yv, edges):
    """Edges of the parallelogram about (x, y) with corners at +- (xu, yu) +- (xv, yv).

    Parameters
    ----------
    edges : (4, 4) float64     written: x and y of the first corner, x of the second, slope (0 where upright)
    """
    cx0, cy0 = x - xu - xv, y - yu - yv
    cx1, cy1 = x + xu - xv, y + yu - yv
    cx2, cy2 = x + xu + xv, y + yu + yv
    cx3, cy3 = x - xu + xv, y - yu + yv
    _lay(edges[0], cx0, cy0, cx1, cy1)
    _lay(edges[1], cx1, cy1, cx2, cy2)
    _lay(edges[2], cx2, cy2, cx3, cy3)
    _lay(edges[3], cx3, cy3, cx0, cy0)


@part(inline="always")
def _lay(edge, x0, y0, x1, y1):
    """Write one edge."""
    edge[0], edge[1], edge[2] = x0, y0, x1
    edge[3] = (y1 - y0) / (x1 - x0) if x1 != x0 else 0.0


@kernel(borrows=True)
def cut_edges(edges, column, across):
    """Parts of the edges within a column of pixels.

    Parameters
    ----------
    column : float             pixel centers at whole numbers
    across : (4, 3) float64    written: width (negative when the edge runs to the left), height at both ends
    """
    left, right = column - 0.5, column + 0.5
    for k in range(4):
        x0, y0, x1, slope = edges[k, 0], edges[k, 1], edges[k, 2], edges[k, 3]
        a, b = min(max(x0, left), right), min(max(x1, left), right)
        across[k, 0] = b - a
        across[k, 1], across[k, 2] = y0 + (a - x0) * slope, y0 + (b - x0) * slope


@kernel(borrows=True)
def overlap(across, row):
    """Area within the pixel of a row, in the column that the edges were cut to; its sign is that of the way around."""
    bottom, area = row - 0.5, 0.0
    for k in range(4):
        if across[k, 0] != 0.0:
            area += across[k, 0] * _mean_height(across[k, 1] - bottom, across[k, 2] - bottom)
    return area


@part(inline="always")
def _mean_height(p, q):
    """Mean of what is cut to 0..1 of a straight rise from p to q."""
    low, high = min(p, q), max(p, q)
    if low >= 0.0 and high <= 1.0:
        return 0.5 * (p + q)
    if low >= 1.0:
        return 1.0
    if high <= 0.0:
        return 0.0
    if high - low < _FLAT:
        return min(max(0.5 * (p + q), 0.0), 1.0)
    return (_primitive(high) - _primitive(low)) / (high - low)


@part(inline="always")
def _primitive(y):
    """Integral from 0 to y of what is cut to 0..1."""
    cut = max(y, 0.0)
    return 0.5 * cut * cut if cut <= 1.0 else cut - 0.5
