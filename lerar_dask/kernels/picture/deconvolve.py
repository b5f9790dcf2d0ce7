"""Deconvolution: the blur of the point spread function taken back, as far as there is signal.

In   a linear image with its sky at 0, its noise, its PSF; pixels that are not to be used
Out  the same image, sharper

Richardson-Lucy with residuals denoised by wavelets [1]_: what is not significant is not fitted, so that an image without
signal stays as it is, and iterations end by themselves. Saturated and uncovered pixels weigh nothing and come out as they
went in. Dark rings about stars are lifted to what the blurred image has in their neighborhood.

References
----------
.. [1] Starck, Pantin and Murtagh, Deconvolution in astronomy: a review, PASP 114, 1051 (2002), section 4
"""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from lerar_dask.kernels.picture.wavelets import layers_of

__all__ = ["deconvolve", "psf_radius_px", "reach_px"]

_LAYERS = 3
_SIGNIFICANT = (3.5, 3.0, 3.0)
"""Residuals of a wavelet layer that count, in sigma of the layer."""
_WHITE_NOISE = (0.890, 0.201, 0.086)
"""Sigma of a B3 spline layer of white noise of sigma 1 [1]_."""
_PEDESTAL = 6.0
"""Light under the image while it is positive, in sigma of a pixel."""
_SOFT_PX = 2.0
_RADIUS_FWHM = 4.0
"""Radius of a PSF's image."""


def psf_radius_px(fwhm_px: float) -> int:
    """Radius at which a PSF is cut off."""
    return max(4, int(np.ceil(_RADIUS_FWHM * fwhm_px)))


def reach_px(fwhm_px: float) -> int:
    """Border with which a piece is deconvolved, so that pieces fit together."""
    return 3 * psf_radius_px(fwhm_px)


def deconvolve(
    image: np.ndarray,
    psf: np.ndarray,
    noise: float,
    *,
    saturation: float = np.inf,
    iterations: int = 30,
    deringing: float = 1.0,
) -> tuple[np.ndarray, int]:
    """Sharpen an image.

    Parameters
    ----------
    image : (y, x) float32      sky at 0; NaN: no data
    psf : (k, k) float32        sum 1, odd k
    noise : sigma of a pixel of the sky
    saturation : from here on a pixel is a lower bound only
    deringing : 0 none, 1: no pixel falls below what is faintest near it, unless it was

    Returns
    -------
    sharper : (y, x) float32    NaN as in the image
    used : int                  iterations until nothing significant was left
    """
    there = np.isfinite(image)
    if not there.any() or noise <= 0:
        return image.copy(), 0
    bad = ~there | (image >= saturation)
    weight = (~bad).astype(np.float32)
    pedestal = np.float32(_PEDESTAL * noise)
    data = np.maximum(np.where(there, image, 0) + pedestal, np.float32(0.1) * pedestal).astype(np.float32)
    blur = _Blur(psf, data.shape)
    total = np.maximum(blur.back(weight), np.float32(1e-3))
    estimate, used = data.copy(), 0
    while used < iterations:
        seen = np.maximum(blur.forward(estimate), np.float32(0.05) * pedestal)
        residual = _significant(weight * (data - seen), noise)
        if not residual.any():
            break
        estimate = estimate * np.maximum(blur.back(weight + residual / seen) / total, 0)
        used += 1
    # Layer by layer what is significant does not sum to what all of it does: faint stars would lose some percent of light.
    lost = weight * (data - blur.forward(estimate))
    sharper = estimate - pedestal + ndimage.gaussian_filter(lost, blur.radius / (2 * _RADIUS_FWHM))
    if deringing > 0:
        sharper = _without_rings(sharper, image, blur, noise, deringing)
    return _with_original(sharper, image, bad, psf.shape[0] // 4), used


def _without_rings(sharper: np.ndarray, image: np.ndarray, blur: _Blur, noise: float, amount: float) -> np.ndarray:
    """Dark rings lifted to the faintest that lies near them; their light comes from what is bright there.

    A pixel that was fainter than that before stays so: noise is left as it is.
    """
    there = np.isfinite(image)
    sigma = blur.radius / (2 * _RADIUS_FWHM)  # half an FWHM's worth: the noise is not to set the floor
    share = np.maximum(ndimage.gaussian_filter(there.astype(np.float32), sigma), np.float32(1e-3))
    smooth = ndimage.gaussian_filter(np.where(there, image, np.float32(0)), sigma) / share
    around = ndimage.minimum_filter(np.where(there, smooth, np.inf), size=2 * max(2, blur.radius // 2) + 1)
    around = np.where(np.isfinite(around), around, np.float32(0))
    floor = np.minimum(np.where(there, image, around), around).astype(np.float32)
    added = np.float32(amount) * np.maximum(floor - sharper, 0)
    bright = np.maximum(sharper - floor, 0)
    # The sum of what is taken is that of what is added: `back` is the adjoint of `forward`.
    near = np.maximum(blur.forward(bright), np.float32(1e-3 * noise))
    return sharper + added - bright * np.maximum(blur.back(added / near), 0)


def _significant(residual: np.ndarray, noise: float) -> np.ndarray:
    """The part of a residual that stands above its noise in some layer."""
    layers, rest = layers_of(residual, _LAYERS)
    kept = np.where(np.abs(rest) > np.float32(3.0 * 0.05 * noise), rest, np.float32(0))
    for layer, white, limit in zip(layers, _WHITE_NOISE, _SIGNIFICANT, strict=True):
        kept += np.where(np.abs(layer) > np.float32(limit * white * noise), layer, np.float32(0))
    return kept


def _with_original(sharper: np.ndarray, image: np.ndarray, bad: np.ndarray, reach: int) -> np.ndarray:
    """The image itself in and about pixels that could not be used, softly."""
    if bad.any():
        about = ndimage.binary_dilation(bad, iterations=max(reach, 1)).astype(np.float32)
        share = np.clip(2 * ndimage.gaussian_filter(about, _SOFT_PX), 0, 1)
        share[bad] = 1.0
        sharper = share * np.nan_to_num(image) + (1 - share) * sharper
    return np.where(np.isfinite(image), sharper, np.nan).astype(np.float32)


class _Blur:
    """Convolution with a PSF, and with its mirror image; what lies beyond the edges is mirrored."""

    def __init__(self, psf: np.ndarray, shape: tuple[int, int]) -> None:
        self.radius = psf.shape[0] // 2
        self.shape = shape
        padded = tuple(n + 2 * self.radius for n in shape)
        self.size = tuple(fft.next_fast_len(n, real=True) for n in padded)
        kernel = np.zeros(self.size, np.float32)
        kernel[: psf.shape[0], : psf.shape[1]] = psf
        self.transfer = fft.rfft2(np.roll(kernel, (-self.radius, -self.radius), axis=(0, 1)))

    def forward(self, image: np.ndarray) -> np.ndarray:
        """Convolved."""
        return self._apply(image, self.transfer)

    def back(self, image: np.ndarray) -> np.ndarray:
        """Convolved with the mirrored PSF."""
        return self._apply(image, np.conj(self.transfer))

    def _apply(self, image: np.ndarray, transfer: np.ndarray) -> np.ndarray:
        r = self.radius
        padded = np.pad(image, [(r, r), (r, r)], mode="reflect" if min(image.shape) > r else "edge")
        out = fft.irfft2(fft.rfft2(padded, self.size) * transfer, self.size)
        return out[r : r + self.shape[0], r : r + self.shape[1]].astype(np.float32)
