"""Winsorized sigma clipping of one pixel's sorted samples, and the sums that clipping rules are made of.

Winsorized clipping clamps the samples at 1.5 sigma about their median and takes 1.134 standard deviations as the new
sigma, until sigma stands still (5e-4); it leaves out what lies beyond `low` and `high` sigma, and starts again until
nothing is left out. That walk need not be gone to its end. Sigma only falls on the way, and the sigma of clamped samples
grows with the bound they are clamped at: if samples clamped at 1.5 s have a sigma of s or more, sigma never falls below
s. So one evaluation proves that a sample s sigma away is kept, and every sigma on the way proves which are not.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = ["WINSOR", "deviation", "keep_winsorized", "middle_of", "running_sums"]

WINSOR = 1.134
"""1 / standard deviation of a normal distribution clipped at 1.5 sigma."""


@part(borrows=True)
def running_sums(v, sums):
    """Sums of deviations from the median of all, and of their squares, before each sample."""
    center = middle_of(v, np.int64(0), v.size)
    sums[0, 0], sums[1, 0] = 0.0, 0.0
    for k in range(v.size):
        d = v[k] - center
        sums[0, k + 1], sums[1, k + 1] = sums[0, k] + d, sums[1, k] + d * d


@part(borrows=True)
def middle_of(v, a, b):
    """Median of v[a:b], sorted."""
    return 0.5 * (v[(a + b - 1) // 2] + v[(a + b) // 2])


@kernel(borrows=True)
def deviation(sums, a, b):
    """Standard deviation (ddof 1) of the samples a..b-1 from running sums."""
    n = b - a
    s, q = sums[0, b] - sums[0, a], sums[1, b] - sums[1, a]
    return np.sqrt(max(q - s * s / n, 0.0) / (n - 1))


@part(borrows=True)
def keep_winsorized(v, low, high, running):
    """Kept slice [a, b) of the sorted samples `v` (float64)."""
    a, b = np.int64(0), v.size  # a bare 0 would be a type of its own, for which all below is compiled as well
    if b < 3:
        return a, b
    running_sums(v, running)
    center = middle_of(v, a, b)
    while b - a >= 3:
        c, d = _inside(v, running, center, a, b, low, high)
        if (c == a and d == b) or c == d:
            break
        a, b = c, d
    return a, b


@kernel(borrows=True)
def _inside(v, running, center, a, b, low, high):
    """Those of v[a:b] within `low` and `high` winsorized sigma of their median."""
    middle = middle_of(v, a, b)
    floor = 1e-12 * max(abs(v[a]), abs(v[b - 1]))
    least = 1e-6 * abs(middle)
    sigma, bound = deviation(running, a, b), np.inf
    e, f = a, b  # not clamped
    c, d, tested = a, b, 0
    for _ in range(100):
        if sigma <= floor:
            break
        bound = min(bound, 1.5 * sigma)
        now, e, f = _clamped_sigma(v, running, center, a, b, middle, bound, e, f)
        settled = abs(now - sigma) <= 5e-4 * sigma
        sigma = now
        if settled:
            break
        # What is beyond this sigma is beyond every later one; is the rest within every later one?
        limit = max(sigma, least)
        while c < d and middle - v[c] > low * limit:
            c += 1
        while d > c and v[d - 1] - middle > high * limit:
            d -= 1
        if c == d:
            return c, d
        if d - c != tested:
            tested = d - c
            s = max((middle - v[c]) / low, (v[d - 1] - middle) / high)
            if 1.5 * s <= bound and _clamped_sigma(v, running, center, a, b, middle, 1.5 * s, e, f)[0] > s * (1 + 1e-9):
                return c, d
    sigma = max(sigma, least)
    c, d = a, b
    while c < d and middle - v[c] > low * sigma:
        c += 1
    while d > c and v[d - 1] - middle > high * sigma:
        d -= 1
    return c, d


@part(borrows=True)
def _clamped_sigma(v, running, center, a, b, middle, bound, e, f):
    """1.134 standard deviations of v[a:b] clamped at +- bound, and the slice within; v[e:f] holds that slice."""
    while e < f and v[e] < middle - bound:
        e += 1
    while f > e and v[f - 1] > middle + bound:
        f -= 1
    n = b - a
    low, high = middle - bound - center, middle + bound - center
    s = running[0, f] - running[0, e] + (e - a) * low + (b - f) * high
    q = running[1, f] - running[1, e] + (e - a) * low * low + (b - f) * high * high
    return WINSOR * np.sqrt(max(q - s * s / n, 0.0) / (n - 1)), e, f
