"""The point spread function of an image, as DynamicPSF measures it: elliptical profiles through many stars.

In   cutouts of stars (y, x)
Out  Moffat or Gaussian parameters of each, and of the usual star

Moffat: B + A / (1 + x'^2 / sx^2 + y'^2 / sy^2)^beta, FWHM 2 s sqrt(2^(1/beta) - 1) [1]_; Gaussian with FWHM 2.3548 s. Both
are averaged over the pixels of their cores, which matters below 3 px of FWHM.

References
----------
.. [1] Moffat, A theoretical investigation of focal stellar images, A&A 3, 455 (1969)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import least_squares

from lerar_dask.constants import MAD_TO_SIGMA, SIGMA_TO_FWHM

__all__ = ["Psf", "fit_star", "psf_image", "usual_psf"]

Model = Literal["moffat", "gaussian"]
_FINE = 3
"""Samples per pixel and axis."""
_BETAS = (1.2, 12.0)
_MOST_APART = 3.0


@dataclass(frozen=True, kw_only=True)
class Psf:
    """An elliptical profile."""

    fwhm_x_px: float
    """Along the major axis."""
    fwhm_y_px: float
    theta: float
    """Direction of the major axis, radians from x towards y, in -pi/2..pi/2."""
    beta: float
    """Moffat exponent; infinite: Gaussian."""
    stars: int = 1

    @property
    def fwhm_px(self) -> float:
        """Geometric mean."""
        return float(np.sqrt(self.fwhm_x_px * self.fwhm_y_px))

    @property
    def numbers(self) -> np.ndarray:
        """What may be averaged, (4,) float64: log of the FWHM, half the log of the axes' ratio as a vector of twice the
        direction, 1 / beta.
        """
        e = 0.5 * np.log(self.fwhm_x_px / self.fwhm_y_px)
        turn = 2 * self.theta
        return np.array([np.log(self.fwhm_px), e * np.cos(turn), e * np.sin(turn), 1 / self.beta])

    @classmethod
    def of_numbers(cls, numbers: np.ndarray, *, stars: int = 1) -> Psf:
        """The profile with such `numbers`."""
        size, e1, e2, inverse = (float(v) for v in numbers)
        e = float(np.hypot(e1, e2))
        return cls(
            fwhm_x_px=float(np.exp(size + e)),
            fwhm_y_px=float(np.exp(size - e)),
            theta=0.5 * float(np.arctan2(e2, e1)),
            beta=1 / inverse if inverse > 1e-6 else float("inf"),
            stars=stars,
        )

    @property
    def eccentricity(self) -> float:
        """0: round."""
        return float(np.sqrt(max(1 - (self.fwhm_y_px / self.fwhm_x_px) ** 2, 0.0)))


def fit_star(cutout: np.ndarray, *, model: Model = "moffat", beta: float | None = None) -> Psf | None:
    """Fit a star in the middle of a cutout; None where the fit fails.

    Parameters
    ----------
    cutout : (n, n) float      odd n
    beta : fixed exponent; None: free
    """
    n = cutout.shape[0]
    data = cutout.astype(np.float64)
    edge = np.concatenate([data[0], data[-1], data[1:-1, 0], data[1:-1, -1]])
    sky, top = float(np.median(edge)), float(data.max())
    if not np.isfinite(data).all() or top <= sky:
        return None
    half = float(np.sqrt((data - sky > 0.5 * (top - sky)).sum() / np.pi)) * 2
    start = np.array([sky, top - sky, 0.0, 0.0, np.log(max(half, 1.2)), 0.0, 0.0])
    free_beta = model == "moffat" and beta is None
    if free_beta:
        start = np.append(start, np.log(3.5))
    scale = np.array([top - sky, top - sky, 1, 1, 1, 1, 1, 1])[: len(start)]
    center = (n - 1) / 2

    def residuals(p: np.ndarray) -> np.ndarray:
        b = np.inf if model == "gaussian" else float(np.exp(p[7])) if free_beta else float(beta or 4.0)
        shape = _profile(n, center + p[2], center + p[3], float(np.exp(p[4])), p[5], p[6], b)
        return ((p[0] + p[1] * shape - data) / np.sqrt(top - sky)).ravel()

    found = least_squares(residuals, start, x_scale=scale, method="trf", max_nfev=60)
    if not found.success or np.hypot(*found.x[2:4]) > 1.5:
        return None
    b = np.inf if model == "gaussian" else float(np.exp(found.x[7])) if free_beta else float(beta or 4.0)
    if np.isfinite(b) and not _BETAS[0] <= b <= _BETAS[1]:
        return None
    size, e1, e2 = float(np.exp(found.x[4])), float(found.x[5]), float(found.x[6])
    e = min(float(np.hypot(e1, e2)), 0.9)
    return Psf(
        fwhm_x_px=size * float(np.exp(e)),
        fwhm_y_px=size * float(np.exp(-e)),
        theta=0.5 * float(np.arctan2(e2, e1)),
        beta=b,
    )


def usual_psf(fits: Sequence[Psf]) -> Psf | None:
    """The usual one of many: medians of shape and size without what lies apart; None of none."""
    if not fits:
        return None
    table = np.array([f.numbers for f in fits])
    keep = np.ones(len(table), bool)
    for _ in range(5):
        middle = np.median(table[keep], axis=0)
        sigma = MAD_TO_SIGMA * np.median(np.abs(table[keep] - middle), axis=0) + 1e-3
        now = (np.abs(table - middle) <= _MOST_APART * sigma).all(axis=1)
        if (now == keep).all() or not now.any():
            break
        keep = now
    return Psf.of_numbers(np.median(table[keep], axis=0), stars=int(keep.sum()))


def psf_image(psf: Psf, radius: int) -> np.ndarray:
    """The profile on pixels, (2 radius + 1, 2 radius + 1) float32 with sum 1."""
    e = 0.5 * np.log(psf.fwhm_x_px / psf.fwhm_y_px)
    shape = _profile(
        2 * radius + 1, radius, radius, psf.fwhm_px, e * np.cos(2 * psf.theta), e * np.sin(2 * psf.theta), psf.beta
    )
    return (shape / shape.sum()).astype(np.float32)


def _profile(n: int, x: float, y: float, fwhm: float, e1: float, e2: float, beta: float) -> np.ndarray:
    """Profile of height 1 averaged over pixels; e1, e2: half the logarithm of the axes' ratio, as a vector of 2 theta."""
    fine = (np.arange(n * _FINE) + 0.5) / _FINE - 0.5
    dx, dy = fine[None, :] - x, fine[:, None] - y
    e = np.hypot(e1, e2)
    angle = 0.5 * np.arctan2(e2, e1)
    c, s = np.cos(angle), np.sin(angle)
    u, v = (c * dx + s * dy) / (fwhm * np.exp(e)), (-s * dx + c * dy) / (fwhm * np.exp(-e))
    r2 = u * u + v * v  # in units of the FWHM
    gauss = np.isinf(beta)
    value = np.exp(-0.5 * SIGMA_TO_FWHM**2 * r2) if gauss else (1 + 4 * (2 ** (1 / beta) - 1) * r2) ** -beta
    return value.reshape(n, _FINE, n, _FINE).mean(axis=(1, 3))
