"""Which pixels of a sub's window may be poured: good ones, those in need only, and none."""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.resample.window import first_from

__all__ = ["NONE", "SPARE", "USED", "mark_use"]

USED, SPARE, NONE = np.uint8(0), np.uint8(1), np.uint8(2)


@kernel(borrows=True)
def mark_use(use, y0, x0, height, width, missing, saturated, defects, lines):
    """Say of every pixel of a window how it is used.

    Defects, clipped pixels and what lies on a trail are spare: they count where no other drop falls. Pixels outside of
    the sub, and those without data, are none.

    Parameters
    ----------
    use : (h, w) uint8          written; its first pixel is (y0, x0) of the sub and may lie outside
    height, width : int         of the sub
    missing : uint8             like `use`, 1: no data; (0, 0): none is missing
    saturated, defects : int32  sorted flat indices into the sub
    lines : (m, 5) float64      y0, x0, y1, x1, half width of trails in the sub's pixels (flat ends)
    """
    h, w = use.shape
    for i in range(h):
        for j in range(w):
            inside = y0 + i >= 0 and x0 + j >= 0 and y0 + i < height and x0 + j < width
            use[i, j] = USED if inside else NONE
    _mark_spare(use, y0, x0, height, width, saturated)
    _mark_spare(use, y0, x0, height, width, defects)
    for m in range(lines.shape[0]):
        _mark_line(use, y0, x0, lines[m])
    for i in range(missing.shape[0]):
        for j in range(missing.shape[1]):
            if missing[i, j] > 0:
                use[i, j] = NONE


@part(borrows=True)
def _mark_spare(use, y0, x0, height, width, indices):
    """Mark the pixels of a sorted list as spare."""
    for i in range(max(0, -y0), min(use.shape[0], height - y0)):
        origin = np.int64(y0 + i) * width
        at = first_from(indices, origin + max(x0, 0))
        while at < indices.size and indices[at] < origin + min(x0 + use.shape[1], width):
            use[i, indices[at] - origin - x0] = SPARE
            at += 1


@part(borrows=True)
def _mark_line(use, y0, x0, line):
    """Mark what lies on a trail as spare."""
    ly, lx = line[2] - line[0], line[3] - line[1]
    length = np.hypot(ly, lx)
    if length == 0.0:
        return
    ly, lx, half = ly / length, lx / length, line[4]
    top = int(np.floor(min(line[0], line[2]) - half)) - y0
    bottom = int(np.ceil(max(line[0], line[2]) + half)) - y0
    left = int(np.floor(min(line[1], line[3]) - half)) - x0
    right = int(np.ceil(max(line[1], line[3]) + half)) - x0
    for i in range(max(top, 0), min(bottom + 1, use.shape[0])):
        for j in range(max(left, 0), min(right + 1, use.shape[1])):
            dy, dx = y0 + i - line[0], x0 + j - line[1]
            along = dx * lx + dy * ly
            if abs(dx * ly - dy * lx) <= half and along >= 0.0 and along <= length and use[i, j] == USED:
                use[i, j] = SPARE
