"""Defects: pixels that do not tell what falls on them, found in the master dark, the master flat, or the subs themselves.

In: a master, or sharp detections of many subs. Out: flat indices of pixels, sorted int32.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.ndimage import median_filter

__all__ = ["defects_from_dark", "defects_from_flat", "defects_from_subs"]

_COLUMN_SIGMA = 6.0


def defects_from_dark(dark: np.ndarray, *, sigma: float, cfa: str | None = None) -> np.ndarray:
    """Pixels of a master dark that stand out of their neighbors.

    Parameters
    ----------
    dark : (y, x) float32     ADU
    sigma : float             limit in robust sigma of the difference to the median of the 8 neighbors (of one color)
    """
    return _standing_out(dark, sigma, cfa)


def defects_from_flat(flat: np.ndarray, *, sigma: float, cfa: str | None = None) -> np.ndarray:
    """Pixels of a master flat (mean 1) whose sensitivity is not their neighbors', and bad columns and rows."""
    bad = np.zeros(flat.shape, bool)
    bad.reshape(-1)[_standing_out(flat, sigma, cfa)] = True
    for axis in (0, 1):
        line = _middles(flat, axis)
        step = 2 if cfa else 1
        for phase in range(step):
            part = line[phase::step]
            away = part - median_filter(part, 9, mode="nearest")
            spread = _robust_sigma(away)
            lines = np.flatnonzero(np.abs(away) > max(_COLUMN_SIGMA * spread, 0.05)) * step + phase
            if axis == 0:
                bad[:, lines] = True
            else:
                bad[lines] = True
    bad |= ~np.isfinite(flat) | (flat < 0.05)
    return np.flatnonzero(bad).astype(np.int32)


def defects_from_subs(
    spikes: list[np.ndarray], places: np.ndarray, *, shape: tuple[int, int], least: int = 3
) -> np.ndarray:
    """Sharp detections that stay at one pixel of the sensor while the pointing moves.

    Parameters
    ----------
    spikes : per sub (m, 3) float64 x, y, height
    places : (n, 2) float64     pointing of each sub on the sky, in pixels: shift of its center
    least : int                 subs of different pointing (more than 2 px apart) in which it must be seen
    """
    seen: dict[int, list[int]] = {}
    for k, table in enumerate(spikes):
        ys, xs = np.rint(table[:, 1]).astype(int), np.rint(table[:, 0]).astype(int)
        inside = (ys >= 0) & (xs >= 0) & (ys < shape[0]) & (xs < shape[1])
        for index in set((ys[inside] * shape[1] + xs[inside]).tolist()):
            seen.setdefault(index, []).append(k)
    return np.array(sorted(i for i, subs in seen.items() if _different(places[subs]) >= least), np.int32)


def _different(places: np.ndarray) -> int:
    """Number of places that are more than 2 px from all before them."""
    kept: list[np.ndarray] = []
    for place in places:
        if all(np.hypot(*(place - other)) > 2.0 for other in kept):
            kept.append(place)
    return len(kept)


def _standing_out(image: np.ndarray, sigma: float, cfa: str | None) -> np.ndarray:
    """Flat indices of pixels that differ from the median around them; colors apart."""
    step = 2 if cfa else 1
    away = np.empty(image.shape, np.float32)
    _away_from_neighbors(np.ascontiguousarray(image, np.float32), step, away)
    bad = np.zeros(image.shape, bool)
    for oy in range(step):
        for ox in range(step):
            part = away[oy::step, ox::step]
            bad[oy::step, ox::step] = np.abs(part) > sigma * max(_robust_sigma(part), 1e-6)
    return np.flatnonzero(bad).astype(np.int32)


@njit(cache=True, nogil=True, error_model="numpy")
def _away_from_neighbors(image, step, away):  # pragma: no cover
    """Difference of each pixel to the median of the 8 pixels of its color around it (edges mirrored)."""
    height, width = image.shape
    for y in range(height):
        upper = image[y - step if y >= step else y + step]
        row, out = image[y], away[y]
        lower = image[y + step if y + step < height else y - step]
        n = width - 2 * step
        # Slices of one length, so that the loop over them becomes vector code.
        a, b, c = upper[:n], upper[step : step + n], upper[2 * step :]
        d, middle, e = row[:n], row[step : step + n], row[2 * step :]
        f, g, h = lower[:n], lower[step : step + n], lower[2 * step :]
        inner = out[step : step + n]
        for x in range(n):
            inner[x] = middle[x] - _middle_of_eight(a[x], b[x], c[x], d[x], e[x], f[x], g[x], h[x])
        for x in range(width):
            if step <= x < width - step:
                continue
            left = x - step if x >= step else x + step
            right = x + step if x + step < width else x - step
            out[x] = row[x] - _middle_of_eight(
                upper[left], upper[x], upper[right], row[left], row[right], lower[left], lower[x], lower[right]
            )
        for x in range(width):
            out[x] = out[x] if out[x] == out[x] else np.float32(0.0)


@njit(nogil=True, error_model="numpy", inline="always")
def _middle_of_eight(a, b, c, d, e, f, g, h):
    """Median of eight: two sorted fours; the low half are the minima of one with the other reversed."""
    a, b = min(a, b), max(a, b)
    c, d = min(c, d), max(c, d)
    a, c = min(a, c), max(a, c)
    b, d = min(b, d), max(b, d)
    b, c = min(b, c), max(b, c)
    e, f = min(e, f), max(e, f)
    g, h = min(g, h), max(g, h)
    e, g = min(e, g), max(e, g)
    f, h = min(f, h), max(f, h)
    f, g = min(f, g), max(f, g)
    low = max(max(min(a, h), min(b, g)), max(min(c, f), min(d, e)))
    high = min(min(max(a, h), max(b, g)), min(max(c, f), max(d, e)))
    return np.float32(0.5) * (low + high)


def _middles(flat: np.ndarray, axis: int) -> np.ndarray:
    """Median of each column (axis 0) or row (axis 1), from every 7th pixel along it."""
    return np.nanmedian(flat[::7] if axis == 0 else flat[:, ::7], axis=axis)


def _robust_sigma(values: np.ndarray) -> float:
    sample = values.reshape(-1)[:: max(1, values.size // 200_000)]
    return float(1.4826 * np.median(np.abs(sample - np.median(sample))))
