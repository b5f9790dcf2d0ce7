"""Slow, obvious versions of the kernels' formulas."""

from __future__ import annotations

import numpy as np

# ------------------------------------------------------------------------------------------------------------- warp


def lanczos_weights(t):
    """Normalized Lanczos-3 weights at fractions `t`, (6, ...)."""
    x = np.arange(-2, 4).reshape(-1, *([1] * np.ndim(t))) - t
    w = np.sinc(x) * np.sinc(x / 3)
    return w / w.sum(axis=0)


def lanczos_sample(image, ys, xs):
    """36 taps at positions; taps beyond the image are cut off to its edge."""
    i, j = np.floor(ys).astype(int), np.floor(xs).astype(int)
    wy, wx = lanczos_weights(ys - i), lanczos_weights(xs - j)
    out = np.zeros(np.shape(ys))
    for a in range(6):
        for b in range(6):
            row = np.clip(i + a - 2, 0, image.shape[0] - 1)
            column = np.clip(j + b - 2, 0, image.shape[1] - 1)
            out += wy[a] * wx[b] * image[row, column]
    return out


def held_lanczos(v, t, share):
    """Six values at fraction `t` between the third and the fourth; what would ring is held."""
    w = lanczos_weights(t)
    positive, negative = float(np.sum((w * v)[w > 0])), -float(np.sum((w * v)[w < 0]))
    value = positive - negative
    rings = positive > 0 and negative > share * positive and value < min(v[2], v[3])
    return min(positive * (1 - share), float(min(v[2], v[3]))) if rings else value


def bilinear_sample(image, ys, xs):
    """4 taps at positions; taps beyond the image are cut off to its edge."""
    i, j = np.floor(ys).astype(int), np.floor(xs).astype(int)
    v, u = ys - i, xs - j
    h, w = image.shape

    def pixel(a, b):
        return image[np.clip(i + a, 0, h - 1), np.clip(j + b, 0, w - 1)].astype(float)

    upper = pixel(0, 0) * (1 - u) + pixel(0, 1) * u
    lower = pixel(1, 0) * (1 - u) + pixel(1, 1) * u
    return upper * (1 - v) + lower * v


def pad_mirrored(image, n):
    """The image with `n` mirrored pixels on every side."""
    return np.pad(image, n, mode="reflect")


def rotation(degrees, center, shift=(0.0, 0.0), scale=1.0):
    a = np.deg2rad(degrees)
    m = np.eye(3)
    m[:2, :2] = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    m[:2, 2] = np.array(center) - m[:2, :2] @ center + shift
    return m


def positions(matrix, rows, columns, at=(0, 0)):
    y, x = np.mgrid[at[0] : at[0] + rows, at[1] : at[1] + columns].astype(float)
    z = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    sx = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / z
    sy = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]) / z
    return sy, sx


# -------------------------------------------------------------------------------------- rejection, one pixel at a time


def clip_sigma(x, low, high, *, spread):
    """Kept samples of iterated clipping about the median; `spread(kept, median)` gives sigma."""
    kept = np.sort(np.asarray(x, float))
    while kept.size >= 3:
        m = np.median(kept)
        s = max(spread(kept, m), 1e-6 * abs(m))
        new = kept[(m - kept <= low * s) & (kept - m <= high * s)]
        if new.size in (kept.size, 0):
            break
        kept = new
    return kept


def standard_deviation(kept, _):
    """Sample standard deviation."""
    return kept.std(ddof=1)


def scaled_mad(kept, m):
    """1.4826 MAD."""
    return 1.482602218505602 * np.median(np.abs(kept - m))


def winsorized_deviation(kept, m):
    """1.134 standard deviations of the samples winsorized at 1.5 sigma, until sigma stands still."""
    w, s = kept.copy(), kept.std(ddof=1)
    for _ in range(100):
        if s <= 1e-12 * np.abs(kept).max():
            break
        w = np.clip(w, m - 1.5 * s, m + 1.5 * s)
        now = 1.134 * w.std(ddof=1)
        done = abs(now - s) <= 5e-4 * s
        s = now
        if done:
            break
    return s


def keep_minmax(x, low, high):
    """Samples without the lowest and highest ones."""
    x = np.sort(x)
    if x.size < 4:
        return x
    least = max(2, -(-x.size // 2))
    low = min(low, x.size - least)
    high = min(high, x.size - least - low)
    return x[low : x.size - high]


def keep_percentile(x, low, high):
    """Samples within fractions of the absolute median."""
    m = np.median(x)
    kept = x[(m - x <= low * abs(m)) & (x - m <= high * abs(m))]
    return kept if kept.size else x


def keep_by_noise(x, variance, growth, low, high, *, prior, eps):
    """Mask of the kept samples by the published iteration: weighted median, then tests against the mean of the others."""
    w = 1 / variance
    order = np.argsort(x, kind="stable")
    running = np.cumsum(w[order])
    mu = x[order][np.searchsorted(running, running[-1] / 2)]
    n = x.size
    z = (x - mu) / np.sqrt(variance + growth * max(mu, 0))
    sm = 1.4826 * np.median(abs(z)) * np.sqrt(n / (n - 0.8))
    s2 = max((prior + 0.37 * (n - 1) * sm**2) / (prior + 0.37 * (n - 1)), 1)
    kept = np.ones(n, bool)
    for _ in range(12):
        v = variance + growth * max(mu, 0)
        total, weight = (w * x)[kept].sum(), w[kept].sum()
        others = weight - np.where(kept, w, 0)
        mean = (total - np.where(kept, w * x, 0)) / np.where(others > 0, others, 1)
        error = (
            np.array([((w**2 * v)[kept & (np.arange(n) != i)]).sum() for i in range(n)])
            / np.maximum(others, 1e-30) ** 2
        )
        r = np.where(others > 0, (x - mean) / np.sqrt(v + error), 0)
        new = (r >= -low * np.sqrt(s2)) & (r <= high * np.sqrt(s2))
        if not new.any():
            break
        mu = (w * x)[new].sum() / w[new].sum()
        chi = ((x - mu) ** 2 / v)[new].sum() / eps
        s2 = max((prior + chi) / (prior + new.sum() - 1), 1)
        if (new == kept).all():
            break
        kept = new
    return kept
