"""Noise of samples and weights of subs, and what resampling does to both.

In   noise grids of subs (sigma before resampling, calibrated ADU), scales, full widths, sampling phases
Out  variance at the sky in output units, weights, growth of variance with signal, factors of the interpolation kernel

Weights come from noise measured *before* resampling, so that no sub is favored for lying between pixels. NOISE is
white-equivalent: right for sums over apertures; a single pixel of a Lanczos-3 stack scatters by 0.893 of it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lerar_dask.constants import SIGMA_TO_FWHM

__all__ = [
    "KERNEL_NOISE",
    "blur_terms",
    "cell_weights",
    "fill_gaps",
    "growth_of_variance",
    "phase_factor",
    "sample_variance",
]

KERNEL_NOISE = {"lanczos3": (0.893, 0.112, -0.076), "bilinear": (0.667, 0.250, 0.0)}
"""Per kernel: scatter of one pixel relative to NOISE, correlation with the next pixel and with the one after."""
WEIGHT_RANGE = (0.02, 10.0)
"""Weights relative to the median of the group's subs are held in this range."""
_PHASES = 1024
_BLUR_FLOOR = 0.04
"""Part of the PSF's sigma that may differ between subs of equal FWHM (guiding, interpolation)."""
_LATTICE_BLUR = 0.25
"""px^2: what a color's lattice, two pixels wide, misses of a star's core."""


def phase_factor(phase: np.ndarray, *, kernel: str) -> np.ndarray:
    """Variance of an interpolated value relative to the pixels', per axis: the sum of the squared weights.

    Parameters
    ----------
    phase : float array     source position; only its fraction counts

    Returns
    -------
    float64, shape of `phase`; read off a table of 1024 phases
    """
    t = phase - np.floor(phase)
    if kernel == "bilinear":
        return (1 - t) ** 2 + t**2
    return _lanczos_factors()[np.rint(t * _PHASES).astype(np.intp)]


@lru_cache(maxsize=1)
def _lanczos_factors() -> np.ndarray:
    """Sum of the squared, normalized Lanczos-3 weights at phases 0, 1/1024, ..., 1."""
    x = np.arange(-2, 4)[:, None] - np.linspace(0, 1, _PHASES + 1)
    weights = np.sinc(x) * np.sinc(x / 3)
    return np.sum(weights**2, axis=0) / np.sum(weights, axis=0) ** 2


def sample_variance(variance: np.ndarray, ys: np.ndarray, xs: np.ndarray, *, cell_px: float) -> np.ndarray:
    """Variance of subs' pixels at positions, bilinear between the centers of their noise cells.

    Parameters
    ----------
    variance : (n, gy, gx) float     in cells, without gaps (`fill_gaps`)
    ys, xs : (n, ...) float          positions in each sub, beyond its edge too

    Returns
    -------
    float64, shape of `ys`
    """
    gy, gx = variance.shape[1:]
    v = np.clip((ys + 0.5) / cell_px - 0.5, 0, gy - 1)
    u = np.clip((xs + 0.5) / cell_px - 0.5, 0, gx - 1)
    i, j = np.minimum(v.astype(np.intp), max(gy - 2, 0)), np.minimum(u.astype(np.intp), max(gx - 2, 0))
    k, m = np.minimum(i + 1, gy - 1), np.minimum(j + 1, gx - 1)
    v, u = v - i, u - j
    sub = np.arange(len(variance)).reshape(-1, *([1] * (ys.ndim - 1)))
    upper = variance[sub, i, j] * (1 - u) + variance[sub, i, m] * u
    lower = variance[sub, k, j] * (1 - u) + variance[sub, k, m] * u
    return upper * (1 - v) + lower * v


def fill_gaps(sigma: np.ndarray) -> np.ndarray:
    """Variance in cells, with the median of what is known where nothing is (1 when nothing is known at all).

    Parameters
    ----------
    sigma : (gy, gx) float     NaN or 0 where unknown
    """
    known = np.isfinite(sigma) & (sigma > 0)
    middle = np.median(sigma[known]) if known.any() else 1.0
    return np.where(known, sigma, middle).astype(np.float64) ** 2


def growth_of_variance(sky: np.ndarray, sigma: np.ndarray, e_per_adu: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """B of v = A + B signal, in output units.

    Parameters
    ----------
    sky, sigma, e_per_adu, scale : (n,) float     of each sub; without a gain (0) all of the sky's noise is taken for
        photon noise, an upper limit of B
    """
    guess = sigma**2 / np.fmax(sky, sigma)
    known = e_per_adu > 0
    return np.where(known, 1.0 / np.where(known, e_per_adu, 1.0), guess) / scale


def cell_weights(
    variance: np.ndarray, typical: np.ndarray, factor: np.ndarray, *, members: np.ndarray, mode: str
) -> np.ndarray:
    """Weights of subs in cells, relative to the group's median sub.

    Parameters
    ----------
    variance : (m, ...) float    variance at the sky of the subs in question, by cell, output units
    typical : (n,) float         one variance for each sub of the group
    factor : (n,) float          further factor of each sub (sharp subs for `psf`)
    members : (m,) int           which of the group's subs are in question
    mode : inverse-variance, psf (both by cell), noise (one number per sub) or none

    Returns
    -------
    (m, ...) float64
    """
    own = factor[members].reshape(-1, *([1] * (variance.ndim - 1)))
    if mode == "none":
        return np.broadcast_to(own, variance.shape).copy()
    basis = typical[members].reshape(own.shape) if mode == "noise" else variance
    weight = np.median(typical) / np.broadcast_to(basis, variance.shape)
    return np.clip(weight, *WEIGHT_RANGE) * own


def blur_terms(fwhm: np.ndarray, registration_px: np.ndarray, *, lattice: bool) -> np.ndarray:
    """How far registration and seeing let a star differ from the mean star, as factors of its slope and its curvature.

    A PSF that is wider by the part e of its sigma changes a star by e (r |grad| - 2 star): in the core that is the
    Laplacian times half the difference of variance, further out the slope times e r, for which two sigma are taken. As
    the mean star is not the median one and moves when samples are dropped, each sub gets the group's spread on top of
    its own difference.

    Parameters
    ----------
    fwhm, registration_px : (n,) float     px; NaN where unknown

    Returns
    -------
    (2, n) float64
        factor of |grad|^2, px^2; factor of the squared Laplacian, px^4
    """
    sigma = np.where(fwhm > 0, fwhm, np.nan) * (1.0 / SIGMA_TO_FWHM)
    common = float(np.nanmedian(sigma)) if np.isfinite(sigma).any() else 1.3
    wider = np.where(np.isfinite(sigma), np.abs(sigma / common - 1), 0.2)
    wider = np.sqrt(wider**2 + np.mean(wider**2))
    half = (wider + _BLUR_FLOOR) * common**2 + (_LATTICE_BLUR if lattice else 0.0)
    shift = np.maximum(np.where(np.isfinite(registration_px), registration_px, 0.1), 0.03)
    return np.stack([shift**2 + (wider * 2 * common) ** 2, half**2])
