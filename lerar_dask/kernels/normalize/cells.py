"""Cells: 8 px blocks of a sub, without the stars that are masked in all subs, averaged for the sky solution.

In: blocks as measured at ingest (mean, count, clipped-high flux), the noise grid, the common stars in the sub's own
pixels. Out: value and inverse variance per cell of 16 or 32 px. Means, never medians: a mean takes unmasked stars and
nebula in exactly in proportion to the scale, whatever noise and seeing.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import BLOCK_PX, MAD_TO_SIGMA
from lerar_dask.kernels.compiled.kernel import kernel
from lerar_dask.kernels.robust.medians import median

__all__ = ["bin_cells", "cell_edges", "cell_size", "mask_blocks", "mask_radius"]

MAX_CELLS = 24_000_000
"""Cells of all subs together: larger stacks get larger cells. Counted, never derived from memory: same bits anywhere."""
MIN_VALID = 0.25
"""Cells with a smaller share of usable pixels are left out."""
MIN_COUNT = 0.6
"""Blocks with a smaller share of usable pixels are left out."""
MOFFAT_ALPHA = 0.9808
"""Core radius of a Moffat profile of beta 3, in FWHM."""


def cell_size(shape: tuple[int, int], n_subs: int) -> int:
    """Side of a cell in pixels: 16 for small sensors, 32 for large ones, more for thousands of subs.

    >>> cell_size((900, 1200), 30), cell_size((2822, 4144), 60)
    (16, 32)
    """
    pixels = shape[0] * shape[1]
    size = 16 if pixels < 3_000_000 else 32
    while n_subs * pixels / size**2 > MAX_CELLS:
        size *= 2
    return size


def cell_edges(length: int, cell_px: int) -> np.ndarray:
    """Borders of the cells of one axis in blocks; a last strip below half a cell goes to its neighbor.

    >>> cell_edges(900, 16)[-3:]
    array([108, 110, 113])
    """
    blocks = -(-length // BLOCK_PX)
    step = cell_px // BLOCK_PX
    edges = [*range(0, blocks, step), blocks]
    if len(edges) > 2 and length - edges[-2] * BLOCK_PX < cell_px / 2:
        del edges[-2]
    return np.array(edges, np.int64)


def mask_radius(flux: np.ndarray, *, fwhm_px: float, faintest: float, limit_px: float = 60.0) -> np.ndarray:
    """Radius around stars beyond which their light is too faint to matter.

    Parameters
    ----------
    flux : (n,) float     total flux
    fwhm_px : float       worst seeing of all subs
    faintest : float      surface brightness that is left, per pixel, in units of the flux
    """
    alpha = MOFFAT_ALPHA * fwhm_px
    wing = np.maximum(2.0 * np.asarray(flux, np.float64) / (np.pi * alpha**2 * max(faintest, 1e-30)), 1.0)
    return np.clip(alpha * np.sqrt(np.cbrt(wing) - 1.0), fwhm_px, limit_px)


def mask_blocks(xs: np.ndarray, ys: np.ndarray, radius: np.ndarray, *, shape: tuple[int, int]) -> np.ndarray:
    """Blocks of which an eighth or more lies under a star.

    Parameters
    ----------
    xs, ys, radius : (n,) float     stars in the frame's pixels
    shape : (height, width)         the frame

    Returns
    -------
    masked : (by, bx) bool          True = not to be used
    """
    bits = np.zeros((-(-shape[0] // BLOCK_PX), -(-shape[1] // BLOCK_PX)), np.uint16)
    _cover(*(np.ascontiguousarray(a, np.float64) for a in (xs, ys, radius)), bits)
    return _popcount(bits) >= 2


def bin_cells(
    blocks: np.ndarray,
    masked: np.ndarray,
    noise: np.ndarray,
    *,
    shape: tuple[int, int],
    cell_px: int,
    noise_cell_px: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Average the unmasked blocks of one channel into cells.

    Parameters
    ----------
    blocks : (by, bx, 3) float32    mean, count of pixels, clipped-high flux; mean NaN where nothing was valid
    masked : (by, bx) bool          True = under a star
    noise : (gy, gx) float32        sigma of a pixel on cells of `noise_cell_px`
    shape : (height, width)         the frame

    Returns
    -------
    value : (cy, cx) float32        mean, brought to the cell's center
    weight : (cy, cx) float32       1 / variance; 0 = no data

    Notes
    -----
    A cell that lost blocks has its center of mass elsewhere; a smooth polynomial of the sub itself takes the difference
    out (under moonlight it is as large as a cell's noise).
    """
    blocks = np.ascontiguousarray(blocks, np.float32)
    edges = cell_edges(shape[0], cell_px), cell_edges(shape[1], cell_px)
    sigma = np.ascontiguousarray(noise, np.float32)
    per_noise = noise_cell_px // BLOCK_PX
    full = float(np.nanmax(blocks[..., 1])) if blocks.size else 0.0
    value = np.empty((len(edges[0]) - 1, len(edges[1]) - 1), np.float32)
    weight = np.empty_like(value)
    trend = np.zeros(6)
    for last in (False, True):
        _bin(blocks, masked, sigma, per_noise, edges[0], edges[1], full, trend, shape[0], shape[1], value, weight)
        if not last:
            trend = _trend(value, weight, _centers(edges[0], shape[0]), _centers(edges[1], shape[1]), shape)
    return value, weight


def _centers(edges: np.ndarray, length: int) -> np.ndarray:
    """Pixel positions of cell centers."""
    px = np.minimum(edges * BLOCK_PX, length).astype(np.float64)
    return (px[:-1] + px[1:] - 1) / 2


def _trend(value: np.ndarray, weight: np.ndarray, ys: np.ndarray, xs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Second-order polynomial through the cells, in (y / height, x / width)."""
    y, x = np.meshgrid(ys / shape[0], xs / shape[1], indexing="ij")
    good = weight > 0
    if good.sum() < 12:
        return np.zeros(6)
    y, x, v = y[good], x[good], value[good].astype(np.float64)
    terms = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x])
    away = np.abs(v - median(v))
    keep = away <= 6 * MAD_TO_SIGMA * median(away) + 1e-9
    if keep.sum() < 12:
        return np.zeros(6)
    terms = terms[:, keep]
    return np.linalg.lstsq(terms @ terms.T, terms @ v[keep], rcond=1e-12)[0]


def _popcount(bits: np.ndarray) -> np.ndarray:
    """Set bits of each uint16."""
    return np.bitwise_count(bits)


@kernel(borrows=True)
def _cover(xs: np.ndarray, ys: np.ndarray, radius: np.ndarray, bits: np.ndarray) -> None:
    """Mark, in 4 x 4 points of each block, what lies within a star's radius."""
    for k in range(xs.size):
        r = radius[k]
        low_y = max(int(np.floor((ys[k] - r) / BLOCK_PX)), 0)
        high_y = min(int(np.floor((ys[k] + r) / BLOCK_PX)) + 1, bits.shape[0])
        low_x = max(int(np.floor((xs[k] - r) / BLOCK_PX)), 0)
        high_x = min(int(np.floor((xs[k] + r) / BLOCK_PX)) + 1, bits.shape[1])
        for i in range(low_y, high_y):
            for j in range(low_x, high_x):
                found = 0
                for p in range(16):
                    dy = i * BLOCK_PX + (p // 4) * 2 + 0.5 - ys[k]
                    dx = j * BLOCK_PX + (p % 4) * 2 + 0.5 - xs[k]
                    if dy * dy + dx * dx <= r * r:
                        found |= 1 << p
                bits[i, j] |= found


@kernel(borrows=True)
def _bin(
    blocks: np.ndarray,
    masked: np.ndarray,
    sigma: np.ndarray,
    per_noise: int,
    rows: np.ndarray,
    columns: np.ndarray,
    full: float,
    trend: np.ndarray,
    height: int,
    width: int,
    value: np.ndarray,
    weight: np.ndarray,
) -> None:
    for i in range(rows.size - 1):
        cy = (rows[i] * BLOCK_PX + min(rows[i + 1] * BLOCK_PX, height) - 1) * 0.5 / height
        for j in range(columns.size - 1):
            cx = (columns[j] * BLOCK_PX + min(columns[j + 1] * BLOCK_PX, width) - 1) * 0.5 / width
            center = trend[1] * cy + trend[2] * cx + trend[3] * cy * cy + trend[4] * cy * cx + trend[5] * cx * cx
            total = 0.0
            pixels = 0.0
            variance = 0.0
            capacity = 0.0
            for by in range(rows[i], rows[i + 1]):
                high = min(BLOCK_PX, height - by * BLOCK_PX)
                y = (by * BLOCK_PX + (high - 1) * 0.5) / height
                for bx in range(columns[j], columns[j + 1]):
                    wide = min(BLOCK_PX, width - bx * BLOCK_PX)
                    holds = full * high * wide / 64.0
                    capacity += holds
                    n = blocks[by, bx, 1]
                    if masked[by, bx] or n < MIN_COUNT * holds or n <= 0:
                        continue
                    noise = sigma[min(by // per_noise, sigma.shape[0] - 1), min(bx // per_noise, sigma.shape[1] - 1)]
                    x = (bx * BLOCK_PX + (wide - 1) * 0.5) / width
                    here = trend[1] * y + trend[2] * x + trend[3] * y * y + trend[4] * y * x + trend[5] * x * x
                    total += n * (blocks[by, bx, 0] - here + center)
                    pixels += n
                    variance += n * noise * noise
            if pixels > 0 and pixels >= MIN_VALID * capacity and variance > 0:
                value[i, j] = total / pixels
                weight[i, j] = pixels * pixels / variance
            else:
                value[i, j] = 0.0
                weight[i, j] = 0.0
