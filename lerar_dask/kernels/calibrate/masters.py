"""Calibration frames combined: mean of each pixel's samples after winsorized sigma clipping.

In   a band of aligned frames (rows, frames, columns) float32, NaN or `MISSING` (1e30) where there is none
Out  the mean of what is kept, summed in float64 in the order of the frames

A vector pass proves for whole pixels that winsorized clipping leaves nothing out; the others are decided one by one.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING, PRESENT
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.robust.sorting import LANES, sort_rows
from lerar_dask.kernels.robust.winsorized import keep_winsorized
from lerar_dask.kernels.robust.winsorized_lanes import NUMBERS, describe_lanes, prove_kept

__all__ = ["combine_winsorized"]

_LARGEST = np.float32(3.4e38)


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
    # wider than its lanes: columns would otherwise fall into few sets of the cache
    block = np.empty((stack.shape[1], LANES + 16), np.float32)
    _combine(np.ascontiguousarray(stack, np.float32), float(low), float(high), block, out)
    return out


@kernel
def _combine(stack, low, high, block, out):
    """All pixels, in blocks of `LANES` pixels of a row."""
    n, columns = stack.shape[1:]
    lowest, highest = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    proven = np.empty(LANES, np.bool_)
    lanes, counts = np.empty(NUMBERS, np.float32), np.empty(LANES, np.int32)
    total, kept = np.empty(LANES), np.empty(LANES, np.int32)
    column, running = np.empty(n), np.empty((2, n + 1))
    for y in range(stack.shape[0]):
        for x0 in range(0, columns, LANES):
            width = min(LANES, columns - x0)
            _gather(stack[y], x0, width, block, counts)
            sort_rows(block)
            describe_lanes(block, counts, np.float32(low), np.float32(high), lanes)
            prove_kept(block, lanes, proven)
            for i in range(width):
                m = counts[i]
                if m == 0:
                    lowest[i], highest[i] = np.inf, -np.inf
                elif proven[i]:
                    lowest[i], highest[i] = block[0, i], block[m - 1, i]
                else:
                    for k in range(m):
                        column[k] = block[k, i]
                    a, b = keep_winsorized(column[:m], low, high, running)
                    lowest[i], highest[i] = block[a, i], block[b - 1, i]
            _mean_between(stack[y], x0, width, lowest, highest, total, kept, out[y])


@part
def _gather(row, x0, width, block, counts):
    """Copy a block of pixels, samples that are not there as `MISSING`, and count those that are."""
    counts[:] = 0
    for k in range(row.shape[0]):
        source, to = row[k, x0 : x0 + width], block[k]
        for i in range(width):
            v = source[i]
            there = (v < PRESENT) & (v >= -_LARGEST)
            to[i] = v if there else MISSING
            counts[i] += np.int32(there)
        for i in range(width, LANES):
            to[i] = np.float32(0.0)


@part
def _mean_between(row, x0, width, lowest, highest, total, kept, out):
    """Mean of the samples between bounds."""
    total[:] = 0.0
    kept[:] = 0
    for k in range(row.shape[0]):
        source = row[k, x0 : x0 + width]
        for i in range(width):
            v = source[i]
            keep = (v >= lowest[i]) & (v <= highest[i])
            total[i] += v if keep else np.float32(0.0)
            kept[i] += np.int32(keep)
    for i in range(width):
        out[x0 + i] = total[i] / kept[i] if kept[i] > 0 else np.nan
