"""Stretches: linear images, of which nearly all is black, made visible. The last step of the linear order.

In   linear values with black at 0 and white at 1
Out  values in 0..1

MTF and HistogramTransformation as in PixInsight's documentation, the automatic parameters as published for its
ScreenTransferFunction; arcsinh as in [1]_; the generalized hyperbolic curves as in [2]_.

References
----------
.. [1] Lupton et al., Preparing red-green-blue images from CCD data, PASP 116, 133 (2004)
.. [2] Payne and Cranfield, Generalized hyperbolic stretch (2021), https://ghsastro.co.uk
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA

__all__ = ["Histogram", "arcsinh_stretch", "auto_histogram", "hyperbolic_stretch", "mtf", "scale_to_white"]

_TARGET, _SHADOWS = 0.25, -2.8
"""Where the sky comes to lie, and how many sigma below it black does: STF's own."""


@dataclass(frozen=True)
class Histogram:
    """Parameters of a HistogramTransformation."""

    shadows: float = 0.0
    midtones: float = 0.5
    highlights: float = 1.0

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Clip to shadows and highlights, then curve; NaN stays."""
        span = np.float32(self.highlights - self.shadows)
        shown = np.clip((image - np.float32(self.shadows)) / span, np.float32(0), np.float32(1))
        return mtf(self.midtones, shown)


def mtf(midtones: float, x: np.ndarray | float) -> np.ndarray:
    """Midtones transfer function: 0 to 0, `midtones` to 1/2, 1 to 1; that of 1 - m undoes that of m.

    Examples
    --------
    >>> float(mtf(0.25, 0.25)), float(mtf(0.5, 0.3))
    (0.5, 0.3)
    """
    x = np.asarray(x)
    m = x.dtype.type(midtones)
    one = x.dtype.type(1)
    with np.errstate(invalid="ignore"):
        return (m - one) * x / ((m + m - one) * x - m)


def auto_histogram(
    median: float, mad: float, *, target: float = _TARGET, shadows: float = _SHADOWS, lowest: float = 0.0
) -> Histogram:
    """Parameters that bring the median of an image to `target` and black `shadows` sigma below it.

    Parameters
    ----------
    median, mad : of the linear image; those of several channels averaged for a linked stretch
    lowest : where black may lie at the least: 0 where values below it were cut

    Examples
    --------
    >>> curve = auto_histogram(0.012, 0.001)
    >>> round(float(curve.apply(np.array([0.012]))[0]), 2)
    0.25
    """
    black = min(max(median + shadows * MAD_TO_SIGMA * mad, lowest), 1.0) if mad > 0 else lowest
    middle = max(median - black, 1e-9) / (1.0 - black)
    return Histogram(shadows=black, midtones=float(mtf(target, middle)))


def scale_to_white(rgb: np.ndarray) -> np.ndarray:
    """Colors brighter than white brought back to it with their hue kept: all channels over the largest."""
    top = rgb.max(axis=0)
    return rgb / np.where(top > np.float32(1), top, np.float32(1))


def arcsinh_stretch(rgb: np.ndarray, stretch: float, *, black: float = 0.0) -> np.ndarray:
    """Arcsinh of the mean of the channels, by whose growth all channels grow: colors stay as they are.

    Parameters
    ----------
    rgb : (channel, ...) float32
    stretch : factor by which the faintest light grows against white, before white is 1
    black : value that becomes 0
    """
    shown = np.maximum((rgb - np.float32(black)) / np.float32(1 - black), np.float32(0))
    mean = shown.mean(axis=0, dtype=np.float32)
    b = np.float32(stretch)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(mean > 0, np.arcsinh(b * mean) / (mean * np.arcsinh(b)), b / np.arcsinh(b))
    return scale_to_white(shown * factor.astype(np.float32))


def hyperbolic_stretch(
    image: np.ndarray,
    stretch: float,
    *,
    shape: float = 0.0,
    symmetry: float = 0.0,
    protect_low: float = 0.0,
    protect_high: float = 1.0,
) -> np.ndarray:
    """Generalized hyperbolic stretch.

    Parameters
    ----------
    stretch : D of the formula (the field's programs show ln(D + 1))
    shape : b, the local intensity: -1 logarithmic, 0 exponential, 1 harmonic
    symmetry : SP, the value about which contrast grows most
    protect_low, protect_high : LP <= SP <= HP; beyond them the curve goes on straight
    """
    if stretch == 0:
        return np.clip(image, 0, 1)
    x = np.clip(image, 0, 1).astype(np.float64)
    ends = np.array([0.0, 1.0])
    bottom, top = (_curve(e, stretch, shape, symmetry, protect_low, protect_high) for e in ends)
    y = _curve(x, stretch, shape, symmetry, protect_low, protect_high)
    return ((y - bottom) / (top - bottom)).astype(np.float32)


def _curve(x: np.ndarray, d: float, b: float, sp: float, lp: float, hp: float) -> np.ndarray:
    """T about the symmetry point, odd below it, straight beyond the protected values."""
    inside = np.clip(x, lp, hp)
    u = inside - sp
    value = np.sign(u) * _base(np.abs(u), d, b)
    return value + _slope(np.abs(u), d, b) * (x - inside)


def _base(u: np.ndarray, d: float, b: float) -> np.ndarray:
    if b == -1:
        return np.log1p(d * u)
    if b < 0:
        return (1 - (1 - d * b * u) ** ((b + 1) / b)) / (b + 1)
    if b == 0:
        return -np.expm1(-d * u)
    return 1 - (1 + b * d * u) ** (-1 / b)


def _slope(u: np.ndarray, d: float, b: float) -> np.ndarray:
    if b == -1:
        return d / (1 + d * u)
    if b < 0:
        return d * (1 - d * b * u) ** (1 / b)
    if b == 0:
        return d * np.exp(-d * u)
    return d * (1 + b * d * u) ** (-(1 + b) / b)
