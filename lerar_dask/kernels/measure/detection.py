"""Detection: local maxima of a sub smoothed with its own seeing.

In   a sub, its background level and noise per cell, the width of its stars
Out  candidates: whole-pixel position, SNR in the matched filter, sharpness, height of the peak

One pass along the rows: vertical and horizontal half of a Gaussian, the sky as a limit per pixel, and a count of what
exceeds it; only 64 px pieces with something above the limit are looked at more closely. Nothing of the size of a sub is
allocated. Wide stars are looked for on pixels binned 2x2 or 4x4.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import SIGMA_TO_FWHM
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.measure.background import cell_centers
from lerar_dask.kernels.robust.medians import median_of

__all__ = ["SINGLE", "detect_peaks", "halve"]

SINGLE = 0.08
"""Detections whose neighbors are fainter than this share of their peak are single pixels."""
_PIECE = 64
_WIDEST = 3.0
"""Stars wider than this, in pixels, are looked for on binned pixels."""
_ROOM = 20_000
"""Candidates that are kept while the rows go by; when full, the fainter half goes."""


def detect_peaks(
    image: np.ndarray, level: np.ndarray, noise: np.ndarray, *, cell_px: int, fwhm_px: float, sigma: float
) -> np.ndarray:
    """Local maxima above `sigma` times the noise of the smoothed sub, the highest first.

    Parameters
    ----------
    image : (y, x) float32               C-contiguous; nothing is found within reach of NaN
    level, noise : (gy, gx) float32      of the background; cells of `cell_px`
    fwhm_px : float                      width of the stars

    Returns
    -------
    peaks : (n, 5) float64     x, y, SNR, sharpness (mean of the 8 neighbors over the pixel; a star 0.2 to 1, a hot
        pixel 0), height of the pixel over the sky
    """
    factor = 1
    while fwhm_px / factor > _WIDEST and factor < 8:
        factor *= 2
    binned = image
    for _ in range(factor.bit_length() - 1):
        binned = halve(binned)
    if min(binned.shape) < 16:
        return np.zeros((0, 5))
    width = max(fwhm_px / factor, 1.2)
    # The noise of binned pixels is that of their mean.
    peaks = _detect(
        binned,
        level,
        noise / np.float32(factor),
        (cell_centers(image.shape[0], cell_px) - (factor - 1) / 2) / factor,
        (cell_centers(image.shape[1], cell_px) - (factor - 1) / 2) / factor,
        _taps(width),
        np.float32(sigma),
        max(1, round(0.6 * width)),
    )
    peaks[:, :2] = peaks[:, :2] * factor + (factor - 1) / 2
    if factor > 1:
        _to_single_pixels(image, peaks, factor)
    return peaks[np.lexsort((peaks[:, 0], peaks[:, 1], -peaks[:, 2]))]


def _taps(fwhm_px: float) -> np.ndarray:
    """Half of a Gaussian, center first; the whole has sum 1."""
    sigma = fwhm_px / SIGMA_TO_FWHM
    radius = int(np.clip(np.ceil(2.3 * sigma), 1, 6))
    taps = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    return (taps / (taps[0] + 2 * taps[1:].sum())).astype(np.float32)


def halve(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; an odd last row or column is left out.

    >>> halve(np.arange(8, dtype=np.float32).reshape(2, 4))
    array([[2.5, 4.5]], dtype=float32)
    """
    out = np.empty((image.shape[0] // 2, image.shape[1] // 2), np.float32)
    _average_quads(image, out)
    return out


@kernel(borrows=True)
def _average_quads(image, out):
    for y in range(out.shape[0]):
        top, bottom = image[2 * y], image[2 * y + 1]
        for x in range(out.shape[1]):
            out[y, x] = np.float32(0.25) * ((top[2 * x] + top[2 * x + 1]) + (bottom[2 * x] + bottom[2 * x + 1]))


@kernel(borrows=True)
def _to_single_pixels(image, peaks, factor):
    """Put peaks of one binned pixel on the highest of the pixels that it is made of."""
    for k in range(peaks.shape[0]):
        if peaks[k, 3] >= SINGLE:
            continue
        y0, x0 = int(peaks[k, 1] - 0.5 * (factor - 1)), int(peaks[k, 0] - 0.5 * (factor - 1))
        top_y, top_x = y0, x0
        for y in range(y0, y0 + factor):
            for x in range(x0, x0 + factor):
                if image[y, x] > image[top_y, top_x]:
                    top_y, top_x = y, x
        peaks[k, 0], peaks[k, 1] = top_x, top_y


@part(borrows=True)
def _smooth_row(image, y, taps, column, out):
    """One row of the sub smoothed in both directions; the ends are without meaning."""
    n = out.size
    center = image[y]
    for x in range(n):
        column[x] = taps[0] * center[x]
    for j in range(1, taps.size):
        above, below, t = image[y - j], image[y + j], taps[j]
        for x in range(n):
            column[x] += t * (above[x] + below[x])
    r = taps.size - 1
    inner = out[r : n - r]
    middle = column[r : n - r]
    for x in range(inner.size):
        inner[x] = taps[0] * middle[x]
    for j in range(1, taps.size):
        left, right, t = column[r - j : n - r - j], column[r + j :], taps[j]
        for x in range(inner.size):
            inner[x] += t * (left[x] + right[x])


@part(borrows=True)
def _grid_row(field, y, ys, out):
    """A row of a grid at position y, at the centers of its columns."""
    i = 0
    while i < ys.size - 2 and ys[i + 1] <= y:
        i += 1
    last = min(i + 1, ys.size - 1)
    t = 0.0
    if last > i:
        t = min(max((y - ys[i]) / (ys[last] - ys[i]), 0.0), 1.0)
    for x in range(out.size):
        out[x] = np.float32(field[i, x] * (1.0 - t) + field[last, x] * t)


@part(borrows=True)
def _spread_row(nodes, xs, out):
    """Linear between the nodes at positions xs, constant beyond."""
    n = out.size
    first = min(int(np.ceil(xs[0])), n)
    for x in range(first):
        out[x] = nodes[0]
    for i in range(nodes.size - 1):
        last = min(int(np.ceil(xs[i + 1])), n)
        slope = np.float32((nodes[i + 1] - nodes[i]) / (xs[i + 1] - xs[i]))
        start = np.float32(nodes[i] + slope * (first - xs[i]))
        piece = out[first:last]
        for x in range(piece.size):
            piece[x] = start + slope * np.float32(x)
        first = last
    for x in range(first, n):
        out[x] = nodes[-1]


@kernel
def _detect(image, level, noise, ys, xs, taps, sigma, reach):
    height, width = image.shape
    r = taps.size - 1
    norm = 0.0
    for a in range(-r, r + 1):
        norm += taps[abs(a)] * taps[abs(a)]
    rows = 2 * reach + 1
    smooth = np.empty((rows, width), np.float32)
    column = np.empty(width, np.float32)
    sky, limit = np.empty(width, np.float32), np.empty(width, np.float32)
    level_row, noise_row = np.empty(level.shape[1], np.float32), np.empty(level.shape[1], np.float32)
    found = np.empty((_ROOM, 5))
    n = 0
    least = np.float32(sigma)
    edge = r + reach + 1
    for last in range(r, height - r):
        _smooth_row(image, last, taps, column, smooth[last % rows])
        y = last - reach
        if y < edge or y >= height - edge:
            continue
        _grid_row(level, y, ys, level_row)
        _grid_row(noise, y, ys, noise_row)
        for i in range(noise_row.size):
            noise_row[i] = noise_row[i] * np.float32(norm)
            level_row[i] += least * noise_row[i]
        _spread_row(level_row, xs, limit)
        here = smooth[y % rows]
        spread = False
        for x0 in range(edge, width - edge, _PIECE):
            x1 = min(x0 + _PIECE, width - edge)
            value, bound = here[x0:x1], limit[x0:x1]
            count = 0
            for x in range(value.size):
                count += value[x] > bound[x]
            if count == 0:
                continue
            if not spread:
                _spread_row(noise_row, xs, sky)
                spread = True
            for x in range(x0, x1):
                if here[x] > limit[x] and _is_highest(smooth, y, x, reach):
                    if n == _ROOM:
                        n, least = _drop_half(found)
                    back = limit[x] - least * sky[x]
                    if n > 0 and least > sigma and (here[x] - back) / sky[x] < least:
                        continue
                    found[n, 0] = x
                    found[n, 1] = y
                    found[n, 2] = (here[x] - back) / sky[x]
                    _sharpness(image, y, x, back, found[n])
                    n += 1
    return found[:n].copy()


@part(borrows=True)
def _is_highest(smooth, y, x, reach):
    """Whether a pixel is the highest of its disc; of equal ones the last in reading order."""
    rows = smooth.shape[0]
    value = smooth[y % rows, x]
    for dy in range(-reach, reach + 1):
        other = smooth[(y + dy) % rows]
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx > reach * (reach + 1) or (dy == 0 and dx == 0):
                continue
            v = other[x + dx]
            if v > value or (v == value and (dy > 0 or (dy == 0 and dx > 0))):
                return False
    return True


@part(borrows=True)
def _sharpness(image, y, x, sky, out):
    """Write mean of the 8 neighbors over the pixel, and its height, for the highest pixel of the nine."""
    top_y, top_x = y, x
    for j in range(-1, 2):
        for i in range(-1, 2):
            if image[y + j, x + i] > image[top_y, top_x]:
                top_y, top_x = y + j, x + i
    around = 0.0
    for j in range(-1, 2):
        for i in range(-1, 2):
            if j != 0 or i != 0:
                around += image[top_y + j, top_x + i] - sky
    peak = image[top_y, top_x] - sky
    out[3] = around / (8.0 * peak) if peak > 0 else 1.0
    out[4] = peak


@part
def _drop_half(found):
    """Keep the brighter half, in order; their number and the new limit."""
    limit = np.float32(median_of(found[:, 2].copy()))
    n = 0
    for i in range(found.shape[0]):
        if found[i, 2] > limit:
            for j in range(found.shape[1]):
                found[n, j] = found[i, j]
            n += 1
    return n, limit
