"""Noise of single pixels of a drizzled master, from the shape of its drops."""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import SIGMA_TO_FWHM

__all__ = ["noise_of_drops"]

_STEPS = 4000
"""Samples per fine pixel."""


def noise_of_drops(kernel: str, side: float) -> tuple[float, tuple[float, float]]:
    """What drops do to noise where many fall everywhere.

    Along an axis a fine pixel weighs a drop by the share of it that lies there, a function of the drop's place whose
    autocorrelation is that of the noise. For square drops the scatter is the inverse of R of Fruchter and Hook 2002
    (section 7), r being the side of a drop.

    Parameters
    ----------
    kernel : square, gaussian or point
    side : of a drop, in fine pixels

    Returns
    -------
    scatter : of one pixel, relative to NOISE, which is white-equivalent
    correlation : of pixels 1 and 2 apart along an axis
    """
    reach = int(np.ceil(3 + 2 * side))
    x = (np.arange(2 * reach * _STEPS) + 0.5) / _STEPS - reach
    if kernel == "gaussian":
        share = np.exp(-0.5 * (x * SIGMA_TO_FWHM / side) ** 2)
    elif kernel == "point":
        share = (np.abs(x) <= 0.5).astype(float)
    else:
        share = np.clip(0.5 * (1 + side) - np.abs(x), 0, min(1.0, side))
    share /= share.sum() / _STEPS
    products = [float(np.sum(share[lag * _STEPS :] * share[: len(x) - lag * _STEPS])) / _STEPS for lag in range(3)]
    return products[0], (products[1] / products[0], products[2] / products[0])
