"""Colors of stars: light of each star in every channel of a picture, in one aperture.

In   aligned channels (channel, y, x), the width of their stars
Out  place, fluxes and largest values of the stars of a window

An aperture of 3 times the FWHM holds nearly all light in every channel, whatever its seeing; the sky is the median of a
ring. Stars with a neighbor that adds to them, and those that lack a pixel, are left out.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lerar_dask.constants import MAD_TO_SIGMA

__all__ = ["SATURATED", "STAR_ROOM", "below_saturation", "measure_colors", "star_reach_px"]

STAR_ROOM = 48
"""Stars that are kept of a chunk, the brightest."""
_APERTURE, _RING = 3.0, (3.5, 5.0)
SATURATED = 0.9
"""Stars whose largest value is above this share of the saturation have no color."""
_BRIGHTEST = 0.7
"""The same share of the brightest star, where the saturation is not known."""
_FAINTEST = 30.0
"""Height of a star over its surroundings, in sigma of a pixel, from which on its color is of use."""
_NEIGHBOR = 0.1
"""A star with a neighbor of more than this share of its height within its ring is left out."""


def star_reach_px(fwhm_px: float) -> int:
    """How far from its center a star is looked at."""
    return int(np.ceil(_RING[1] * fwhm_px)) + 2


def measure_colors(
    pixels: np.ndarray, fwhm_px: float, *, inside: tuple[int, int, int, int], most: int = STAR_ROOM
) -> np.ndarray:
    """Find stars in the sum of the channels and measure each in all of them.

    Parameters
    ----------
    pixels : (channel, y, x) float32     NaN: no data
    inside : y0, y1, x0, x1              where the centers of the stars lie that are wanted

    Returns
    -------
    (n, 2 + 2 channel) float64     x, y, fluxes, largest values; the brightest first, at most `most`
    """
    n = len(pixels)
    y0, y1, x0, x1 = inside
    level, sigma = _sky(pixels[:, y0:y1, x0:x1])
    if not (np.isfinite(level).all() and (sigma > 0).all()):
        return np.zeros((0, 2 + 2 * n))
    there = np.isfinite(pixels).all(axis=0)
    total = np.where(there, ((pixels - level) / sigma).sum(axis=0) / np.sqrt(n), -np.inf).astype(np.float32)
    size = 2 * max(1, round(0.5 * fwhm_px)) + 1
    peak = (ndimage.maximum_filter(total, size) == total) & (total > _FAINTEST)
    ys, xs = np.nonzero(peak[y0:y1, x0:x1])
    order = np.lexsort((xs, ys, -total[ys + y0, xs + x0]))
    offsets = _Offsets.of(fwhm_px)
    rows = []
    for k in order:
        row = _measure(pixels, total, there, int(ys[k]) + y0, int(xs[k]) + x0, offsets)
        if row is not None:
            rows.append(row)
        if len(rows) == most:
            break
    return np.array(rows, np.float64).reshape(-1, 2 + 2 * n)


def below_saturation(stars: np.ndarray, n_channels: int, saturation: tuple[float, ...]) -> np.ndarray:
    """Which stars are below the saturation of every channel, (n,) bool."""
    tops = stars[:, 2 + n_channels : 2 + 2 * n_channels]
    limits = np.array([_limit(top, given) for top, given in zip(tops.T, saturation, strict=False)])
    return np.asarray((tops < limits).all(axis=1))


def _limit(tops: np.ndarray, given: float) -> float:
    """Largest value of stars with a color: below the saturation, or where none is known, the very brightest."""
    if np.isfinite(given):
        return SATURATED * given
    return _BRIGHTEST * float(tops.max()) if len(tops) else np.inf


def _sky(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and sigma of each channel, (channel, 1, 1)."""
    flat = pixels.reshape(len(pixels), -1)
    flat = flat[:, np.isfinite(flat).all(axis=0)]
    if flat.shape[1] < 100:
        return (np.full((len(pixels), 1, 1), np.nan),) * 2
    level = np.median(flat, axis=1)
    sigma = MAD_TO_SIGMA * np.median(np.abs(flat - level[:, None]), axis=1)
    return level[:, None, None], sigma[:, None, None]


class _Offsets:
    """Pixels of the aperture and of the ring about a center."""

    def __init__(
        self, aperture: tuple[np.ndarray, np.ndarray], ring: tuple[np.ndarray, np.ndarray], reach: int
    ) -> None:
        self.aperture, self.ring, self.reach = aperture, ring, reach

    @classmethod
    def of(cls, fwhm_px: float) -> _Offsets:
        reach = int(np.ceil(_RING[1] * fwhm_px))
        ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        r = np.hypot(ys, xs) / fwhm_px
        inner, outer = r <= _APERTURE, (r >= _RING[0]) & (r <= _RING[1])
        return cls((ys[inner], xs[inner]), (ys[outer], xs[outer]), reach)


def _measure(
    pixels: np.ndarray, total: np.ndarray, there: np.ndarray, y: int, x: int, offsets: _Offsets
) -> list[float] | None:
    """Row of one star; None where it is not to be used."""
    reach = offsets.reach
    if y < reach or x < reach or y + reach >= total.shape[0] or x + reach >= total.shape[1]:
        return None
    box = slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)
    if not there[box].all():
        return None
    ay, ax = offsets.aperture[0] + y, offsets.aperture[1] + x
    ry, rx = offsets.ring[0] + y, offsets.ring[1] + x
    around = total[ry, rx]
    if around.max() - np.median(around) > max(_NEIGHBOR * total[y, x], 8.0):
        return None
    fluxes, tops = [], []
    for channel in pixels:
        light = channel[ay, ax].astype(np.float64)
        sky = np.median(channel[ry, rx].astype(np.float64))
        fluxes.append(float(light.sum() - sky * len(light)))
        tops.append(float(light.max()))
    return [float(x), float(y), *fluxes, *tops]
