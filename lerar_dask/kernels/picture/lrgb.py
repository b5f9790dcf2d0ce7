"""Luminance and color joined: LRGBCombination after the stretch, and its linear twin before it.

In   luminance (y, x) and RGB (3, y, x) on one grid
Out  RGB (3, y, x)

LRGBCombination as in PixInsight's documentation: L* of the image is replaced, saturation goes through a midtones transfer
function, the noise of colors through a low-pass of a* and b*. On linear data L* is a toe and not a brightness: there the
luminance of the RGB is replaced by a factor.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.picture.color import from_lab, luminance_of, to_lab
from lerar_dask.kernels.picture.stretch import mtf
from lerar_dask.kernels.picture.wavelets import reach_px, smooth

__all__ = ["chroma_reach_px", "combine_lrgb", "linear_lrgb", "smooth_chroma"]


def combine_lrgb(
    lightness: np.ndarray, rgb: np.ndarray, *, lightness_transfer: float = 0.5, saturation_transfer: float = 0.5
) -> np.ndarray:
    """A stretched luminance in place of the L* of stretched RGB.

    Parameters
    ----------
    lightness : (y, x) float32     stretched luminance, taken as L*
    rgb : (3, y, x) float32        in 0..1
    lightness_transfer, saturation_transfer : midtones; 0.5 changes nothing, less gives more light, more color
    """
    lab = to_lab(rgb)
    light = mtf(lightness_transfer, np.clip(lightness, 0, 1).astype(np.float32))
    chroma = np.hypot(lab[1], lab[2])
    wanted = mtf(saturation_transfer, np.clip(chroma, 0, 1)) * light + chroma * (np.float32(1) - light)
    factor = np.where(chroma > 0, wanted / np.where(chroma > 0, chroma, np.float32(1)), np.float32(1))
    return np.clip(_in_gamut(light, lab[1] * factor, lab[2] * factor), 0, 1)


def _in_gamut(light: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """RGB of a color, paler where sRGB does not have it at this lightness: so hues stay."""
    rgb = from_lab(np.stack([light, a, b]))
    gray = from_lab(np.stack([light, np.zeros_like(a), np.zeros_like(b)]))
    top, bottom = rgb.max(axis=0), rgb.min(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        over = np.where(top > 1, (np.float32(1) - gray[0]) / (top - gray[0]), np.float32(1))
        under = np.where(bottom < 0, gray[0] / (gray[0] - bottom), np.float32(1))
    share = np.clip(np.minimum(over, under), 0, 1)
    return gray + share * (rgb - gray)


def linear_lrgb(luminance: np.ndarray, rgb: np.ndarray, *, floor: float) -> np.ndarray:
    """Linear luminance in place of that of linear RGB, as far as the latter stands above its noise.

    Parameters
    ----------
    luminance : (y, x) float32     on the scale of `rgb`, sky at 0
    rgb : (3, y, x) float32        sky at 0
    floor : luminance at which the RGB's own is noise: below it, colors fade to gray
    """
    own = luminance_of(rgb)
    safe = np.maximum(own, np.float32(floor))
    trust = np.clip(own / np.float32(floor), 0, 1) if floor > 0 else np.ones_like(own)
    return trust * rgb * (np.maximum(luminance, 0) / safe) + (np.float32(1) - trust) * luminance


def chroma_reach_px(n_layers: int) -> int:
    """How far pixels act on one another in `smooth_chroma`."""
    return reach_px(n_layers)


def smooth_chroma(rgb: np.ndarray, n_layers: int, *, protect: float = 0.5) -> np.ndarray:
    """Color without its finest layers, lightness as it is.

    Parameters
    ----------
    rgb : (3, y, x) float32 in 0..1
    n_layers : layers taken out of a* and b*
    protect : L* from which on color is left as it is, and half of it half
    """
    if n_layers == 0:
        return rgb
    lab = to_lab(rgb)
    keep = np.clip(lab[0] / np.float32(protect), 0, 1) ** 2 if protect > 0 else np.zeros_like(lab[0])
    smoothed = [keep * own + (np.float32(1) - keep) * smooth(own, n_layers) for own in lab[1:]]
    return np.clip(_in_gamut(lab[0], *smoothed), 0, 1)
