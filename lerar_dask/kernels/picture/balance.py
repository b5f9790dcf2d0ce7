"""White balance by the stars: factors that make the usual star of a field white, or of the color that it has.

In   fluxes of stars in each channel
Out  one factor per channel

Light of stars of one field spans a narrow range of colors, and its middle is known: of stars that a small telescope sees,
the median B-V is about 0.7. Without a catalog the median star is made white, or given the color of that B-V as seen
from a chosen white: colors follow from temperatures [1]_ by Planck's law in three bands.

References
----------
.. [1] Ballesteros, New insights into black bodies, EPL 97, 34008 (2012): temperature by B-V
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA

__all__ = ["LEAST_STARS", "WHITES", "White", "band_ratios", "catalog_factors", "star_factors"]

White = Literal["stars", "g2v", "spiral"]
WHITES = {"stars": 0.70, "g2v": 0.653, "spiral": 0.60}
"""B-V of what is white: the usual star of a field, the Sun, the light of an average spiral galaxy (Sbc)."""
_BANDS_NM = ((600.0, 690.0), (500.0, 580.0), (400.0, 500.0))
"""Usual filters for R, G, B."""
LEAST_STARS = 5
"""Of fewer, nothing is concluded."""
_MOST_APART = 3.0
"""Stars further than so many sigma from the middle of their colors are left out."""


def star_factors(fluxes: np.ndarray, *, white: White = "stars") -> tuple[np.ndarray, float, int]:
    """Factors that the channels are multiplied by.

    Parameters
    ----------
    fluxes : (n, 3) float64     R, G, B of stars that are neither saturated nor faint

    Returns
    -------
    factors : (3,) float64     with that of G as 1; ones where there are fewer than 5 stars
    scatter : float            of the stars' colors about the middle, in magnitudes
    used : int                 stars
    """
    good = np.isfinite(fluxes).all(axis=1) & (fluxes > 0).all(axis=1)
    if good.sum() < LEAST_STARS:
        return np.ones(3), float("nan"), int(good.sum())
    colors = np.log(fluxes[good][:, [0, 2]] / fluxes[good][:, [1]])
    keep = np.ones(len(colors), bool)
    middle, sigma = np.median(colors, axis=0), np.zeros(2)
    for _ in range(10):
        middle = np.median(colors[keep], axis=0)
        sigma = MAD_TO_SIGMA * np.median(np.abs(colors[keep] - middle), axis=0) + 1e-6
        now = (np.abs(colors - middle) <= _MOST_APART * sigma).all(axis=1)
        if (now == keep).all() or now.sum() < LEAST_STARS:
            break
        keep = now
    wanted = band_ratios(WHITES["stars"], WHITES[white])
    factors = np.array([wanted[0] / np.exp(middle[0]), 1.0, wanted[2] / np.exp(middle[1])])
    return factors, float(sigma.mean() * 2.5 / np.log(10)), int(keep.sum())


def catalog_factors(fluxes: np.ndarray, colors: np.ndarray, *, white: White = "g2v") -> tuple[np.ndarray, float, int]:
    """Factors by stars whose B-V is known.

    Parameters
    ----------
    fluxes : (n, 3) float64     R, G, B
    colors : (n,) float64       B-V; NaN: unknown

    Returns
    -------
    factors, scatter, used : as of `star_factors`
    """
    known = np.isfinite(colors) & np.isfinite(fluxes).all(axis=1) & (fluxes > 0).all(axis=1)
    if known.sum() < LEAST_STARS:
        return np.ones(3), float("nan"), int(known.sum())
    wanted = np.array([band_ratios(float(c), WHITES[white]) for c in colors[known]])
    # Each star over what it should be: what is left is the same for all, and `star_factors` finds it.
    factors, scatter, used = star_factors(fluxes[known] / wanted)
    return factors, scatter, used


def band_ratios(color: float, white: float) -> np.ndarray:
    """Light in R, G, B of a star of one B-V, where one of another is white, over that in G; (3,) float64.

    Examples
    --------
    >>> band_ratios(0.65, 0.65).tolist()
    [1.0, 1.0, 1.0]
    """
    light = _in_bands(_temperature(color)) / _in_bands(_temperature(white))
    return light / light[1]


def _temperature(color: float) -> float:
    return 4600 * (1 / (0.92 * color + 1.7) + 1 / (0.92 * color + 0.62))


def _in_bands(temperature: float) -> np.ndarray:
    """Photons per band of a black body."""
    out = []
    for low, high in _BANDS_NM:
        wave = np.linspace(low, high, 31) * 1e-9
        out.append(np.mean(wave**-4 / np.expm1(1.438777e-2 / (wave * temperature))))
    return np.array(out)
