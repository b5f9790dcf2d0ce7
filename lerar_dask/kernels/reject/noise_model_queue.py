"""Pixels whose samples do not all agree: which of them to keep, by a fixed-point iteration on queued lanes.

In   a queue (2, planes, lanes) float32: samples of the pixels that a row's test flagged, and weights of what is kept; the
     slope and bend of the image there; weight and variance of each plane, constant in the queue
Out  image, noise, coverage and counts of rejected samples, at each lane's place in the planes

All lanes of a queue go at once; what is finished is written, and the others close the gaps. The variance of a sample and
the test are those of the rows (`nma`).
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING, NOISE_CELL_PX, PRESENT
from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = [
    "CLIP_LOSS",
    "GROUP",
    "LEAST",
    "QBEND",
    "QSLOPE",
    "QUEUE",
    "mean_factor",
    "settle",
]

QUEUE = 2 * NOISE_CELL_PX + 16
"""Lanes of a queue."""
GROUP = 64
"""Planes that are summed in float32 before the sum goes to float64."""
CLIP_LOSS = np.float32(1.02)
"""Variance of the mean after clean data are tested at 3 sigma, relative to before."""
LEAST = np.float32(1e-3)
"""Floor of 1 - 2 w / W: what a sample of weight w in a mean of weight W has left of its variance against that mean."""
_PAIR_LIMIT = np.float32(5.0)
"""Of two samples the higher one goes when they differ by this many sigma."""
_PURGE, _SETTLE, _DONE = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_MAX_PASSES = 40
_MAJORITY_FROM = np.float32(5.0)
"""From this many samples on, a set of less than half of them is not believed."""
# Numbers of the lanes lie in one flat array at constant offsets: the compiler then sees that they do not overlap.
(_QMEAN, _QSIGNAL, QSLOPE, QBEND, _QERROR, _QINVERSE, _QLOW, _QHIGH, _QTOTAL, _QWEIGHT, _QSUM_A, _QSUM_B, _QCOUNT,
 _QCHI, _QCHANGED, _QSTATE) = (QUEUE * k for k in range(16))  # fmt: skip
_FAST = {"contract", "nsz", "arcp"}


@kernel(borrows=True)
def mean_factor(model):
    """Mean over the planes of the factor by which resampling lowers the variance."""
    total = 0.0
    for k in range(model.shape[1]):
        total += model[3, k]
    return np.float32(total / model.shape[1])


@kernel(borrows=True)
def settle(queue, width, model, blur, limits, lanes, place, owner, planes, counts, marks):
    """Find the fixed point of all queued lanes, and write them.

    First samples are dropped from the plain mean, the worst before others (on the worse side, those beyond 0.7 of the
    worst), until all that are left agree with the model. Then all are tested again, also those dropped before, against
    the spread of what is kept (mixed with the model as `limits[3]` degrees of freedom), until the set stands still.
    A lane is written when it is finished; the others move up when they are less than half.
    """
    x, kept = queue[0], queue[1]
    q = mean_factor(model)
    padded = _pad(x, kept, lanes, width)
    _keep_all(x, kept, model, lanes, padded)
    for j in range(width):
        lanes[_QSTATE + j], lanes[_QCHI + j] = _PURGE, _ZERO
        if lanes[_QCOUNT + j] <= 2.0:
            _settle_pair(x, kept, model, blur, lanes, j, limits[4])
            _write_lane(x, kept, lanes, limits[4], j, place, owner, planes, counts, marks)
            lanes[_QSTATE + j] = _DONE
    purging = True
    for _ in range(_MAX_PASSES):
        _prepare(lanes, q, limits[4], padded)
        if purging:
            _find_worst(x, kept, model, blur, limits, lanes, padded)
        _set_limits(lanes, limits, width)
        _retest(x, kept, model, blur, limits, lanes, padded)
        unfinished, purging = 0, False
        for j in range(width):
            purging |= lanes[_QSTATE + j] == _PURGE
            if lanes[_QSTATE + j] == _SETTLE and lanes[_QCHANGED + j] == _ZERO:
                lanes[_QSTATE + j] = _DONE
                _write_lane(x, kept, lanes, limits[4], j, place, owner, planes, counts, marks)
            unfinished += 1 if lanes[_QSTATE + j] != _DONE else 0
        if unfinished == 0:
            return
        if 2 * unfinished <= width and width > 16:
            width = _move_up(x, kept, lanes, place, width)
            padded = _pad(x, kept, lanes, width)
    for j in range(width):
        if lanes[_QSTATE + j] != _DONE:
            _write_lane(x, kept, lanes, limits[4], j, place, owner, planes, counts, marks)


@part(borrows=True)
def _pad(x, kept, lanes, width):
    """Fill the lanes up to a multiple of 16 with empty ones; how many that makes."""
    padded = (width + 15) // 16 * 16
    for j in range(width, padded):
        for row in range(16):
            lanes[row * QUEUE + j] = _ZERO
        lanes[_QSTATE + j] = _DONE
        for k in range(x.shape[0]):
            x[k, j], kept[k, j] = MISSING, _ZERO
    return padded


@part(borrows=True)
def _move_up(x, kept, lanes, place, width):
    """Close the gaps that finished lanes leave; how many are left."""
    left = 0
    for j in range(width):
        if lanes[_QSTATE + j] == _DONE:
            continue
        if left != j:
            place[0, left], place[1, left] = place[0, j], place[1, j]
            for row in range(16):
                lanes[row * QUEUE + left] = lanes[row * QUEUE + j]
            for k in range(x.shape[0]):
                x[k, left], kept[k, left] = x[k, j], kept[k, j]
        left += 1
    return left


@part(borrows=True, fastmath=_FAST)
def _keep_all(x, kept, model, lanes, width):
    """Start: every sample is kept."""
    for j in range(width):
        lanes[_QTOTAL + j], lanes[_QWEIGHT + j], lanes[_QCOUNT + j] = _ZERO, _ZERO, _ZERO
        lanes[_QSUM_A + j], lanes[_QSUM_B + j] = _ZERO, _ZERO
    for k in range(x.shape[0]):
        row, to = x[k, :width], kept[k, :width]
        weight = model[0, k]
        wa, wb = weight * model[1, k], weight * model[2, k]
        for j in range(width):
            present = row[j] < PRESENT
            c = weight if present else _ZERO
            to[j] = c
            lanes[_QTOTAL + j] += c * row[j]
            lanes[_QWEIGHT + j] += c
            lanes[_QSUM_A + j] += c * wa
            lanes[_QSUM_B + j] += c * wb
            lanes[_QCOUNT + j] += _ONE if present else _ZERO


@part(borrows=True)
def _settle_pair(x, kept, model, blur, lanes, j, level):
    """Two samples: the higher goes if they differ by more than 5 sigma (satellites and cosmic rays are positive)."""
    top, bottom = -1, -1
    for k in range(x.shape[0]):
        if kept[k, j] > _ZERO and (top < 0 or x[k, j] > x[top, j]):
            top = k
    for k in range(x.shape[0]):
        if kept[k, j] > _ZERO and k != top:
            bottom = k
    if bottom < 0:
        return
    signal = max(x[bottom, j] - level, _ZERO)
    spread = _ZERO
    for k in (top, bottom):
        spread += model[3, k] * (model[1, k] + model[2, k] * signal)
        spread += blur[0, k] * lanes[QSLOPE + j] + blur[1, k] * lanes[QBEND + j]
    d = x[top, j] - x[bottom, j]
    if d * d > _PAIR_LIMIT * _PAIR_LIMIT * spread:
        w = kept[bottom, j]
        kept[top, j] = _ZERO
        lanes[_QTOTAL + j], lanes[_QWEIGHT + j], lanes[_QCOUNT + j] = w * x[bottom, j], w, _ONE
        lanes[_QSUM_A + j], lanes[_QSUM_B + j] = w * w * model[1, bottom], w * w * model[2, bottom]


@kernel(borrows=True, fastmath=_FAST)
def _prepare(lanes, q, level, width):
    """Mean, signal, variance of the mean and -2 / weight of what is kept."""
    for j in range(width):
        w = lanes[_QWEIGHT + j]
        inverse = _ONE / w if w > _ZERO else _ZERO
        mean = lanes[_QTOTAL + j] * inverse
        signal = max(mean - level, _ZERO)
        lanes[_QMEAN + j] = mean
        lanes[_QSIGNAL + j] = signal
        lanes[_QINVERSE + j] = np.float32(-2.0) * inverse
        lanes[_QERROR + j] = q * (lanes[_QSUM_A + j] + lanes[_QSUM_B + j] * signal) * inverse * inverse
        lanes[_QLOW + j] = _ZERO
        lanes[_QHIGH + j] = _ZERO


@part(borrows=True, fastmath=_FAST)
def _find_worst(x, kept, model, blur, limits, lanes, width):
    """Largest (distance / limit)^2 of the kept samples below and above the mean, into the lanes' limits."""
    low2, high2 = limits[0], limits[1]
    for k in range(x.shape[0]):
        row, c = x[k, :width], kept[k, :width]
        f = model[3, k]
        variance, growth, g2, h2 = f * model[1, k], f * model[2, k], blur[0, k], blur[1, k]
        for j in range(width):
            d = row[j] - lanes[_QMEAN + j]
            v = variance + growth * lanes[_QSIGNAL + j] + g2 * lanes[QSLOPE + j] + h2 * lanes[QBEND + j]
            spread = v * max(_ONE + c[j] * lanes[_QINVERSE + j], LEAST) + lanes[_QERROR + j]
            ratio = d * d / ((high2 if d > _ZERO else low2) * spread)
            ratio = ratio if c[j] > _ZERO else _ZERO
            above = ratio if d > _ZERO else _ZERO
            below = ratio if d < _ZERO else _ZERO
            lanes[_QHIGH + j] = max(above, lanes[_QHIGH + j])
            lanes[_QLOW + j] = max(below, lanes[_QLOW + j])


@part(borrows=True)
def _set_limits(lanes, limits, width):
    """From the worst on both sides to the limits of this pass, in units of the user's limits, squared.

    While purging, only the worse side loses samples (the high one when they are equal), so that never all are lost.
    """
    eps, prior = limits[2], limits[3]
    for j in range(width):
        low, high = lanes[_QLOW + j], lanes[_QHIGH + j]
        if lanes[_QSTATE + j] == _PURGE and max(low, high) > _ONE:
            upper = high >= low
            lanes[_QHIGH + j] = max(_ONE, np.float32(0.49) * high) if upper else MISSING
            lanes[_QLOW + j] = MISSING if upper else max(_ONE, np.float32(0.49) * low)
        else:
            if lanes[_QSTATE + j] == _PURGE:
                lanes[_QSTATE + j] = _SETTLE
            spread = (prior + lanes[_QCHI + j] / eps) / (prior + lanes[_QCOUNT + j] - _ONE)
            lanes[_QLOW + j] = max(spread, _ONE)
            lanes[_QHIGH + j] = lanes[_QLOW + j]


@part(borrows=True, fastmath=_FAST)
def _retest(x, kept, model, blur, limits, lanes, width):
    """Keep or drop every sample, and sum what is kept (finished lanes are written already and do not matter)."""
    low2, high2 = limits[0], limits[1]
    for row in (_QTOTAL, _QWEIGHT, _QSUM_A, _QSUM_B, _QCOUNT, _QCHI, _QCHANGED):
        for j in range(width):
            lanes[row + j] = _ZERO
    for k in range(x.shape[0]):
        row, c = x[k, :width], kept[k, :width]
        f, weight = model[3, k], model[0, k]
        wa, wb = weight * model[1, k], weight * model[2, k]
        variance, growth, g2, h2 = f * model[1, k], f * model[2, k], blur[0, k], blur[1, k]
        for j in range(width):
            was, value = c[j], row[j]
            d = value - lanes[_QMEAN + j]
            v = variance + growth * lanes[_QSIGNAL + j] + g2 * lanes[QSLOPE + j] + h2 * lanes[QBEND + j]
            spread = v * max(_ONE + was * lanes[_QINVERSE + j], LEAST) + lanes[_QERROR + j]
            # all loads stand outside of conditions: otherwise the loop stays scalar
            upper, lower = high2 * lanes[_QHIGH + j], low2 * lanes[_QLOW + j]
            allowed = was + lanes[_QSTATE + j]
            limit = upper if d > _ZERO else lower
            new = weight if d * d <= limit * spread else _ZERO
            # while purging nothing comes back
            new = new if allowed > _ZERO else _ZERO
            new = new if value < PRESENT else _ZERO
            c[j] = new
            chi = d * d / v
            chi = chi if new > _ZERO else _ZERO
            one = _ONE if new > _ZERO else _ZERO
            lanes[_QCHI + j] += chi
            lanes[_QCHANGED + j] += abs(new - was)
            lanes[_QTOTAL + j] += new * value
            lanes[_QWEIGHT + j] += new
            lanes[_QSUM_A + j] += new * wa
            lanes[_QSUM_B + j] += new * wb
            lanes[_QCOUNT + j] += one


@part(borrows=True)
def _write_lane(x, kept, lanes, level, j, place, owner, planes, counts, marks):
    """Combine what is kept and write a lane to its place; among many planes in float64."""
    y, column = place[0, j], place[1, j]
    total, weight = float(lanes[_QTOTAL + j]), float(lanes[_QWEIGHT + j])
    a, b, n = lanes[_QSUM_A + j], lanes[_QSUM_B + j], lanes[_QCOUNT + j]
    offered = planes[2, y, column]
    if n == _ZERO or (offered >= _MAJORITY_FROM and n + n < offered):
        # no majority agrees: the plain mean that the row pass left there stands
        return
    if x.shape[0] > GROUP:
        total, weight = 0.0, 0.0
        for k in range(x.shape[0]):
            c = float(kept[k, j])
            total += c * x[k, j] if c > 0.0 else 0.0
            weight += c
    mean = total / weight
    signal = max(mean - level, 0.0)
    dropped = offered - n
    planes[0, y, column] = mean
    planes[1, y, column] = np.sqrt((a + b * signal) * CLIP_LOSS) / weight
    planes[2, y, column] = n
    k = 0
    while dropped > _ZERO:
        if kept[k, j] == _ZERO and x[k, j] < PRESENT:
            side = 1 if x[k, j] > mean else 0
            planes[3 + side, y, column] += _ONE
            counts[owner[k], side] += 1
            if marks.size > 0:
                marks[k, y, column] = 1
            dropped -= _ONE
        k += 1
