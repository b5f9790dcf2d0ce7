"""Log-odds of a match of two star lists: what it explains against what chance would (Lang et al. 2010).

In: positions of two frames' stars, brightest first, and candidates: similarities of the first to the second. Out: the
best candidate, refined through its pairs from coarse to fine, with its log-odds and the number of pairs.

References
----------
.. [1] Lang et al., Astrometry.net: blind astrometric calibration of arbitrary astronomical images, AJ 139, 1782 (2010),
   section 3.4
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = ["MIN_PAIRS", "best_candidate", "stationary_points"]

MIN_PAIRS = 6
"""A match of fewer stars is never believed."""
_DISTRACTORS = 0.7
"""Share of stars that may have no partner at all."""


@kernel
def best_candidate(xy_a, xy_b, by_x, candidates, height, width, sigma_px, accept):  # pragma: no cover
    """Log-odds, pairs and similarity of the best candidate; the emptier cells only while none passes."""
    score, pairs, best = -1e9, 0, np.zeros(5)
    for c in range(len(candidates)):
        if c >= 4 and score > accept and pairs >= MIN_PAIRS:
            break
        s, n, q = _verify(xy_a, xy_b, by_x, candidates[c], height, width, sigma_px)
        if s > score:
            score, pairs, best = s, n, q
    return score, pairs, best


@part
def _verify(xy_a, xy_b, by_x, p, height, width, sigma_px):  # pragma: no cover
    """Log-odds, pairs and refined similarity of a candidate, from coarse to fine."""
    n_a, n_b = len(xy_a), len(xy_b)
    area = height * width
    score, peak_pairs = -1e9, 0
    partner = np.full(n_a, -1, np.int64)
    used = np.zeros(n_b, np.bool_)
    q = p.copy()
    for step in range(3):
        sigma = sigma_px * (4.0, 2.0, 1.0)[step]
        partner[:] = -1
        used[:] = False
        sign = -1.0 if q[4] > 0.5 else 1.0
        total, peak, inside, pairs, peak_pairs = 0.0, -1e9, 0, 0, 0
        most = np.log((1 - _DISTRACTORS) / n_b * area / (2 * np.pi * sigma * sigma))
        for i in range(n_a):
            x = q[0] * xy_a[i, 0] - q[1] * sign * xy_a[i, 1] + q[2]
            y = q[1] * xy_a[i, 0] + q[0] * sign * xy_a[i, 1] + q[3]
            if x < 0 or y < 0 or x > width - 1 or y > height - 1:
                continue
            inside += 1
            nearest, at = _nearest(xy_b, by_x, used, x, y, 4.0 * sigma)
            if at >= 0:
                used[at] = True
                partner[i] = at
                pairs += 1
                total += np.log(np.exp(most - 0.5 * nearest / (sigma * sigma)) + _DISTRACTORS)
            else:
                total += np.log(_DISTRACTORS)
            if total > peak:
                peak, peak_pairs = total, pairs
        # Two stars' positions pay for the four parameters.
        score = peak - 2.0 * max(most, 0.0) - np.log(inside + 1.0)
        if pairs < 3:
            return -1e9, 0, q
        q = _similarity(xy_a, xy_b, partner, q, sigma)
    return score, peak_pairs, q


@kernel(borrows=True)
def _nearest(xy, by_x, used, x, y, radius):  # pragma: no cover
    """Squared distance and index of the nearest unused point within `radius`; -1 for none."""
    low, high = 0, len(by_x)
    while low < high:
        mid = (low + high) // 2
        if xy[by_x[mid], 0] < x - radius:
            low = mid + 1
        else:
            high = mid
    nearest, at = radius * radius, -1
    while low < len(by_x) and xy[by_x[low], 0] <= x + radius:
        j = by_x[low]
        r2 = (xy[j, 0] - x) ** 2 + (xy[j, 1] - y) ** 2
        if r2 < nearest and not used[j]:
            nearest, at = r2, j
        low += 1
    return nearest, at


@kernel
def stationary_points(xy_a, xy_b, by_x, radius):  # pragma: no cover
    """Which points of both lists have one of the other within `radius`."""
    stays_a = np.zeros(len(xy_a), np.bool_)
    stays_b = np.zeros(len(xy_b), np.bool_)
    free = np.zeros(len(xy_b), np.bool_)
    for i in range(len(xy_a)):
        _, at = _nearest(xy_b, by_x, free, xy_a[i, 0], xy_a[i, 1], radius)
        if at >= 0:
            stays_a[i] = True
            stays_b[at] = True
    return stays_a, stays_b


@part
def _similarity(xy_a, xy_b, partner, q, sigma):  # pragma: no cover
    """Similarity through pairs, with Tukey weights around the one in hand."""
    sign = -1.0 if q[4] > 0.5 else 1.0
    out = q.copy()
    weights = np.zeros(len(xy_a))
    for _ in range(2):
        weight_sum, zm, wm = 0.0, 0j, 0j
        for i in range(len(xy_a)):
            j = partner[i]
            if j >= 0:
                x = out[0] * xy_a[i, 0] - out[1] * sign * xy_a[i, 1] + out[2]
                y = out[1] * xy_a[i, 0] + out[0] * sign * xy_a[i, 1] + out[3]
                u = ((x - xy_b[j, 0]) ** 2 + (y - xy_b[j, 1]) ** 2) / (16.0 * sigma * sigma)
                weights[i] = (1 - u) ** 2 if u < 1 else 0.0
                weight_sum += weights[i]
                zm += weights[i] * complex(xy_a[i, 0], sign * xy_a[i, 1])
                wm += weights[i] * complex(xy_b[j, 0], xy_b[j, 1])
        if weight_sum < 1e-6:
            return out
        zm /= weight_sum
        wm /= weight_sum
        up, down = 0j, 1e-12
        for i in range(len(xy_a)):
            if partner[i] >= 0 and weights[i] > 0:
                z = complex(xy_a[i, 0], sign * xy_a[i, 1]) - zm
                up += weights[i] * (complex(xy_b[partner[i], 0], xy_b[partner[i], 1]) - wm) * z.conjugate()
                down += weights[i] * (z.real * z.real + z.imag * z.imag)
        alpha = up / down
        beta = wm - alpha * zm
        out[0], out[1], out[2], out[3] = alpha.real, alpha.imag, beta.real, beta.imag
    return out
