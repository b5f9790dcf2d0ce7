"""PSF fit: centers of undersampled stars, for which moments depend on where in its pixel a star lies.

In   a sub, moments of its stars
Out  centers from a fit of one Moffat profile, integrated over pixels, common to the sub

References
----------
.. [1] Moffat, A theoretical investigation of focal stellar images, A&A 3, 455 (1969)
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = ["fit_centers"]

_BETAS = (2.5, 3.5, 4.5)
"""Halves of odd numbers: a power is then a few products and a root."""
_WIDTHS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.3, 2.6)
_FINE = 4
"""Samples per pixel and axis of the profile."""
_MODEL_ERROR = 0.02
"""Share of its light by which the profile may be wrong; keeps bright cores from ruling the fit."""


def fit_centers(
    image: np.ndarray, xy: np.ndarray, flux: np.ndarray, sky: np.ndarray, noise: np.ndarray, *, growth: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit center, flux and sky of each star.

    Parameters
    ----------
    image : (y, x) float32                    C-contiguous
    xy : (n, 2) float64                       centers to begin with
    flux, sky, noise : (n,) float64           ADU
    growth : float                            variance per ADU of light

    Returns
    -------
    xy : (n, 2) float64                       where the fit went astray, as it came in
    good : (n,) bool
    fwhm_px : float                           of the profile
    """
    stars = np.ascontiguousarray(np.column_stack([xy, flux, sky, noise]), np.float64)
    best, found = np.inf, (1.5, 3.5)
    # First the width with the middle exponent, then the exponent.
    for fwhm, beta in [(w, _BETAS[1]) for w in _WIDTHS] + [(0.0, _BETAS[0]), (0.0, _BETAS[2])]:
        trial = (fwhm or found[0], beta)
        chi2 = float(np.median(_fit(image, stars[:20], *trial, float(growth))[:, 2]))
        if chi2 < best:
            best, found = chi2, trial
    table = _fit(image, stars, *found, float(growth))
    good = np.isfinite(table[:, 2]) & (np.hypot(*(table[:, :2] - stars[:, :2]).T) < 0.6) & (table[:, 2] < 5.0)
    return np.where(good[:, None], table[:, :2], stars[:, :2]), good, found[0]


@part(borrows=True)
def _pixel(dx, dy, alpha2, beta):
    """Profile integrated over a pixel, and its slopes in x and y of the star's center."""
    value = slope_x = slope_y = 0.0
    whole = int(beta)
    for j in range(_FINE):
        v = dy + (j + 0.5) / _FINE - 0.5
        for i in range(_FINE):
            u = dx + (i + 0.5) / _FINE - 0.5
            base = 1.0 + (u * u + v * v) / alpha2
            power = np.sqrt(base)
            for _ in range(whole):
                power *= base
            p = 1.0 / power
            value += p
            slope = 2.0 * beta * p / (base * alpha2)
            slope_x += slope * u
            slope_y += slope * v
    norm = (beta - 1.0) / (np.pi * alpha2 * _FINE * _FINE)
    return value * norm, slope_x * norm, slope_y * norm


@kernel
def _fit(image, stars, fwhm, beta, growth):
    """Gauss-Newton in x, y, flux and sky; x, y and chi2 per degree of freedom (NaN = failed)."""
    alpha2 = (0.5 * fwhm) ** 2 / (2.0 ** (1.0 / beta) - 1.0)
    half = max(int(np.ceil(1.6 * fwhm)), 2)
    out = np.empty((stars.shape[0], 3))
    matrix = np.empty((4, 4))
    right = np.empty(4)
    part = np.empty(4)
    for k in range(stars.shape[0]):
        x, y, light, sky, noise = stars[k]
        chi2 = np.nan
        for _ in range(8):
            cx, cy = int(np.round(x)), int(np.round(y))
            if cx < half or cy < half or cx + half >= image.shape[1] or cy + half >= image.shape[0]:
                chi2 = np.nan
                break
            matrix[:] = 0.0
            right[:] = 0.0
            total = 0.0
            for j in range(cy - half, cy + half + 1):
                for i in range(cx - half, cx + half + 1):
                    p, px, py = _pixel(i - x, j - y, alpha2, beta)
                    bright = max(light, 0.0) * p
                    weight = 1.0 / (noise * noise + growth * bright + (_MODEL_ERROR * bright) ** 2)
                    part[0], part[1], part[2], part[3] = light * px, light * py, p, 1.0
                    residual = image[j, i] - sky - light * p
                    total += weight * residual * residual
                    for a in range(4):
                        right[a] += weight * part[a] * residual
                        for b in range(4):
                            matrix[a, b] += weight * part[a] * part[b]
            chi2 = total / ((2 * half + 1) ** 2 - 4)
            if not np.isfinite(total) or not np.linalg.det(matrix) > 0.0:
                chi2 = np.nan
                break
            move = np.linalg.solve(matrix, right)
            x += min(max(move[0], -0.5), 0.5)
            y += min(max(move[1], -0.5), 0.5)
            light += move[2]
            sky += move[3]
            if abs(move[0]) + abs(move[1]) < 1e-3:
                break
        out[k, 0], out[k, 1], out[k, 2] = x, y, chi2
    return out
