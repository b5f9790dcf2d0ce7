"""Which frames hang together: chains of overlaps on the plane of the reference."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = ["chains_of"]

_ACROSS = 8
"""Cells along a frame; frames that share one overlap."""


def chains_of(transforms: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Number of the chain of overlapping frames that each frame belongs to.

    Frames count as overlapping when both have a point of their grids of 16 x 16 in one cell of the plane, an eighth of a
    typical frame wide: the work grows as the number of frames, not of pairs.

    Parameters
    ----------
    transforms : (n, 3, 3) float64     reference plane to frame
    boxes : (n, 4) int                 y0, y1, x0, x1 of what each frame holds

    Returns
    -------
    (n,) int
    """
    share = (np.arange(2 * _ACROSS) + 0.5) / (2 * _ACROSS)
    y0, y1, x0, x1 = (boxes[:, k, None].astype(float) for k in range(4))
    ys, xs = y0 + share * (y1 - y0 - 1), x0 + share * (x1 - x0 - 1)
    points = np.stack([*np.broadcast_arrays(xs[:, None, :], ys[:, :, None], 1.0)], axis=-1).reshape(len(boxes), -1, 3)
    mapped = points @ np.linalg.inv(transforms).transpose(0, 2, 1)
    plane = mapped[..., :2] / mapped[..., 2:]
    side = float(np.median(np.sqrt(np.prod(plane.max(axis=1) - plane.min(axis=1), axis=1)))) / _ACROSS
    cells = np.floor(plane / max(side, 1.0)).astype(np.int64)
    _, cell = np.unique(cells.reshape(-1, 2), axis=0, return_inverse=True)
    frame = np.repeat(np.arange(len(boxes)), points.shape[1])
    n = len(boxes) + int(cell.max()) + 1
    links = coo_matrix((np.ones(len(frame)), (frame, len(boxes) + cell.ravel())), shape=(n, n))
    return np.asarray(connected_components(links, directed=False)[1][: len(boxes)])
