"""Detections on a straight line: beads of a satellite's or plane's trail, brighter than the stars that are looked for."""

from __future__ import annotations

import numpy as np

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
    i, j = np.triu_indices(len(xy), 1)
    along = xy[j] - xy[i]
    length = np.hypot(*along.T)
    apart = length > 20 * _WIDTH_PX  # two beads side by side tell no direction
    if len(xy) < _LEAST or not apart.any():
        return None
    point, along = xy[i[apart]], along[apart] / length[apart, None]
    off = xy[None] - point[:, None]
    count = (np.abs(off[..., 0] * along[:, None, 1] - off[..., 1] * along[:, None, 0]) < _WIDTH_PX).sum(axis=1)
    best = int(count.argmax())
    return (point[best], along[best]) if count[best] >= _LEAST else None


def _beside(xy: np.ndarray, point: np.ndarray, along: np.ndarray) -> np.ndarray:
    off = xy - point
    return np.asarray(np.abs(off[:, 0] * along[1] - off[:, 1] * along[0]) < _WIDTH_PX)
