"""What belongs together when drops are poured, as named tuples that compiled kernels take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["GAUSSIAN", "KERNELS", "POINT", "SQUARE", "SUMS", "Drop", "Fine", "Rules"]

SQUARE, GAUSSIAN, POINT = range(3)
KERNELS = {"square": SQUARE, "gaussian": GAUSSIAN, "point": POINT}
SUMS = ("light", "weight", "white", "growth", "share", "spare_light", "spare_weight", "spare_white", "spare_share")
"""Sums over drops, a = share of a drop in a pixel: a w d, a w, a w^2 A, a w^2 B, a; and of spare drops a w d,
a w, a w^2 A, a."""


class Drop(NamedTuple):
    """Shape of a drop."""

    kernel: int
    """SQUARE, GAUSSIAN or POINT."""
    size: float
    """Side of a drop along that of its pixel, 0 to 1."""


class Fine(NamedTuple):
    """Where drops go."""

    sums: np.ndarray
    """(rows, columns, 9) float64, added to; `SUMS` of each fine pixel."""
    scale: int
    """Fine pixels along one of the canvas."""
    y0: int
    """Fine pixel of the canvas at sums[0, 0]."""
    x0: int


class Rules(NamedTuple):
    """What counts of a sub, and how much."""

    use: np.ndarray
    """(h, w) uint8 like the sub's window: USED, SPARE or NONE."""
    rejected: np.ndarray
    """(rows, columns) uint8 on the canvas: 1 where rejection took the sub's sample out."""
    y0: int
    """Canvas pixel at rejected[0, 0]."""
    x0: int
    model: np.ndarray
    """(gx, gy, 3) float32 of the sub by canvas cells of 128 px: weight, variance of a pixel at the sky A, its growth per
    ADU of signal B."""
    cell_y0: int
    """Cell of the canvas at model[0, 0]."""
    cell_x0: int
