"""Detections on a straight line: beads of a satellite's or plane's trail, brighter than the stars that are looked for."""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel

__all__ = ["off_lines"]

_BRIGHT = 60
"""Brightest points that are looked through, in all pairs."""
_WIDTH_PX = 2.5
_LEAST = 10
"""Points on a line; of 60 stars on a frame of 0.1 Mpix so many lie within its width by chance once in a hundred frames."""


def off_lines(xy: np.ndarray) -> np.ndarray:
    """Which points lie on none of the lines that many of the brightest share.

    Parameters
    ----------
    xy : (n, 2) float     brightest first

    Returns
    -------
    (n,) bool
    """
    keep = np.ones(len(xy), bool)
    while (line := _fullest(xy[keep][:_BRIGHT])) is not None:
        keep &= ~_beside(xy, *line)
    return keep


def _fullest(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Point and direction of the line through two points that most others lie on; None where that is few."""
    if len(xy) < _LEAST:
        return None
    count, i, j = _most_beside(np.ascontiguousarray(xy, np.float64), _WIDTH_PX, 20 * _WIDTH_PX)
    if count < _LEAST:
        return None
    along = xy[j] - xy[i]
    return xy[i], along / np.hypot(*along)


@kernel(borrows=True)
def _most_beside(xy, width, apart):
    """How many points lie beside the line through the best pair of them, and that pair (the first of equal ones).

    Pairs nearer than `apart` are left out: two beads side by side tell no direction.
    """
    most, first, second = 0, 0, 0
    for i in range(xy.shape[0]):
        for j in range(i + 1, xy.shape[0]):
            along_x, along_y = xy[j, 0] - xy[i, 0], xy[j, 1] - xy[i, 1]
            length = np.hypot(along_x, along_y)
            if length <= apart:
                continue
            along_x, along_y = along_x / length, along_y / length
            count = 0
            for k in range(xy.shape[0]):
                off = (xy[k, 0] - xy[i, 0]) * along_y - (xy[k, 1] - xy[i, 1]) * along_x
                count += abs(off) < width
            if count > most:
                most, first, second = count, i, j
    return most, first, second


def _beside(xy: np.ndarray, point: np.ndarray, along: np.ndarray) -> np.ndarray:
    off = xy - point
    return np.asarray(np.abs(off[:, 0] * along[1] - off[:, 1] * along[0]) < _WIDTH_PX)
