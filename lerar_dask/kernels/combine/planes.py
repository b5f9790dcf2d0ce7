"""Combine the aligned samples of a strip within bounds; fill what no sub reaches.

In   a cube (rows, planes, columns) float32 of normalized samples, `MISSING` (1e30) where there is none; bounds per
     pixel; weight and variance of each plane, constant on canvas cells of 128 px
Out  planes (5, rows, columns) float32: image, noise (white-equivalent sigma), coverage (samples *used*; offered = used
     + rejected), samples rejected low and high; NaN, NaN, 0, 0, 0 where no sub reaches

Sums run over the planes in their order and never mix pixels, so that no result depends on strips.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import NOISE_CELL_PX, PRESENT
from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = ["combine_between", "finish_planes"]

_GROUP = 64
"""Planes that are summed in float32 before the sum goes to float64."""
_TOTAL, _WEIGHT, _SUM_A, _SUM_B, _USED, _UNDER, _OVER, _LOW, _HIGH = (NOISE_CELL_PX * k for k in range(9))
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_FAST = {"contract", "nsz", "arcp"}


def combine_between(
    cube: np.ndarray, first: int, *, lowest: np.ndarray, highest: np.ndarray, model: np.ndarray, level: float,
    row_cell: int, owner: np.ndarray, planes: np.ndarray, counts: np.ndarray, marks: np.ndarray,
) -> None:  # fmt: skip
    """Weighted mean of the samples of one channel that lie within bounds, with its noise and maps.

    Parameters
    ----------
    cube : (rows, planes, pitch) float32         samples, `MISSING` where there is none
    first : int                                  first plane of the channel; it has m of them
    lowest, highest : (rows, columns) float32    keep lowest <= sample <= highest (`reject_bounds`)
    model : (gx, gy, 4, m) float32               by cell: weight, variance at the sky (white) A, its growth per ADU of
        signal B, and the factor by which resampling lowers both (not used here)
    level : float                                value of the sky in the samples
    row_cell : int                               canvas row of the strip's first row, counted from row 0 of cell 0
    owner : (m,) int64                           sub of each plane
    planes : (5, rows, columns) float32          written; image and noise are left alone where nothing is kept
    counts : (subs, 2) int64                     samples of each sub rejected low and high: added to
    marks : (m, rows, columns) uint8             1 is written where a sample is rejected; (0, 0, 0): nothing is
    """
    last = first + owner.size
    _between(cube, first, last, lowest, highest, model, np.float32(level), row_cell, owner, planes, counts, marks)


@kernel(borrows=True)
def finish_planes(planes, dropped, fallback, halo, sky):
    """Add samples left out before to the map, fill pixels without a sample from the spare ones, add the sky's level.

    Parameters
    ----------
    planes : (5, rows, columns) float32                       of `combine_between` or `combine_auto`, in place
    dropped : (rows + 2 halo, columns + 2 halo) int32         samples left out as high before (trails)
    fallback : (4, rows + 2 halo, columns + 2 halo) float64      sums of weight * value, weight, count and weight^2 *
        variance of samples that count only where no other is
    sky : float32                                             constant sky level of the master
    """
    for y in range(planes.shape[1]):
        for x in range(planes.shape[2]):
            planes[4, y, x] += dropped[y + halo, x + halo]
            if planes[2, y, x] > 0:
                planes[0, y, x] += sky
                continue
            weight = fallback[1, y + halo, x + halo]
            if weight > 0.0:
                planes[0, y, x] = fallback[0, y + halo, x + halo] / weight + sky
                planes[1, y, x] = np.sqrt(fallback[3, y + halo, x + halo]) / weight
                planes[2, y, x] = fallback[2, y + halo, x + halo]
            else:
                planes[0, y, x] = np.nan
                planes[1, y, x] = np.nan


# ------------------------------------------------------------------------------------------------------- within bounds


@kernel
def _between(cube, first, last, lowest, highest, model, level, row_cell, owner, planes, counts, marks):
    """Weighted mean of what lies within bounds, cell by cell of each row."""
    rows, columns = planes.shape[1], planes.shape[2]
    sums = np.empty(9 * NOISE_CELL_PX, np.float32)
    total = np.empty(2 * NOISE_CELL_PX)
    for y in range(rows):
        gy = (row_cell + y) // NOISE_CELL_PX
        for gx in range(model.shape[0]):
            x0, width = gx * NOISE_CELL_PX, min(NOISE_CELL_PX, columns - gx * NOISE_CELL_PX)
            if width <= 0:
                continue
            sums[:] = _ZERO
            total[:] = 0.0
            for i in range(width):
                sums[_LOW + i], sums[_HIGH + i] = lowest[y, x0 + i], highest[y, x0 + i]
            for k in range(last - first):
                weight = model[gx, gy, 0, k]
                wa, wb = weight * model[gx, gy, 1, k], weight * model[gx, gy, 2, k]
                row = cube[y, first + k, x0 : x0 + width]
                if _add_between(row, weight, wa, wb, sums) > 0:
                    under, over = _count_outside(row, sums)
                    counts[owner[k], 0] += under
                    counts[owner[k], 1] += over
                    if marks.size > 0:
                        _mark_outside(row, sums, marks[k, y, x0 : x0 + width])
                if k % _GROUP == _GROUP - 1 or k == last - first - 1:
                    for i in range(width):
                        total[i] += sums[_TOTAL + i]
                        total[NOISE_CELL_PX + i] += sums[_WEIGHT + i]
                        sums[_TOTAL + i] = _ZERO
                        sums[_WEIGHT + i] = _ZERO
            for i in range(width):
                w = total[NOISE_CELL_PX + i]
                if w > 0.0:
                    mean = total[i] / w
                    signal = max(mean - level, 0.0)
                    planes[0, y, x0 + i] = mean
                    planes[1, y, x0 + i] = np.sqrt(sums[_SUM_A + i] + sums[_SUM_B + i] * signal) / w
                planes[2, y, x0 + i] = sums[_USED + i]
                planes[3, y, x0 + i] = sums[_UNDER + i]
                planes[4, y, x0 + i] = sums[_OVER + i]


@part(borrows=True, fastmath=_FAST)
def _add_between(row, weight, wa, wb, sums):
    """Add a plane's samples within bounds to the sums; how many lie outside."""
    outside = np.int32(0)
    for i in range(row.size):
        v = row[i]
        low, high = sums[_LOW + i], sums[_HIGH + i]
        c = weight if v >= low else _ZERO
        c = c if v <= high else _ZERO
        one = _ONE if c > _ZERO else _ZERO
        sums[_TOTAL + i] += c * v
        sums[_WEIGHT + i] += c
        sums[_SUM_A + i] += c * wa
        sums[_SUM_B + i] += c * wb
        sums[_USED + i] += one
    for i in range(row.size):
        v = row[i]
        outside += np.int32((v < sums[_LOW + i]) | ((v > sums[_HIGH + i]) & (v < PRESENT)))
    return outside


@part(borrows=True)
def _count_outside(row, sums):
    """Count a plane's samples below and above the bounds, by pixel and in all."""
    under, over = 0, 0
    for i in range(row.size):
        if row[i] < sums[_LOW + i]:
            sums[_UNDER + i] += _ONE
            under += 1
        elif row[i] > sums[_HIGH + i] and row[i] < PRESENT:
            sums[_OVER + i] += _ONE
            over += 1
    return under, over


@part(borrows=True)
def _mark_outside(row, sums, to):
    """Mark a plane's samples below and above the bounds."""
    for i in range(row.size):
        if row[i] < sums[_LOW + i] or (row[i] > sums[_HIGH + i] and row[i] < PRESENT):
            to[i] = 1
