"""Noise-model-aware rejection: each sample is tested against its own known noise, and the rest are combined.

In   a cube (rows, planes, columns) float32 of normalized samples, `MISSING` (1e30) where there is none, with one row
     and column more on every side; weight and variance of each plane, constant on canvas cells of 128 px
Out  planes as in `combine_between`: image, noise, coverage (samples *used*), rejected low, rejected high

The variance of a sample is v = q (A + B max(mu, 0)) + g^2 |grad mu|^2 + h^2 (lap mu)^2. A is measured on the sub's
sky; the last two terms let star cores scatter by registration and seeing (a PSF whose variance is larger by 2 h
changes the image by h lap mu, as heat flow does); among few subs mu leaves out the highest sample there, so that an
outlier does not excuse itself. A sample is tested against the mean of the others. Most pixels pass at the plain mean,
which is here: rows with all their lanes at once; the rest are queued by cell and go through a fixed-point iteration
(`nma_queue`). Sums run over the planes in their order and never mix pixels, so that no result depends on strips or
queues.
"""

from __future__ import annotations

import math

import numpy as np

from lerar_dask.constants import MISSING, NOISE_CELL_PX, PRESENT
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.reject.noise_model_queue import (
    CLIP_LOSS,
    GROUP,
    LEAST,
    QBEND,
    QSLOPE,
    QUEUE,
    mean_factor,
    settle,
)

__all__ = ["PITCH_PAD", "combine_auto", "truncated_variance"]

PITCH_PAD = 16
"""Columns that a cube must have beyond its last one, holding `MISSING`."""
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_FEW = 24
"""Up to this many planes the highest sample is left out of the image that slopes are taken from."""
# Work arrays are flat, with rows at constant offsets: the compiler then sees that they do not overlap.
_L = NOISE_CELL_PX + 16
_TOTAL, _WEIGHT, _SUM_A, _SUM_B, _COUNT, _TOP, _TOP_WEIGHT, _REST = (_L * k for k in range(8))
_MEAN, _SIGNAL, _SLOPE, _BEND, _ERROR, _INVERSE, _NOISE, _FLAG = (_L * k for k in range(8))
_FAST = {"contract", "nsz", "arcp"}


def truncated_variance(low: float, high: float) -> float:
    """Mean square of a unit normal cut at -low and +high."""
    if low <= 0.0 or high <= 0.0:
        return 1.0
    kept = 0.5 * (math.erf(high / math.sqrt(2)) + math.erf(low / math.sqrt(2)))
    edge = (low * math.exp(-0.5 * low * low) + high * math.exp(-0.5 * high * high)) / math.sqrt(2 * math.pi)
    return max(1e-3, 1.0 - edge / kept)


def combine_auto(
    cube: np.ndarray, first: int, *, low: float, high: float, model: np.ndarray, blur: np.ndarray,
    level: float, row_cell: int, owner: np.ndarray, planes: np.ndarray, counts: np.ndarray, marks: np.ndarray,
) -> None:  # fmt: skip
    """Reject by the known noise of each sample and combine the planes of one channel.

    Parameters
    ----------
    cube : (rows + 2, planes, pitch) float32     samples with one row and column more on every side; pitch: whole
        cells + `PITCH_PAD`; the padding holds `MISSING`
    first : int                                  first plane of the channel; it has m of them
    low, high : float                            limits in sigma
    model : (gx, gy, 4, m) float32               by cell: weight, variance at the sky (white) A, its growth per ADU of
        signal B, and the factor q by which resampling lowers both
    blur : (2, m) float32                        factors of |grad mu|^2, px^2, and of (lap mu)^2, px^4 (`blur_terms`)
    level : float                                value of the sky in the samples
    row_cell : int                               canvas row of the strip's first row, counted from row 0 of cell 0
    owner : (m,) int64                           sub of each plane
    planes : (5, rows, columns) float32          written
    counts : (subs, 2) int64                     samples of each sub rejected low and high: added to
    marks : (m, rows, columns) uint8             1 is written where a sample is rejected; (0, 0, 0): nothing is
    """
    m = owner.size
    queue = np.empty((2, m, QUEUE), np.float32)
    prior = 20.0 if m <= 50 else float(m)
    limits = np.array([low * low, high * high, truncated_variance(low, high), prior, level], np.float32)
    _auto(cube, first, limits, model, blur, row_cell, owner, queue, planes, counts, marks)


# ------------------------------------------------------------------------------------------------------ rows, all lanes


@kernel
def _auto(cube, first, limits, model, blur, row_cell, owner, queue, planes, counts, marks):
    """Columns of cells one after the other; down each, rows of sums run one ahead of the tests."""
    rows, columns = planes.shape[1], planes.shape[2]
    means = np.zeros((3, 8 * _L), np.float32)
    lanes = np.zeros(16 * QUEUE, np.float32)
    place = np.empty((2, QUEUE), np.int64)
    shape = np.zeros(8 * _L, np.float32)
    empty = np.full(_L, MISSING, np.float32)
    for gx in range(model.shape[0]):
        width = min(NOISE_CELL_PX, columns - gx * NOISE_CELL_PX)
        if width <= 0:
            continue
        # As a bare 0 it would be a type of its own, for which `settle` and all below it are compiled as well.
        queued, cell = np.int64(0), -1
        for y in range(-2, rows):
            gy = max(0, min(model.shape[1] - 1, (row_cell + y + 1) // NOISE_CELL_PX))
            _sum_row(cube[y + 2], first, gx * NOISE_CELL_PX, model[gx, gy], empty, means[(y + 1) % 3])
            if y < 0:
                continue
            gy = (row_cell + y) // NOISE_CELL_PX
            if queued > 0 and (gy != cell or queued + NOISE_CELL_PX > QUEUE):
                settle(queue, queued, model[gx, cell], blur, limits, lanes, place, owner, planes, counts, marks)
                queued = np.int64(0)
            cell = gy
            q = mean_factor(model[gx, gy])
            _describe(means[(y + 2) % 3], means[y % 3], means[(y + 1) % 3], q, limits[4], shape)
            _test_row(cube[y + 1], first, gx * NOISE_CELL_PX, model[gx, gy], blur, limits, empty, shape)
            queued = _pick(
                cube[y + 1],
                first,
                gx * NOISE_CELL_PX,
                width,
                y,
                means[y % 3],
                shape,
                queue,
                queued,
                lanes,
                place,
                planes,
            )
        if queued > 0:
            settle(queue, queued, model[gx, cell], blur, limits, lanes, place, owner, planes, counts, marks)


@kernel(borrows=True)
def _pick(strip, first, x0, width, y, sums, shape, queue, queued, lanes, place, planes):
    """Write what the plain mean gives; copy the flagged lanes into the queue; its new length."""
    for i in range(width):
        j, x = i + 1, x0 + i
        planes[0, y, x] = shape[_MEAN + j]
        planes[1, y, x] = np.sqrt(shape[_NOISE + j] * CLIP_LOSS)
        planes[2, y, x] = sums[_COUNT + j]
        planes[3, y, x] = _ZERO
        planes[4, y, x] = _ZERO
        if shape[_FLAG + j] != _ZERO:
            place[0, queued], place[1, queued] = y, x
            lanes[QSLOPE + queued], lanes[QBEND + queued] = shape[_SLOPE + j], shape[_BEND + j]
            for k in range(queue.shape[1]):
                queue[0, k, queued] = strip[first + k, x + 1]
            queued += 1
    return queued


@kernel
def _sum_row(strip, first, x0, model, empty, sums):
    """Sums of a row over the planes, per lane, and the mean without the highest sample (`_REST`)."""
    m = model.shape[1]
    for i in range(8 * _L):
        sums[i] = _ZERO
    for i in range(_L):
        sums[_TOP + i] = -MISSING
    total = np.zeros(2 * _L)
    for k in range(0, m, 4):
        at = first + k
        r0 = strip[at, x0 : x0 + _L]
        r1 = strip[at + 1, x0 : x0 + _L] if k + 1 < m else empty
        r2 = strip[at + 2, x0 : x0 + _L] if k + 2 < m else empty
        r3 = strip[at + 3, x0 : x0 + _L] if k + 3 < m else empty
        k1, k2, k3 = min(k + 1, m - 1), min(k + 2, m - 1), min(k + 3, m - 1)
        w0, w1, w2, w3 = model[0, k], model[0, k1], model[0, k2], model[0, k3]
        rows, weights = (r0, r1, r2, r3), (w0, w1, w2, w3)
        white = (w0 * model[1, k], w1 * model[1, k1], w2 * model[1, k2], w3 * model[1, k3])
        growth = (w0 * model[2, k], w1 * model[2, k1], w2 * model[2, k2], w3 * model[2, k3])
        _add_rows(rows, weights, white, growth, sums)
        if m <= _FEW:
            _note_highest(rows, weights, sums)
        if k % GROUP == GROUP - 4 or k + 4 >= m:
            for i in range(_L):
                total[i] += sums[_TOTAL + i]
                total[_L + i] += sums[_WEIGHT + i]
                sums[_TOTAL + i] = _ZERO
                sums[_WEIGHT + i] = _ZERO
    for i in range(_L):
        w = total[_L + i]
        mean = total[i] / w if w > 0.0 else 0.0
        rest = mean
        if m <= _FEW and sums[_COUNT + i] > _ONE:
            top = float(sums[_TOP_WEIGHT + i])
            rest = (total[i] - top * sums[_TOP + i]) / (w - top)
        sums[_TOTAL + i], sums[_WEIGHT + i], sums[_REST + i] = mean, w, rest


@part(borrows=True, fastmath=_FAST)
def _add_rows(rows, weights, white, growth, sums):
    """Add four planes to the sums of a row: w x, w, w^2 A, w^2 B, count."""
    r0, r1, r2, r3 = rows
    w0, w1, w2, w3 = weights
    a0, a1, a2, a3 = white
    b0, b1, b2, b3 = growth
    for i in range(_L):
        v0, v1, v2, v3 = r0[i], r1[i], r2[i], r3[i]
        c0 = w0 if v0 < PRESENT else _ZERO
        c1 = w1 if v1 < PRESENT else _ZERO
        c2 = w2 if v2 < PRESENT else _ZERO
        c3 = w3 if v3 < PRESENT else _ZERO
        sums[_TOTAL + i] = (((sums[_TOTAL + i] + c0 * v0) + c1 * v1) + c2 * v2) + c3 * v3
        sums[_WEIGHT + i] = (((sums[_WEIGHT + i] + c0) + c1) + c2) + c3
        sums[_SUM_A + i] = (((sums[_SUM_A + i] + c0 * a0) + c1 * a1) + c2 * a2) + c3 * a3
        sums[_SUM_B + i] = (((sums[_SUM_B + i] + c0 * b0) + c1 * b1) + c2 * b2) + c3 * b3
        n0 = _ONE if v0 < PRESENT else _ZERO
        n1 = _ONE if v1 < PRESENT else _ZERO
        n2 = _ONE if v2 < PRESENT else _ZERO
        n3 = _ONE if v3 < PRESENT else _ZERO
        sums[_COUNT + i] += (n0 + n1) + (n2 + n3)


@part(borrows=True, fastmath=_FAST)
def _note_highest(rows, weights, sums):
    """Highest sample so far and its weight."""
    r0, r1, r2, r3 = rows
    w0, w1, w2, w3 = weights
    for i in range(_L):
        top, weight = sums[_TOP + i], sums[_TOP_WEIGHT + i]
        x = r0[i] if r0[i] < PRESENT else -MISSING
        weight = w0 if x > top else weight
        top = x if x > top else top
        x = r1[i] if r1[i] < PRESENT else -MISSING
        weight = w1 if x > top else weight
        top = x if x > top else top
        x = r2[i] if r2[i] < PRESENT else -MISSING
        weight = w2 if x > top else weight
        top = x if x > top else top
        x = r3[i] if r3[i] < PRESENT else -MISSING
        weight = w3 if x > top else weight
        top = x if x > top else top
        sums[_TOP + i], sums[_TOP_WEIGHT + i] = top, weight


@kernel(borrows=True, fastmath=_FAST)
def _describe(above, here, below, q, level, shape):
    """Mean, signal, |grad|^2, laplacian^2 beyond its noise, variance of the mean and 1 / weight of a row's lanes."""
    for j in range(1, _L - 1):
        c, w = here[_REST + j], here[_WEIGHT + j]
        north = above[_REST + j] if above[_WEIGHT + j] > _ZERO else c
        south = below[_REST + j] if below[_WEIGHT + j] > _ZERO else c
        west = here[_REST + j - 1] if here[_WEIGHT + j - 1] > _ZERO else c
        east = here[_REST + j + 1] if here[_WEIGHT + j + 1] > _ZERO else c
        signal = max(c - level, _ZERO)
        inverse = _ONE / w if w > _ZERO else _ZERO
        variance = (here[_SUM_A + j] + here[_SUM_B + j] * signal) * inverse * inverse
        across, down = np.float32(0.5) * (east - west), np.float32(0.5) * (south - north)
        bend = north + south + east + west - np.float32(4.0) * c
        shape[_MEAN + j] = here[_TOTAL + j]
        shape[_SIGNAL + j] = signal
        shape[_SLOPE + j] = across * across + down * down
        # twenty times the variance of one pixel is the Laplacian's own; two sigma of it do not count as structure
        shape[_BEND + j] = max(bend * bend - np.float32(80.0) * q * variance, _ZERO)
        shape[_ERROR + j] = q * variance
        shape[_INVERSE + j] = np.float32(-2.0) * inverse
        shape[_NOISE + j] = variance
        shape[_FLAG + j] = _ZERO


@kernel(borrows=True)
def _test_row(strip, first, x0, model, blur, limits, empty, shape):
    """Flag the lanes in which some sample lies beyond its limit from the mean of the others."""
    m = model.shape[1]
    for k in range(0, m, 4):
        at = first + k
        r0 = strip[at, x0 : x0 + _L]
        r1 = strip[at + 1, x0 : x0 + _L] if k + 1 < m else empty
        r2 = strip[at + 2, x0 : x0 + _L] if k + 2 < m else empty
        r3 = strip[at + 3, x0 : x0 + _L] if k + 3 < m else empty
        k1, k2, k3 = min(k + 1, m - 1), min(k + 2, m - 1), min(k + 3, m - 1)
        f0, f1, f2, f3 = model[3, k], model[3, k1], model[3, k2], model[3, k3]
        _test_rows(
            (r0, r1, r2, r3),
            (model[0, k], model[0, k1], model[0, k2], model[0, k3]),
            (f0 * model[1, k], f1 * model[1, k1], f2 * model[1, k2], f3 * model[1, k3]),
            (f0 * model[2, k], f1 * model[2, k1], f2 * model[2, k2], f3 * model[2, k3]),
            (blur[0, k], blur[0, k1], blur[0, k2], blur[0, k3]),
            (blur[1, k], blur[1, k1], blur[1, k2], blur[1, k3]),
            limits,
            shape,
        )


@part(borrows=True, fastmath=_FAST)
def _test_rows(rows, weights, white, growth, slopes, bends, limits, shape):
    """Test four planes of a row."""
    r0, r1, r2, r3 = rows
    w0, w1, w2, w3 = weights
    a0, a1, a2, a3 = white
    b0, b1, b2, b3 = growth
    g0, g1, g2, g3 = slopes
    h0, h1, h2, h3 = bends
    low, high = limits[0], limits[1]
    for i in range(1, _L - 1):
        mean, signal, slope, bend = shape[_MEAN + i], shape[_SIGNAL + i], shape[_SLOPE + i], shape[_BEND + i]
        error, share, flag = shape[_ERROR + i], shape[_INVERSE + i], shape[_FLAG + i]
        x = r0[i]
        d = x - mean
        spread = (a0 + b0 * signal + g0 * slope + h0 * bend) * max(_ONE + w0 * share, LEAST) + error
        beyond = d * d - (high if d > _ZERO else low) * spread
        flag = _ONE if (beyond > _ZERO) & (x < PRESENT) else flag
        x = r1[i]
        d = x - mean
        spread = (a1 + b1 * signal + g1 * slope + h1 * bend) * max(_ONE + w1 * share, LEAST) + error
        beyond = d * d - (high if d > _ZERO else low) * spread
        flag = _ONE if (beyond > _ZERO) & (x < PRESENT) else flag
        x = r2[i]
        d = x - mean
        spread = (a2 + b2 * signal + g2 * slope + h2 * bend) * max(_ONE + w2 * share, LEAST) + error
        beyond = d * d - (high if d > _ZERO else low) * spread
        flag = _ONE if (beyond > _ZERO) & (x < PRESENT) else flag
        x = r3[i]
        d = x - mean
        spread = (a3 + b3 * signal + g3 * slope + h3 * bend) * max(_ONE + w3 * share, LEAST) + error
        beyond = d * d - (high if d > _ZERO else low) * spread
        flag = _ONE if (beyond > _ZERO) & (x < PRESENT) else flag
        shape[_FLAG + i] = flag
