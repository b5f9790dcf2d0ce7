"""Deconvolution of a linear image with the PSF of its stars, or of another image's."""

from __future__ import annotations

import numpy as np

from lerar_dask.errors import UsageError
from lerar_dask.image.blocks import stars_of, tiles_with_sky, with_border
from lerar_dask.image.state import Image, needs
from lerar_dask.kernels.picture import deconvolve as kernel
from lerar_dask.kernels.picture import sky as skies
from lerar_dask.kernels.picture.psf import Model, Psf, fit_star, psf_image, usual_psf
from lerar_dask.kernels.picture.star_colors import below_saturation

__all__ = ["deconvolve", "psf_of"]

_MOST = 60
"""Stars that are fitted."""
_LEAST = 8


def psf_of(image: Image, *, fwhm_px: float = 3.0, model: Model = "moffat", saturation: float = np.inf) -> Psf:
    """The usual star of an image (DynamicPSF): many stars of middle brightness, without what lies apart.

    Parameters
    ----------
    fwhm_px : width of the stars, roughly
    saturation : from here on a pixel is a lower bound only

    Raises
    ------
    UsageError
        for a stretched image, one of several channels, or where too few stars can be fitted.
    """
    _needs_light(image, "a PSF")
    stars = stars_of(image, fwhm_px)
    stars = stars[below_saturation(stars, 1, (saturation,))]
    order = np.argsort(-stars[:, 2], kind="stable")
    chosen = stars[order[len(stars) // 10 :][:_MOST]]
    half = max(6, int(np.ceil(3.5 * fwhm_px)))
    height, width = image.shape[1:]
    fits = []
    for x, y in chosen[:, :2].astype(int):
        if half <= x < width - half and half <= y < height - half:
            cutout = image.data[0, y - half : y + half + 1, x - half : x + half + 1].compute()
            fits.append(fit_star(np.asarray(cutout), model=model))
    found = [fit for fit in fits if fit is not None]
    usual = usual_psf(found) if len(found) >= _LEAST else None
    if usual is None:
        raise UsageError(f"{len(found)} stars tell too little of the PSF", "give the stars' --fwhm-px")
    return usual


def deconvolve(
    image: Image,
    *,
    psf: Psf | None = None,
    iterations: int = 30,
    deringing: float = 1.0,
    fwhm_px: float = 3.0,
    model: Model = "moffat",
    saturation: float = np.inf,
) -> Image:
    """Regularized Richardson-Lucy of a linear image of one channel, chunk by chunk with borders, lazily.

    Parameters
    ----------
    psf : what is taken back; None: that of the image's own stars
    iterations, deringing, saturation : see `kernels.picture.deconvolve.deconvolve`; the level of the sky stays as it is

    Raises
    ------
    UsageError
        as `psf_of`.
    """
    _needs_light(image, "deconvolution")
    if psf is None:
        psf = psf_of(image, fwhm_px=fwhm_px, model=model, saturation=saturation)
    level, noise = (float(v[0]) for v in skies.sky_of(*tiles_with_sky(image)))
    blur = psf_image(psf, kernel.psf_radius_px(psf.fwhm_px))

    def sharpen(block: np.ndarray) -> np.ndarray:
        sharper, _ = kernel.deconvolve(
            np.ascontiguousarray(block[0] - np.float32(level)),
            blur,
            noise,
            saturation=saturation - level,
            iterations=iterations,
            deringing=deringing,
        )
        return np.asarray(sharper[None] + np.float32(level), np.float32)

    out = with_border(sharpen, image.data, kernel.reach_px(psf.fwhm_px))
    line = (
        f"Deconvolution: Richardson-Lucy, at most {iterations} iterations; PSF {psf.fwhm_x_px:.3f} x {psf.fwhm_y_px:.3f} px, "
        f"beta {psf.beta:.2f}, {psf.stars} stars"
    )
    return image.then(out, line)


def _needs_light(image: Image, step: str) -> None:
    """Refuse what is stretched or has colors."""
    needs(image, "linear", "deconvolution")
    if image.shape[0] != 1:
        raise UsageError(
            f"{step} needs an image of one channel, as a luminance",
            "`lerar picture --deconvolution richardson-lucy` sharpens the luminance of colors",
        )
