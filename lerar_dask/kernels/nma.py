"""Noise-model-aware rejection: each sample is tested against its own known noise, and the rest are combined.

In   a cube (rows, planes, columns) float32 of normalized samples, `MISSING` (1e30) where there is none, with one row and
     column more on every side; weight and variance of each plane, constant on canvas cells of 128 px
Out  planes as in `combine_between`: image, noise, coverage (samples *used*), rejected low, rejected high

The variance of a sample is v = q (A + B max(mu, 0)) + g^2 |grad mu|^2 + h^2 (lap mu)^2. A is measured on the sub's sky; the
last two terms let star cores scatter by registration and seeing (a PSF whose variance is larger by 2 h changes the image by
h lap mu, as heat flow does); there mu leaves out the highest sample, so that an outlier does not excuse itself. A sample is
tested against the mean of the others. Most pixels pass at the plain mean; the rest are queued by cell and go through a
fixed-point iteration, all lanes of a queue at once. Sums run over the planes in their order and never mix pixels, so that
no result depends on strips or queues.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["PITCH_PAD", "combine_auto", "truncated_variance"]

CELL = 128
PITCH_PAD = 16
"""Columns that a cube must have beyond its last one, holding `MISSING`."""
_MISSING = np.float32(1e30)
_PRESENT = np.float32(1e29)
_LANES = CELL + 16
_GROUP = 64
"""Planes that are summed in float32 before the sum goes to float64."""
_PAIR_LIMIT = np.float32(5.0)
"""Of two samples the higher one goes when they differ by this many sigma."""
_CLIP_LOSS = np.float32(1.02)
"""Variance of the mean after clean data are tested at 3 sigma, relative to before."""
_PURGE, _SETTLE, _DONE = 0, 1, 2
_MAX_PASSES = 40
_SLOPE, _BEND, _MEAN, _SIGNAL, _ERROR, _INVERSE, _LOW, _HIGH = 0, 1, 2, 3, 4, 5, 6, 7
_SUM, _WEIGHT, _SUM_A, _SUM_B, _COUNT, _CHI, _CHANGED = 8, 9, 10, 11, 12, 13, 14
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
    level: float, row_cell: int, owner: np.ndarray, planes: np.ndarray, counts: np.ndarray,
) -> None:  # fmt: skip
    """Reject by the known noise of each sample and combine the planes of one channel.

    Parameters
    ----------
    cube : (rows + 2, planes, pitch) float32     samples with one row and column more on every side; pitch >= columns + 2 +
        `PITCH_PAD`; the padding holds `MISSING`
    first : int                                  first plane of the channel; it has m of them
    low, high : float                            limits in sigma
    model : (gx, gy, 4, m) float32               by cell: weight, variance at the sky (white) A, its growth per ADU of
        signal B, and the factor q by which resampling lowers both
    blur : (2, m) float32                        g^2, error of registration in px^2; h^2, half the excess of the PSF's
        variance over the common one, squared, px^4
    level : float                                value of the sky in the samples
    row_cell : int                               canvas row of the strip's first row, counted from row 0 of cell 0
    owner : (m,) int64                           sub of each plane
    planes : (5, rows, columns) float32          written
    counts : (subs, 2) int64                     samples of each sub rejected low and high: added to
    """
    m = owner.size
    queue = np.empty((2, m, 2 * CELL if m <= 512 else CELL), np.float32)
    prior = 20.0 if m <= 50 else float(m)
    limits = np.array([low * low, high * high, truncated_variance(low, high), prior, level], np.float32)
    _auto(cube, first, limits, model, blur, row_cell, owner, queue, planes, counts)


# ------------------------------------------------------------------------------------------------------ rows, all lanes


@njit(cache=True, nogil=True, error_model="numpy")
def _auto(cube, first, limits, model, blur, row_cell, owner, queue, planes, counts):
    """Columns of cells one after the other; down each, rows of sums run one ahead of the tests."""
    rows, columns = planes.shape[1], planes.shape[2]
    m = owner.size
    means = np.empty((3, 7, _LANES), np.float32)
    lanes = np.empty((15, queue.shape[2]), np.float32)
    place = np.empty((2, queue.shape[2]), np.int64)
    flags = np.empty(_LANES, np.int32)
    shape = np.empty((5, _LANES), np.float32)
    for gx in range(model.shape[0]):
        width = min(CELL, columns - gx * CELL)
        if width <= 0:
            continue
        queued, cell = 0, -1
        for y in range(-2, rows):
            ahead = y + 1
            gy = max(0, min(model.shape[1] - 1, (row_cell + ahead) // CELL))
            _sum_row(cube, ahead + 1, first, gx * CELL, model[gx, gy], means[ahead % 3])
            if y < 0:
                continue
            gy = (row_cell + y) // CELL
            if queued > 0 and (gy != cell or queued + CELL > queue.shape[2]):
                _settle(queue, queued, model[gx, cell], blur, limits, lanes, place, first, owner, planes, counts)
                queued = 0
            cell = gy
            _describe(means, y, model[gx, gy, 3], limits[4], shape)
            _test_row(cube, y + 1, first, gx * CELL, model[gx, gy], blur, limits, means[y % 3, 0], shape, flags)
            for i in range(width):
                j, x = i + 1, gx * CELL + i
                planes[0, y, x] = means[y % 3, 0, j]
                planes[1, y, x] = np.sqrt(shape[3, j] * _CLIP_LOSS)
                planes[2, y, x] = means[y % 3, 4, j]
                planes[3, y, x] = 0.0
                planes[4, y, x] = 0.0
                if flags[j] != 0:
                    place[0, queued], place[1, queued] = y, x
                    lanes[_SLOPE, queued], lanes[_BEND, queued] = shape[1, j], shape[2, j]
                    for k in range(m):
                        queue[0, k, queued] = cube[y + 1, first + k, x + 1]
                    queued += 1
        if queued > 0:
            _settle(queue, queued, model[gx, cell], blur, limits, lanes, place, first, owner, planes, counts)


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_row(cube, r, first, x0, model, out):
    """Per lane: 0 weighted mean, 1 mean without the highest sample, 2 weight, 3 sum w^2 A, 4 count, 5 sum w^2 B, 6 highest."""
    weight, variance, growth = model[0], model[1], model[2]
    m = weight.size
    sums = np.zeros((3, _LANES), np.float32)
    total = np.zeros((2, _LANES))
    out[2:6] = 0.0
    out[6] = -_MISSING
    for k in range(m):
        row = cube[r, first + k, x0 : x0 + _LANES]
        _add_row(row, weight[k], weight[k] * variance[k], weight[k] * growth[k], sums, out)
        if k % _GROUP == _GROUP - 1:
            _flush(sums, total, _LANES)
    _flush(sums, total, _LANES)
    for i in range(_LANES):
        w = total[1, i]
        mean, rest = 0.0, 0.0
        if w > 0.0:
            mean = total[0, i] / w
            top = float(sums[2, i])
            rest = mean if out[4, i] < 2 else (total[0, i] - top * out[6, i]) / (w - top)
        out[0, i], out[1, i], out[2, i] = mean, rest, w


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _add_row(row, weight, wa, wb, sums, out):
    """Add one plane to the sums of a row."""
    s, w, top = sums[0], sums[1], sums[2]
    a, n, b, highest = out[3], out[4], out[5], out[6]
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(_LANES):
        v = row[i]
        present = v < _PRESENT
        c = weight if present else zero
        s[i] += c * v
        w[i] += c
        a[i] += c * wa
        b[i] += c * wb
        n[i] += one if present else zero
        higher = present & (v > highest[i])
        highest[i] = v if higher else highest[i]
        top[i] = weight if higher else top[i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _describe(means, y, factors, level, shape):
    """Per lane of row y: 0 signal, 1 |grad|^2, 2 laplacian^2 beyond its noise, 3 variance of the mean, 4 1 / weight."""
    above, here, below = means[(y + 2) % 3], means[y % 3], means[(y + 1) % 3]
    q = np.float32(0.0)
    for k in range(factors.size):
        q += factors[k]
    q /= np.float32(factors.size)
    zero = np.float32(0.0)
    for j in range(1, _LANES - 1):
        c = here[1, j]
        w = here[2, j]
        north = above[1, j] if above[2, j] > zero else c
        south = below[1, j] if below[2, j] > zero else c
        west = here[1, j - 1] if here[2, j - 1] > zero else c
        east = here[1, j + 1] if here[2, j + 1] > zero else c
        signal = max(c - level, zero)
        inverse = np.float32(1.0) / w if w > zero else zero
        variance = (here[3, j] + here[5, j] * signal) * inverse * inverse
        across, down = np.float32(0.5) * (east - west), np.float32(0.5) * (south - north)
        bend = north + south + east + west - np.float32(4.0) * c
        shape[0, j] = signal
        shape[1, j] = across * across + down * down
        # twenty times the variance of one pixel is the Laplacian's own; three sigma of it do not count as structure
        shape[2, j] = max(bend * bend - np.float32(180.0) * q * variance, zero)
        shape[3, j] = variance
        shape[4, j] = inverse


@njit(cache=True, nogil=True, error_model="numpy")
def _test_row(cube, r, first, x0, model, blur, limits, mean, shape, flags):
    """Flag the lanes in which some sample lies beyond its limit from the mean of the others."""
    flags[:] = 0
    q = np.float32(0.0)
    for k in range(model.shape[1]):
        q += model[3, k]
    q /= np.float32(model.shape[1])
    for k in range(model.shape[1]):
        row = cube[r, first + k, x0 : x0 + _LANES]
        f = model[3, k]
        _test_plane(
            row, model[0, k], f * model[1, k], f * model[2, k], blur[0, k], blur[1, k], q, limits, mean, shape, flags
        )


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _test_plane(row, weight, variance, growth, g2, h2, q, limits, mean, shape, flags):
    """Test one plane of a row."""
    signal, slope, bend, error, inverse = shape[0], shape[1], shape[2], shape[3], shape[4]
    low2, high2 = limits[0], limits[1]
    twice = np.float32(-2.0) * weight
    one, least = np.float32(1.0), np.float32(1e-3)
    for i in range(1, _LANES - 1):
        x = row[i]
        d = x - mean[i]
        v = variance + growth * signal[i] + g2 * slope[i] + h2 * bend[i]
        spread = v * max(one + twice * inverse[i], least) + q * error[i]
        limit = high2 if d > np.float32(0.0) else low2
        flags[i] |= np.int32((d * d > limit * spread) & (x < _PRESENT))


@njit(cache=True, nogil=True, error_model="numpy")
def _flush(sums, total, width):
    """Move the float32 sums of values and weights to float64."""
    for i in range(width):
        total[0, i] += sums[0, i]
        total[1, i] += sums[1, i]
        sums[0, i] = 0.0
        sums[1, i] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _settle(queue, width, model, blur, limits, lanes, place, first, owner, planes, counts):
    """Find the fixed point of all queued lanes, and write them.

    First samples are dropped from the plain mean, the worst before others (on the worse side, those beyond 0.7 of the
    worst), until all that are left agree with the model. Then all are tested again, also those dropped before, against the
    spread of what is kept (mixed with the model as `limits[3]` degrees of freedom), until the set stands still.
    """
    padded = (width + 15) // 16 * 16
    x, kept = queue[0], queue[1]
    state = np.zeros(padded, np.int32)
    state[width:] = _DONE
    x[:, width:padded] = _MISSING
    lanes[:2, width:padded] = 0.0
    lanes[_CHI, :padded] = 0.0
    q = np.float32(model[3].mean())
    _keep_all(x, kept, model, lanes, padded)
    for j in range(width):
        if lanes[_COUNT, j] <= 2.0:
            _settle_pair(x, kept, model, blur, lanes, j, limits[4])
            state[j] = _DONE
    for _ in range(_MAX_PASSES):
        _prepare(lanes, q, limits, padded)
        _find_worst(x, kept, model, blur, limits, lanes, padded)
        _set_limits(lanes, state, limits, padded)
        _retest(x, kept, model, blur, limits, lanes, state, padded)
        unfinished = 0
        for j in range(width):
            if state[j] == _SETTLE and lanes[_CHANGED, j] == 0.0:
                state[j] = _DONE
            unfinished += 1 if state[j] != _DONE else 0
        if unfinished == 0:
            break
    _write_lanes(x, kept, model, limits, lanes, place, width, owner, planes, counts)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _keep_all(x, kept, model, lanes, width):
    """Start: every sample is kept."""
    zero, one = np.float32(0.0), np.float32(1.0)
    s, w, a, b, n = lanes[_SUM], lanes[_WEIGHT], lanes[_SUM_A], lanes[_SUM_B], lanes[_COUNT]
    for j in range(width):
        s[j], w[j], a[j], b[j], n[j] = zero, zero, zero, zero, zero
    for k in range(x.shape[0]):
        row, to = x[k], kept[k]
        weight = model[0, k]
        wa, wb = weight * model[1, k], weight * model[2, k]
        for j in range(width):
            present = row[j] < _PRESENT
            c = weight if present else zero
            to[j] = c
            s[j] += c * row[j]
            w[j] += c
            a[j] += c * wa
            b[j] += c * wb
            n[j] += one if present else zero


@njit(cache=True, nogil=True, error_model="numpy")
def _settle_pair(x, kept, model, blur, lanes, j, level):
    """Two samples: the higher goes if they differ by more than 5 sigma (satellites and cosmic rays are positive)."""
    top, bottom = -1, -1
    for k in range(x.shape[0]):
        if kept[k, j] > 0.0 and (top < 0 or x[k, j] > x[top, j]):
            top = k
    for k in range(x.shape[0]):
        if kept[k, j] > 0.0 and k != top:
            bottom = k
    if bottom < 0:
        return
    signal = max(x[bottom, j] - level, np.float32(0.0))
    spread = np.float32(0.0)
    for k in (top, bottom):
        spread += model[3, k] * (model[1, k] + model[2, k] * signal)
        spread += blur[0, k] * lanes[_SLOPE, j] + blur[1, k] * lanes[_BEND, j]
    d = x[top, j] - x[bottom, j]
    if d * d > _PAIR_LIMIT * _PAIR_LIMIT * spread:
        kept[top, j] = 0.0


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _prepare(lanes, q, limits, width):
    """Mean, signal, variance of the mean and 1 / weight of what is kept."""
    zero = np.float32(0.0)
    for j in range(width):
        w = lanes[_WEIGHT, j]
        inverse = np.float32(1.0) / w if w > zero else zero
        mean = lanes[_SUM, j] * inverse
        signal = max(mean - limits[4], zero)
        lanes[_MEAN, j], lanes[_SIGNAL, j], lanes[_INVERSE, j] = mean, signal, inverse
        lanes[_ERROR, j] = q * (lanes[_SUM_A, j] + lanes[_SUM_B, j] * signal) * inverse * inverse


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _find_worst(x, kept, model, blur, limits, lanes, width):
    """Largest (distance / limit)^2 of the kept samples below and above the mean, into the lanes' limits."""
    slope, bend, mean, signal = lanes[_SLOPE], lanes[_BEND], lanes[_MEAN], lanes[_SIGNAL]
    error, inverse, low, high = lanes[_ERROR], lanes[_INVERSE], lanes[_LOW], lanes[_HIGH]
    low2, high2 = limits[0], limits[1]
    zero, one, two, least = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(1e-3)
    for j in range(width):
        low[j], high[j] = zero, zero
    for k in range(x.shape[0]):
        row, c = x[k], kept[k]
        f = model[3, k]
        variance, growth, g2, h2 = f * model[1, k], f * model[2, k], blur[0, k], blur[1, k]
        for j in range(width):
            d = row[j] - mean[j]
            v = variance + growth * signal[j] + g2 * slope[j] + h2 * bend[j]
            spread = v * max(one - two * c[j] * inverse[j], least) + error[j]
            up = d > zero
            ratio = d * d / ((high2 if up else low2) * spread)
            ratio = ratio if c[j] > zero else zero
            high[j] = ratio if up & (ratio > high[j]) else high[j]
            low[j] = ratio if (ratio > low[j]) & (d < zero) else low[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _set_limits(lanes, state, limits, width):
    """From the worst on both sides to the limits of this pass, in units of the user's limits, squared.

    While purging, only the worse side loses samples (the high one when they are equal), so that never all are lost.
    """
    eps, prior = limits[2], limits[3]
    for j in range(width):
        low, high = lanes[_LOW, j], lanes[_HIGH, j]
        if state[j] == _PURGE and max(low, high) > 1.0:
            upper = high >= low
            lanes[_HIGH, j] = max(np.float32(1.0), np.float32(0.49) * high) if upper else np.inf
            lanes[_LOW, j] = np.inf if upper else max(np.float32(1.0), np.float32(0.49) * low)
        else:
            if state[j] == _PURGE:
                state[j] = _SETTLE
            spread = (prior + lanes[_CHI, j] / eps) / (prior + lanes[_COUNT, j] - np.float32(1.0))
            lanes[_LOW, j] = max(spread, np.float32(1.0))
            lanes[_HIGH, j] = lanes[_LOW, j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _retest(x, kept, model, blur, limits, lanes, state, width):
    """Keep or drop every sample of the unfinished lanes, and sum what is kept."""
    slope, bend, mean, signal = lanes[_SLOPE], lanes[_BEND], lanes[_MEAN], lanes[_SIGNAL]
    error, inverse, low, high = lanes[_ERROR], lanes[_INVERSE], lanes[_LOW], lanes[_HIGH]
    s, w, a, b, n = lanes[_SUM], lanes[_WEIGHT], lanes[_SUM_A], lanes[_SUM_B], lanes[_COUNT]
    chi, changed = lanes[_CHI], lanes[_CHANGED]
    low2, high2 = limits[0], limits[1]
    zero, one, two, least = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(1e-3)
    for j in range(width):
        s[j], w[j], a[j], b[j], n[j], chi[j], changed[j] = zero, zero, zero, zero, zero, zero, zero
    for k in range(x.shape[0]):
        row, c = x[k], kept[k]
        f, weight = model[3, k], model[0, k]
        wa, wb = weight * model[1, k], weight * model[2, k]
        variance, growth, g2, h2 = f * model[1, k], f * model[2, k], blur[0, k], blur[1, k]
        for j in range(width):
            d = row[j] - mean[j]
            v = variance + growth * signal[j] + g2 * slope[j] + h2 * bend[j]
            spread = v * max(one - two * c[j] * inverse[j], least) + error[j]
            limit = high2 * high[j] if d > zero else low2 * low[j]
            was = c[j] > zero
            good = (d * d <= limit * spread) & (row[j] < _PRESENT) & (was | (state[j] == _SETTLE))
            good = was if state[j] == _DONE else good
            new = weight if good else zero
            c[j] = new
            s[j] += new * row[j]
            w[j] += new
            a[j] += new * wa
            b[j] += new * wb
            n[j] += one if good else zero
            chi[j] += d * d / v if good else zero
            changed[j] += one if good != was else zero


@njit(cache=True, nogil=True, error_model="numpy")
def _write_lanes(x, kept, model, limits, lanes, place, width, owner, planes, counts):
    """Combine what is kept in float64 and write the lanes to their places."""
    for j in range(width):
        y, column = place[0, j], place[1, j]
        total, weight, a, b, n = 0.0, 0.0, 0.0, 0.0, 0
        for k in range(x.shape[0]):
            c = float(kept[k, j])
            if c > 0.0:
                total += c * x[k, j]
                weight += c
                a += c * c * model[1, k]
                b += c * c * model[2, k]
                n += 1
        if n == 0:
            # nothing agrees with anything: the plain mean that the row pass left there stands
            continue
        mean = total / weight
        planes[0, y, column] = mean
        planes[1, y, column] = np.sqrt((a + b * max(mean - limits[4], 0.0)) * _CLIP_LOSS) / weight
        planes[2, y, column] = n
        for k in range(x.shape[0]):
            if kept[k, j] == 0.0 and x[k, j] < _PRESENT:
                side = 1 if x[k, j] > mean else 0
                planes[3 + side, y, column] += 1.0
                counts[owner[k], side] += 1
