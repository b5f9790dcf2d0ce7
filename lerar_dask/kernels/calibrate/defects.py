"""Defects: pixels that do not tell what falls on them, found in the master dark, the master flat, or the subs themselves.

In: a master, or sharp detections of many subs. Out: flat indices of pixels, sorted int32.
"""

from __future__ import annotations

import math

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.robust.medians import median

__all__ = ["defects_from_dark", "defects_from_flat", "defects_from_subs"]

_COLUMN_SIGMA = 6.0
_LINE_SHADE = 0.05
"""A bad column or row differs at least by this from those around it."""
_DARKEST = 0.05
"""Pixels of a flat (mean 1) below this get no light."""
_FALSE = 1e-3
"""Pixels of a sensor on which detections may meet by chance."""
_SAMPLE_PX = 200_000
"""Pixels that tell the spread."""


def defects_from_dark(dark: np.ndarray, *, sigma: float, cfa: str | None = None) -> np.ndarray:
    """Pixels of a master dark that stand out of their neighbors.

    Parameters
    ----------
    dark : (y, x) float32     ADU
    sigma : float             limit in robust sigma of the difference to the median of the 8 neighbors (of one color)
    """
    none = np.zeros(dark.shape[0], bool), np.zeros(dark.shape[1], bool)
    return _standing_out(dark, sigma, cfa, *none, least=-np.inf)


def defects_from_flat(flat: np.ndarray, *, sigma: float, cfa: str | None = None) -> np.ndarray:
    """Pixels of a master flat (mean 1) whose sensitivity is not their neighbors', and bad columns and rows."""
    step = 2 if cfa else 1
    rows, columns = _bad_lines(flat.T, step), _bad_lines(flat, step)
    return _standing_out(flat, sigma, cfa, rows, columns, least=_DARKEST)


_TERMS = 400
"""Of a Poisson distribution whose mean is at most 5."""


def defects_from_subs(
    spikes: list[np.ndarray], places: np.ndarray, *, shape: tuple[int, int], least: int = 3
) -> np.ndarray:
    """Sharp detections that stay at one pixel of the sensor while the pointing moves.

    Parameters
    ----------
    spikes : per sub (m, 3) float64 x, y, height
    places : (n, 2) float64     pointing of each sub on the sky, in pixels: shift of its center
    least : int                 subs of different pointing (more than 2 px apart) in which it must be seen, or more where
        there are so many detections that chance alone lets some meet; half of the subs is always enough
    """
    rows = []
    for k, table in enumerate(spikes):
        ys, xs = np.rint(table[:, 1]).astype(np.int64), np.rint(table[:, 0]).astype(np.int64)
        inside = (ys >= 0) & (xs >= 0) & (ys < shape[0]) & (xs < shape[1])
        pixels = np.unique(ys[inside] * shape[1] + xs[inside])
        rows.append(np.column_stack([pixels, np.full(len(pixels), k)]))
    seen = np.concatenate(rows) if rows else np.zeros((0, 2), np.int64)
    seen = seen[np.argsort(seen[:, 0], kind="stable")]
    # by how many pixels were ever seen, of which few are defects, not by how often: defects are seen again and again
    n_pixels = shape[0] * shape[1]
    by_chance = -np.log1p(-min(len(np.unique(seen[:, 0])) / n_pixels, 0.99))
    beyond_chance = _poisson_limit(by_chance, _FALSE / n_pixels) + 1
    least = max(least, min(beyond_chance, -(-len(spikes) // 2)))
    return _staying(seen[:, 0], np.ascontiguousarray(places, np.float64)[seen[:, 1]], least).astype(np.int32)


def _poisson_limit(mean: float, chance: float) -> int:
    """Least k that a Poisson variable of some mean, which is small, exceeds with no more than some chance.

    Summed from above, where the terms are; scipy.stats, which has it too, takes half a second to import.
    """
    terms = [math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) if mean > 0 else 0.0 for i in range(_TERMS)]
    beyond = 0.0
    for k in range(_TERMS - 1, -1, -1):
        beyond += terms[k]
        if beyond > chance:
            return k
    return 0


@kernel
def _staying(pixels, places, least):  # pragma: no cover
    """Pixels that at least so many detections show whose places are more than 2 px apart, of rows sorted by pixel."""
    found = np.empty(len(pixels), np.int64)
    kept = np.empty((least, 2))
    n_found, i = 0, 0
    while i < len(pixels):
        pixel, n = pixels[i], 0
        while i < len(pixels) and pixels[i] == pixel:
            apart = n < least
            for k in range(n if apart else 0):
                if (places[i, 0] - kept[k, 0]) ** 2 + (places[i, 1] - kept[k, 1]) ** 2 <= 4.0:
                    apart = False
                    break
            if apart:
                kept[n, 0], kept[n, 1] = places[i, 0], places[i, 1]
                n += 1
            i += 1
        if n == least:
            found[n_found] = pixel
            n_found += 1
    return found[:n_found].copy()


def _bad_lines(flat: np.ndarray, step: int) -> np.ndarray:
    """Columns of a flat that are brighter or darker than those around them; colors apart."""
    middles = _middles(flat)
    bad = np.zeros(len(middles), bool)
    for phase in range(step):
        part = middles[phase::step]
        around = np.lib.stride_tricks.sliding_window_view(np.pad(part, 4, mode="edge"), 9)
        away = part - np.median(around, axis=1)
        bad[phase::step] = np.abs(away) > max(_COLUMN_SIGMA * _robust_sigma(away), _LINE_SHADE)
    return bad


def _middles(flat: np.ndarray) -> np.ndarray:
    """Median of each column, from every 7th pixel along it."""
    columns = np.ascontiguousarray(flat[::7].T)
    return np.nanmedian(columns, axis=1) if np.isnan(columns).any() else median(columns, axis=1)


def _standing_out(
    image: np.ndarray, sigma: float, cfa: str | None, rows: np.ndarray, columns: np.ndarray, *, least: float
) -> np.ndarray:
    """Flat indices of pixels that differ from the median around them, colors apart; and of bad rows and columns.

    Parameters
    ----------
    rows, columns : (y,), (x,) bool     True: all pixels of it
    least : float                       below, and where there is no number, a pixel is bad; -inf: no such test
    """
    image = np.ascontiguousarray(image, np.float32)
    step = 2 if cfa else 1
    limits = np.empty((step, image.shape[1]), np.float32)
    for oy in range(step):
        for ox in range(step):
            spread = _robust_sigma(_some_away(image, step, oy, ox, _SAMPLE_PX))
            limits[oy, ox::step] = sigma * max(spread, 1e-6)
    return _find(image, step, limits, rows, columns, np.float32(least))


def _robust_sigma(sample: np.ndarray) -> float:
    return float("nan") if np.isnan(sample).any() else float(MAD_TO_SIGMA * median(np.abs(sample - median(sample))))


@kernel
def _find(image, step, limits, rows, columns, least):
    """Flat indices of all bad pixels, sorted int32."""
    height, width = image.shape
    away, bad = np.empty(width, np.float32), np.empty(width, np.bool_)
    found = np.empty(4 * width, np.int32)
    n = 0
    for y in range(height):
        row, limit = image[y], limits[y % step]
        _away_from_neighbors(image, y, step, away)
        for x in range(width):
            bad[x] = (abs(away[x]) > limit[x]) | columns[x] | rows[y]
        if least > -np.inf:
            for x in range(width):
                bad[x] |= not ((row[x] >= least) & (row[x] < np.inf))
        if n + width > found.size:
            more = np.empty(2 * found.size, np.int32)
            for i in range(n):  # assigning slices would compile two seconds of error texts
                more[i] = found[i]
            found = more
        for x in range(width):
            if bad[x]:
                found[n] = y * width + x
                n += 1
    return found[:n].copy()


@kernel
def _some_away(image, step, oy, ox, most):
    """Differences of every so-manieth pixel of a color, row after row; `most` of them, or up to twice as many."""
    n_rows, n_columns = (image.shape[0] - oy + step - 1) // step, (image.shape[1] - ox + step - 1) // step
    every = max(1, n_rows * n_columns // most)
    sample = np.empty((n_rows * n_columns + every - 1) // every, np.float32)
    for i in range(sample.size):
        at = i * every
        sample[i] = _away_at(image, oy + at // n_columns * step, ox + at % n_columns * step, step)
    return sample


@part(borrows=True)
def _away_from_neighbors(image, y, step, away):
    """Difference of each pixel of a row to the median of the 8 pixels of its color around it (edges mirrored)."""
    height, width = image.shape
    upper = image[y - step if y >= step else y + step]
    row = image[y]
    lower = image[y + step if y + step < height else y - step]
    n = width - 2 * step
    # Slices of one length, so that the loop over them becomes vector code.
    a, b, c = upper[:n], upper[step : step + n], upper[2 * step :]
    d, middle, e = row[:n], row[step : step + n], row[2 * step :]
    f, g, h = lower[:n], lower[step : step + n], lower[2 * step :]
    inner = away[step : step + n]
    for x in range(n):
        difference = middle[x] - _middle_of_eight(a[x], b[x], c[x], d[x], e[x], f[x], g[x], h[x])
        inner[x] = difference if difference == difference else np.float32(0.0)
    for x in range(step):
        away[x] = _away_at(image, y, x, step)
        away[width - 1 - x] = _away_at(image, y, width - 1 - x, step)


@part(borrows=True)
def _away_at(image, y, x, step):
    """Difference of one pixel to the median around it; 0 where that is no number."""
    height, width = image.shape
    upper = image[y - step if y >= step else y + step]
    lower = image[y + step if y + step < height else y - step]
    row = image[y]
    left = x - step if x >= step else x + step
    right = x + step if x + step < width else x - step
    difference = row[x] - _middle_of_eight(
        upper[left], upper[x], upper[right], row[left], row[right], lower[left], lower[x], lower[right]
    )
    return difference if difference == difference else np.float32(0.0)


@part(inline="always")
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
