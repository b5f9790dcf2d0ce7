"""Moments: position, shape and flux of stars from the pixels around them.

In   a sub, starting positions, the sky at each
Out  per star its center, second moments and flux; and its light within an aperture over the sky of a ring around it

The moments are adaptive: the weight is a Gaussian with the star's own center and shape, found by iteration, which is the
best linear weight for a Gaussian star and needs no model of the PSF.

References
----------
.. [1] Bernstein, Jarvis, Shapes and shears, stars and smears, AJ 123, 583 (2002), section 3
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import SIGMA_TO_FWHM, StarFlag
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.robust.medians import median_of

__all__ = ["adaptive_moments", "aperture_flux", "weighted_flux"]

_EDGE, _DIVERGED = int(StarFlag.EDGE), int(StarFlag.DIVERGED)
_PASSES = 18
_RADIUS = 3.2
"""Half a side of the square, in sigma of the longer axis, whose pixels are summed."""
_WIDEST = 512
"""Pixels of a window's side at most."""
# Numbers of the columns lie in one flat array at constant offsets: the compiler then sees that they do not overlap.
_WEIGHT, _STEP, _LIGHT, _ALONG, _SPREAD = (_WIDEST * k for k in range(5))
_LEAST = 0.12
"""Least second moment: a single pixel."""


def adaptive_moments(image: np.ndarray, xy: np.ndarray, sky: np.ndarray, *, fwhm_px: float) -> np.ndarray:
    """Centers, second moments and fluxes.

    Parameters
    ----------
    image : (y, x) float32      C-contiguous
    xy : (n, 2) float64         where to begin
    sky : (n,) float64          level below each star
    fwhm_px : float             width to begin with; the window never grows beyond three of it

    Returns
    -------
    table : (n, 7) float64      x, y, Mxx, Mxy, Myy (px^2), flux (Gaussian), flags
    """
    down = _down(xy)
    found = np.empty((len(xy), 7))
    _moments(image, xy[down].astype(np.float64), sky[down].astype(np.float64), float(fwhm_px), found)
    table = np.empty_like(found)
    table[down] = found
    return table


def aperture_flux(
    image: np.ndarray, xy: np.ndarray, *, radius_px: float, inner_px: float, outer_px: float, noise: np.ndarray
) -> np.ndarray:
    """Light within a circle over the clipped mean of a ring.

    Parameters
    ----------
    xy : (n, 2) float64       centers
    noise : (n,) float64      sigma of a pixel of the sky there

    Returns
    -------
    table : (n, 4) float64    flux, pixels in the circle, level of the ring, pixels that made it
    """
    down = _down(xy)
    found = np.empty((len(xy), 4))
    positions, sigma = xy[down].astype(np.float64), noise[down].astype(np.float64)
    _apertures(image, positions, float(radius_px), float(inner_px), float(outer_px), sigma, found)
    table = np.empty_like(found)
    table[down] = found
    return table


def weighted_flux(
    image: np.ndarray, xy: np.ndarray, sky: np.ndarray, *, shape: tuple[float, float, float]
) -> np.ndarray:
    """Light under one Gaussian weight, the same for all stars of a sub.

    Parameters
    ----------
    shape : Mxx, Mxy, Myy     of the weight

    Returns
    -------
    flux : (n,) float64       that of a Gaussian star of this shape; others differ by a factor common to the sub
    """
    down = _down(xy)
    found = np.empty(len(xy))
    _weighted(image, xy[down].astype(np.float64), sky[down].astype(np.float64), *(float(m) for m in shape), found)
    flux = np.empty_like(found)
    flux[down] = found
    return flux


def _down(xy: np.ndarray) -> np.ndarray:
    """Order of positions from the first row to the last, so that memory is read in its order."""
    return np.argsort(xy[:, 1], kind="stable")


@part(borrows=True)
def _window_sums(image, x, y, sky, mxx, mxy, myy, radius, work, sums):
    """Sums of w d, w d dx, w d dy, w d dx^2, w d dx dy, w d dy^2; False when the window leaves the sub.

    work : (5 * _WIDEST,) float64     what belongs to the columns of the window
    """
    y0, y1 = int(np.ceil(y - radius)), int(np.floor(y + radius))
    x0, x1 = int(np.ceil(x - radius)), int(np.floor(x + radius))
    if y0 < 0 or x0 < 0 or y1 >= image.shape[0] or x1 >= image.shape[1]:
        return False
    det = mxx * myy - mxy * mxy
    axx, axy, ayy = 0.5 * myy / det, -mxy / det, 0.5 * mxx / det
    width = x1 - x0 + 1
    dx, dy = x0 - x, y0 - y
    # The weight of a pixel from that of the one before it, along the first row and then down each column: quotients of
    # neighbors fall by a constant factor. Columns are independent, so that the compiler takes several at once.
    weight = np.exp(-(axx * dx * dx + axy * dx * dy + ayy * dy * dy))
    across, fall = np.exp(-(axx * (2.0 * dx + 1.0) + axy * dy)), np.exp(-2.0 * axx)
    down, turn = np.exp(-(ayy * (2.0 * dy + 1.0) + axy * dx)), np.exp(-axy)
    for i in range(width):
        work[_WEIGHT + i], work[_STEP + i] = weight, down
        work[_LIGHT + i] = work[_ALONG + i] = work[_SPREAD + i] = 0.0
        weight *= across
        across *= fall
        down *= turn
    fall = np.exp(-2.0 * ayy)
    for j in range(y0, y1 + 1):
        row = image[j, x0 : x1 + 1]
        for i in range(width):
            w, step = work[_WEIGHT + i], work[_STEP + i]
            weighted = w * (row[i] - sky)
            work[_LIGHT + i] += weighted
            work[_ALONG + i] += weighted * dy
            work[_SPREAD + i] += weighted * (dy * dy)
            work[_WEIGHT + i] = w * step
            work[_STEP + i] = step * fall
        dy += 1.0
    sums[:] = 0.0
    for i in range(width):
        light, along = work[_LIGHT + i], work[_ALONG + i]
        sums[0] += light
        sums[1] += light * dx
        sums[2] += along
        sums[3] += light * dx * dx
        sums[4] += along * dx
        sums[5] += work[_SPREAD + i]
        dx += 1.0
    return True


@kernel
def _moments(image, xy, sky, fwhm, table):
    begin = (fwhm / SIGMA_TO_FWHM) ** 2
    widest = min(3.0 * fwhm, 0.5 * _WIDEST - 1.0)
    sums, work = np.empty(6), np.empty(5 * _WIDEST)
    for k in range(xy.shape[0]):
        x, y = xy[k, 0], xy[k, 1]
        mxx, mxy, myy = begin, 0.0, begin
        flags = _DIVERGED
        flux = 0.0
        for _ in range(_PASSES):
            radius = min(_RADIUS * np.sqrt(max(mxx, myy)), widest)
            if not _window_sums(image, x, y, sky[k], mxx, mxy, myy, radius, work, sums):
                flags |= _EDGE
                break
            if not sums[0] > 0.0:
                break
            dx, dy = 2.0 * sums[1] / sums[0], 2.0 * sums[2] / sums[0]
            step = np.hypot(dx, dy)
            if step > 1.0:
                dx, dy = dx / step, dy / step
            # Second moments about the center that the weight has, then about the new one.
            nxx = sums[3] / sums[0] - 0.25 * dx * dx
            nxy = sums[4] / sums[0] - 0.25 * dx * dy
            nyy = sums[5] / sums[0] - 0.25 * dy * dy
            x, y = x + dx, y + dy
            change = abs(2.0 * nxx - mxx) + abs(2.0 * nyy - myy)
            mxx = max(0.3 * mxx + 1.4 * nxx, _LEAST)
            myy = max(0.3 * myy + 1.4 * nyy, _LEAST)
            bound = 0.98 * np.sqrt(mxx * myy)
            mxy = min(max(0.3 * mxy + 1.4 * nxy, -bound), bound)
            flux = 2.0 * sums[0]
            if step < 2e-3 and change < 0.05 * (mxx + myy):
                flags &= ~_DIVERGED
                break
        table[k, 0] = x
        table[k, 1] = y
        table[k, 2] = mxx
        table[k, 3] = mxy
        table[k, 4] = myy
        table[k, 5] = flux
        table[k, 6] = flags


@kernel
def _weighted(image, xy, sky, mxx, mxy, myy, flux):
    radius = min(_RADIUS * np.sqrt(max(mxx, myy)), 0.5 * _WIDEST - 1.0)
    sums, work = np.empty(6), np.empty(5 * _WIDEST)
    for k in range(xy.shape[0]):
        inside = _window_sums(image, xy[k, 0], xy[k, 1], sky[k], mxx, mxy, myy, radius, work, sums)
        flux[k] = 2.0 * sums[0] if inside else np.nan


@kernel
def _apertures(image, xy, radius, inner, outer, noise, table):
    values = np.empty(int(4 * (outer + 2) * (outer + 2)), np.float32)
    for k in range(xy.shape[0]):
        x, y = xy[k, 0], xy[k, 1]
        y0, y1 = max(int(np.ceil(y - outer)), 0), min(int(np.floor(y + outer)), image.shape[0] - 1)
        n = np.int64(0)  # a bare 0 would be a type of its own, and compiled as well
        light, area = 0.0, 0.0
        for j in range(y0, y1 + 1):
            dy2 = (j - y) * (j - y)
            row = image[j]
            wide = np.sqrt(max(outer * outer - dy2, 0.0))
            hole = np.sqrt(inner * inner - dy2) if dy2 < inner * inner else -1.0
            left, right = max(int(np.ceil(x - wide)), 0), min(int(np.floor(x + wide)), row.size - 1)
            if hole < 0.0:
                n = _append(row, left, right, values, n)
                continue
            low, high = max(int(np.ceil(x - hole)), 0), min(int(np.floor(x + hole)), row.size - 1)
            n = _append(row, left, low - 1, values, n)
            n = _append(row, high + 1, right, values, n)
            if dy2 >= (radius + 0.71) * (radius + 0.71):
                continue
            for i in range(low, high + 1):
                d2 = dy2 + (i - x) * (i - x)
                if d2 < (radius + 0.71) * (radius + 0.71) and np.isfinite(row[i]):
                    # Pixels on the rim count by the part that lies inside.
                    share = min(max(radius + 0.5 - np.sqrt(d2), 0.0), 1.0)
                    light += share * row[i]
                    area += share
        level, count = _clipped_mean(values[:n], noise[k])
        table[k, 0] = light - area * level
        table[k, 1] = area
        table[k, 2] = level
        table[k, 3] = count


@part(borrows=True)
def _append(row, first, last, values, n):
    """Collect the good pixels of a piece of a row; how many there are now."""
    for i in range(first, last + 1):
        if np.isfinite(row[i]):
            values[n] = row[i]
            n += 1
    return n


@part
def _clipped_mean(values, sigma):
    """Mean of what lies within 2.5 sigma of itself, begun at the median of some."""
    if values.size < 8:
        return np.nan, 0
    jump = max(values.size // 64, 1)
    center = np.float64(median_of(values[::jump].copy()))
    count = 0
    for _ in range(3):
        total, count = 0.0, 0
        for i in range(values.size):
            d = values[i] - center
            if abs(d) <= 2.5 * sigma:
                total += d
                count += 1
        if count == 0:
            return center, 1
        center += total / count
        if abs(total / count) < 0.01 * sigma:
            break
    return center, count
