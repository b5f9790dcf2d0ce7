"""Calibration frames combined: mean of each pixel's samples after winsorized sigma clipping.

In   a band of aligned frames (rows, frames, columns) float32, NaN or `MISSING` (1e30) where there is none
Out  the mean of what is kept, summed in float64 in the order of the frames
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import PRESENT
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.robust.winsorized_lanes import bound_winsorized, room_for_lanes

__all__ = ["combine_winsorized"]


def combine_winsorized(stack: np.ndarray, *, low: float, high: float, out: np.ndarray | None = None) -> np.ndarray:
    """Mean of calibration frames after winsorized sigma clipping.

    Parameters
    ----------
    stack : (rows, n, columns) float32    samples of each pixel along axis 1; `MISSING` or NaN where there is none
    low, high : float                     limits in sigma
    out : (rows, columns) float32 or None     written when given

    Returns
    -------
    (rows, columns) float32
        NaN where a pixel has no sample

    Examples
    --------
    >>> samples = np.array([99, 100, 101, 100, 500], np.float32)
    >>> combine_winsorized(samples[None, :, None], low=3, high=3)
    array([[100.]], dtype=float32)
    """
    if out is None:
        out = np.empty((stack.shape[0], stack.shape[2]), np.float32)
    _combine(np.ascontiguousarray(stack, np.float32), np.array([low, high], float), room_for_lanes(stack.shape[1]), out)
    return out


@kernel
def _combine(stack, limits, blocks, out):
    """All pixels: their bounds, and the mean of what lies between."""
    rows, columns = out.shape
    lowest, highest = np.empty((rows, columns), np.float32), np.empty((rows, columns), np.float32)
    bound_winsorized(stack, 0, columns, limits, blocks, lowest, highest)
    total, kept = np.empty(columns), np.empty(columns, np.int32)
    for y in range(rows):
        _mean_between(stack[y], lowest[y], highest[y], total, kept, out[y])


@part(borrows=True)
def _mean_between(row, lowest, highest, total, kept, out):
    """Mean of the samples between bounds."""
    total[:] = 0.0
    kept[:] = 0
    for k in range(row.shape[0]):
        source = row[k]
        for i in range(out.size):
            v = source[i]
            keep = (v >= lowest[i]) & (v <= highest[i]) & (v > -PRESENT)
            total[i] += v if keep else np.float32(0.0)
            kept[i] += np.int32(keep)
    for i in range(out.size):
        out[i] = total[i] / kept[i] if kept[i] > 0 else np.nan
