"""Output grid, chunks, strips and windows: whole-number geometry in (y, x); no pixels.

Pixel centers lie at whole numbers. *Reference plane* = pixel coordinates (x, y) of the reference sub. The *canvas* is a
rectangle of that plane with a whole-number origin: canvas pixel (row i, column j) is the point
(x, y) = (j + origin_x, i + origin_y). A transform is a 3x3 float64 matrix that takes reference-plane (x, y, 1) to the
sub's pixel (x, y, 1) ("pull").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["CHUNK_SHAPE", "SURFACE_NODE_PX", "Canvas", "Window", "source_window"]

CHUNK_SHAPE = (256, 512)
"""Rows and columns of a master chunk = one integrate task. Never derived from memory or the number of subs."""
SURFACE_NODE_PX = 32
"""Sky surfaces are evaluated at canvas rows and columns that are multiples of this, and are bilinear between."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: rows y0..y1-1, columns x0..x1-1."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def empty(self) -> bool:
        """Whether no pixel is inside."""
        return self.y1 <= self.y0 or self.x1 <= self.x0

    def __and__(self, other: Window) -> Window:
        return Window(max(self.y0, other.y0), min(self.y1, other.y1), max(self.x0, other.x0), min(self.x1, other.x1))


@dataclass(frozen=True)
class Canvas:
    """The output grid of a target."""

    origin_yx: tuple[int, int]
    """Reference-plane (y, x) of canvas pixel (0, 0)."""
    shape: tuple[int, int]
    """Rows and columns."""

    @property
    def chunk_grid(self) -> tuple[int, int]:
        """Chunks in y and x."""
        return -(-self.shape[0] // CHUNK_SHAPE[0]), -(-self.shape[1] // CHUNK_SHAPE[1])

    def chunk(self, cy: int, cx: int) -> Window:
        """Canvas window of chunk (cy, cx), cut at the canvas's edge."""
        (h, w), (ny, nx) = CHUNK_SHAPE, self.shape
        return Window(cy * h, min((cy + 1) * h, ny), cx * w, min((cx + 1) * w, nx))

    def chunks(self) -> Iterator[tuple[int, int]]:
        """All chunk indices, row by row."""
        ny, nx = self.chunk_grid
        yield from ((cy, cx) for cy in range(ny) for cx in range(nx))

    @classmethod
    def union(cls, transforms: np.ndarray, boxes: np.ndarray) -> Canvas:
        """Smallest canvas that holds the valid area of every sub whole.

        Parameters
        ----------
        transforms : (n, 3, 3) float64     reference plane to sub
        boxes : (n, 4) int                 y0, y1, x0, x1 of each sub's valid area: rows y0..y1-1, columns x0..x1-1
        """
        corners = np.concatenate([_outline(t, box) for t, box in zip(transforms, boxes, strict=True)])
        low = np.floor(corners.min(axis=0) + 1e-6).astype(int)
        high = np.ceil(corners.max(axis=0) - 1e-6).astype(int)
        return cls((int(low[1]), int(low[0])), (int(high[1] - low[1] + 1), int(high[0] - low[0] + 1)))


def _outline(transform: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Corners of a sub's pixel centers in the reference plane, (4, 2) x, y."""
    y0, y1, x0, x1 = (int(v) for v in box)
    points = np.array([[x, y, 1] for y in (y0, y1 - 1) for x in (x0, x1 - 1)], float) @ np.linalg.inv(transform).T
    return points[:, :2] / points[:, 2:]


def source_window(
    transform: np.ndarray, canvas: Canvas, window: Window, shape: tuple[int, int], *, halo: int
) -> Window:
    """Pixels of a sub that a canvas window needs, cut at the sub's edge (may be empty).

    Parameters
    ----------
    transform : (3, 3) float64     reference plane to sub
    halo : int                     support of the interpolation kernel, in pixels
    """
    oy, ox = canvas.origin_yx
    ys = np.array([window.y0, window.y0, window.y1 - 1, window.y1 - 1], float) + oy
    xs = np.array([window.x0, window.x1 - 1, window.x0, window.x1 - 1], float) + ox
    points = np.stack([xs, ys, np.ones(4)], axis=1) @ transform.T
    points = points[:, :2] / points[:, 2:]
    low = np.floor(points.min(axis=0)).astype(int) - halo
    high = np.ceil(points.max(axis=0)).astype(int) + halo + 1
    return Window(int(low[1]), int(high[1]), int(low[0]), int(high[0])) & Window(0, shape[0], 0, shape[1])
