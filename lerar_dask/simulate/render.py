"""Light on a sensor: stars, nebula, filters, and the numbers that an exposure gives."""

from __future__ import annotations

import numpy as np
from numba import njit

from lerar_dask.simulate.sky import GAIN_E_ADU, OFFSET_ADU, READ_NOISE_E

__all__ = ["add_stars", "colored", "exposed", "nebula_on"]


def nebula_on(blobs: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Nebula, evaluated on every 4th pixel and interpolated: it is smooth."""
    step = 4
    cx, cy = xs[::step, ::step], ys[::step, ::step]
    total = np.zeros(cx.shape, np.float32)
    for x, y, sx, sy, peak in blobs:
        total += (peak * np.exp(-0.5 * (((cx - x) / sx) ** 2 + ((cy - y) / sy) ** 2))).astype(np.float32)
    (height, width), (last_row, last_column) = xs.shape, (n - 1 for n in cx.shape)
    rows = np.minimum(np.arange(height) / step, last_row)
    columns = np.minimum(np.arange(width) / step, last_column)
    return _bilinear(total, rows, columns)


def _bilinear(grid: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Grid values at rows and columns, linear between."""
    r0, c0 = np.minimum(rows.astype(int), grid.shape[0] - 2), np.minimum(columns.astype(int), grid.shape[1] - 2)
    fr, fc = (rows - r0).astype(np.float32)[:, None], (columns - c0).astype(np.float32)[None]
    across = grid.take(c0, 1) * (1 - fc) + grid.take(c0 + 1, 1) * fc
    return across.take(r0, 0) * (1 - fr) + across.take(r0 + 1, 0) * fr


def colored(image: np.ndarray, pattern: str) -> np.ndarray:
    """Light through the filters of a color sensor."""
    share = {"R": 0.7, "G": 1.0, "B": 0.55}
    out = image.copy()
    for i, color in enumerate(pattern):
        out[i // 2 :: 2, i % 2 :: 2] *= np.float32(share[color])
    return out


def exposed(electrons: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint16 ADU with photon and read noise; Poisson proper where there is little light."""
    if float(np.median(electrons)) < 50:
        noisy = rng.poisson(np.maximum(electrons, 0)).astype(np.float32)
        noisy += READ_NOISE_E * rng.standard_normal(electrons.shape, np.float32)
    else:
        noisy = electrons + np.sqrt(np.maximum(electrons, 0) + READ_NOISE_E**2) * rng.standard_normal(
            electrons.shape, np.float32
        )
    return np.clip(np.rint(noisy / GAIN_E_ADU + OFFSET_ADU), 0, 65535).astype(np.uint16)


@njit(cache=True, nogil=True, error_model="numpy")
def add_stars(image, places, flux, alpha, beta):  # pragma: no cover
    """Add Moffat stars, averaged over 3 x 3 points of the pixels of their cores."""
    height, width = image.shape
    for k in range(len(flux)):
        peak = flux[k] * (beta - 1) / (np.pi * alpha * alpha)
        reach = alpha * np.sqrt(max((peak / 0.02) ** (1 / beta) - 1.0, 1.0))
        radius = int(min(max(reach, 8.0), 160.0))
        x, y = places[k, 0], places[k, 1]
        for i in range(max(0, int(y) - radius), min(height, int(y) + radius + 2)):
            for j in range(max(0, int(x) - radius), min(width, int(x) + radius + 2)):
                r2 = (i - y) ** 2 + (j - x) ** 2
                if r2 > radius * radius:
                    continue
                if r2 < 36.0:
                    total = 0.0
                    for a in range(3):
                        for b in range(3):
                            q = (i - y + (a - 1) / 3) ** 2 + (j - x + (b - 1) / 3) ** 2
                            total += (1 + q / (alpha * alpha)) ** -beta
                    image[i, j] += peak * total / 9
                else:
                    image[i, j] += peak * (1 + r2 / (alpha * alpha)) ** -beta
