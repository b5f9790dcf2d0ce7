"""A trous wavelets: an image as layers of growing scale, by smoothing with holes.

In   (y, x) float32, NaN where there is no data
Out  the image without its finest layers, or the layers

The layer of scale k is what a 3 x 3 linear (1 2 1) or 5 x 5 B3 spline (1 4 6 4 1) filter with 2^k - 1 holes takes away
[1]_. Pixels without data weigh nothing. A result depends on the pixels within `reach_px` alone: edges of tiles never show
when tiles overlap by it.

References
----------
.. [1] Starck and Murtagh, Astronomical Image and Data Analysis, 2nd ed. (2006), chapter 2
"""

from __future__ import annotations

import numpy as np

__all__ = ["layers_of", "reach_px", "smooth"]

_TAPS = {"linear": (0.5, 0.25), "b3": (0.375, 0.25, 0.0625)}


def reach_px(n_layers: int, kernel: str = "linear") -> int:
    """How far pixels act on one another over some layers.

    >>> reach_px(3)
    7
    """
    return (len(_TAPS[kernel]) - 1) * (2**n_layers - 1)


def smooth(image: np.ndarray, n_layers: int, kernel: str = "linear") -> np.ndarray:
    """The image less its finest layers."""
    if n_layers == 0:
        return image
    there = np.isfinite(image)
    value = np.where(there, image, np.float32(0)).astype(np.float32)
    weight = there.astype(np.float32)
    for k in range(n_layers):
        value, weight = _filter(value, 1 << k, kernel), _filter(weight, 1 << k, kernel)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(there, value / weight, np.nan).astype(np.float32)


def layers_of(image: np.ndarray, n_layers: int, kernel: str = "b3") -> tuple[list[np.ndarray], np.ndarray]:
    """Layers, the finest first, and what is left; their sum is the image."""
    layers, rest = [], image
    for k in range(n_layers):
        smoother = _filter(rest, 1 << k, kernel)
        layers.append(rest - smoother)
        rest = smoother
    return layers, rest


def _filter(image: np.ndarray, step: int, kernel: str) -> np.ndarray:
    """Both directions; beyond the edge the image is mirrored."""
    for axis in (0, 1):
        center, *sides = (np.float32(t) for t in _TAPS[kernel])
        n = image.shape[axis]
        out = center * image
        for j, tap in enumerate(sides, start=1):
            below, above = _mirrored(np.arange(n) - j * step, n), _mirrored(np.arange(n) + j * step, n)
            out += tap * (np.take(image, below, axis=axis) + np.take(image, above, axis=axis))
        image = out
    return image


def _mirrored(at: np.ndarray, n: int) -> np.ndarray:
    """Indices folded back into 0..n-1."""
    if n == 1:
        return np.zeros_like(at)
    period = 2 * (n - 1)
    at = np.abs(at) % period
    return np.where(at >= n, period - at, at)
