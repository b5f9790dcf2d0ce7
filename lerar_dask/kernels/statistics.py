"""Block statistics: mean, count and clipped light of 8 px blocks, the data that local normalization works on.

In   a calibrated sub, its background grid, width of its stars
Out  per channel and block the mean of the pixels that are kept, their number, and the light above the level of those that
     were clipped high (stars, trails, cosmic rays)

Means, not medians: a mean takes unseen stars and nebula in exactly in proportion to the transparency. Only what is far
outside is clipped: 6 sigma below; above, 6 sigma and the peak of a star as bright as the faintest that is masked later.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lerar_dask.kernels.background import lattices

__all__ = ["BLOCK_PX", "block_statistics"]

BLOCK_PX = 8
"""Side of a block in sensor pixels."""
_CLIP_SIGMA = 6.0
_STAR_PEAK = 9.0
"""Peak over noise of a star at twice the detection limit, times its FWHM."""


def block_statistics(
    image: np.ndarray, grid: np.ndarray, *, cfa: str | None, cell_px: int = 64, fwhm_px: float = 3.0
) -> np.ndarray:
    """Blocks of a sub.

    Parameters
    ----------
    image : (y, x) float32                      calibrated, C-contiguous; NaN = no data, defects
    grid : (channel, gy, gx, 2) float32         from `background.background_grid`
    cell_px : int                               cell of the grid, a multiple of 8
    fwhm_px : float                             typical width of the stars

    Returns
    -------
    blocks : (channel, by, bx, 3) float32       mean (NaN = none), count, light clipped high in ADU
    """
    parts = lattices(cfa)
    shape = -(-image.shape[0] // BLOCK_PX), -(-image.shape[1] // BLOCK_PX)
    blocks = np.empty((grid.shape[0], *shape, 3), np.float32)
    high = np.float32(_CLIP_SIGMA + _STAR_PEAK / max(fwhm_px, 1.0))
    noise = np.ascontiguousarray(grid[..., 1])
    if cfa is None:
        _sum_mono(image, noise[0], cell_px, np.float32(_CLIP_SIGMA), high, blocks[0])
    else:
        _sum_lattices(image, parts, noise, cell_px, np.float32(_CLIP_SIGMA), high, blocks)
    for channel in range(grid.shape[0]):
        own = parts[parts[:, 0] == channel]
        _clip(image, own, noise[channel], cell_px, np.float32(_CLIP_SIGMA), high, blocks[channel])
    return blocks


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_mono(image, noise, cell_px, low, high, blocks):
    """Mean and count of each block; a block with outliers gets count -1 and its median."""
    height, width = image.shape
    total = np.empty(width, np.float32)
    most = np.empty(width, np.float32)
    least = np.empty(width, np.float32)
    values = np.empty(BLOCK_PX * BLOCK_PX, np.float32)
    for by in range(blocks.shape[0]):
        y0, y1 = by * BLOCK_PX, min((by + 1) * BLOCK_PX, height)
        row = image[y0]
        for x in range(width):
            total[x] = row[x]
            most[x] = row[x]
            least[x] = row[x]
        for y in range(y0 + 1, y1):
            row = image[y]
            for x in range(width):
                v = row[x]
                total[x] += v
                most[x] = v if v > most[x] else most[x]
                least[x] = v if v < least[x] else least[x]
        for bx in range(blocks.shape[1]):
            x0, x1 = bx * BLOCK_PX, min((bx + 1) * BLOCK_PX, width)
            sum_, top, bottom = total[x0], most[x0], least[x0]
            for x in range(x0 + 1, x1):
                sum_ += total[x]
                top = most[x] if most[x] > top else top
                bottom = least[x] if least[x] < bottom else bottom
            n = np.float32((y1 - y0) * (x1 - x0))
            mean = sum_ / n
            sigma = noise[y0 // cell_px, x0 // cell_px]
            # Written so that NaN in the block goes the slow way.
            if top - mean <= high * sigma and mean - bottom <= low * sigma:
                blocks[by, bx, 0] = mean
                blocks[by, bx, 1] = n
                blocks[by, bx, 2] = 0.0
            else:
                m = 0
                for y in range(y0, y1):
                    for x in range(x0, x1):
                        m = _insert(values, m, image[y, x])
                blocks[by, bx, 0] = _middle(values, m)
                blocks[by, bx, 1] = -1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_lattices(image, parts, noise, cell_px, low, high, blocks):
    """As `_sum_mono`, for the channels of a CFA sub."""
    values = np.empty(BLOCK_PX * BLOCK_PX, np.float32)
    for channel in range(blocks.shape[0]):
        for by in range(blocks.shape[1]):
            y0, y1 = by * BLOCK_PX, min((by + 1) * BLOCK_PX, image.shape[0])
            for bx in range(blocks.shape[2]):
                x0, x1 = bx * BLOCK_PX, min((bx + 1) * BLOCK_PX, image.shape[1])
                sum_, n = np.float32(0.0), 0
                top, bottom = np.float32(-np.inf), np.float32(np.inf)
                for p in range(parts.shape[0]):
                    if parts[p, 0] != channel:
                        continue
                    for y in range(y0 + parts[p, 1], y1, 2):
                        for x in range(x0 + parts[p, 2], x1, 2):
                            v = image[y, x]
                            sum_ += v
                            top = v if v > top else top
                            bottom = v if v < bottom else bottom
                            n += 1
                mean = sum_ / np.float32(max(n, 1))
                sigma = noise[channel, y0 // cell_px, x0 // cell_px]
                if n > 0 and top - mean <= high * sigma and mean - bottom <= low * sigma:
                    blocks[channel, by, bx, 0] = mean
                    blocks[channel, by, bx, 1] = n
                    blocks[channel, by, bx, 2] = 0.0
                    continue
                m = 0
                for p in range(parts.shape[0]):
                    if parts[p, 0] == channel:
                        for y in range(y0 + parts[p, 1], y1, 2):
                            for x in range(x0 + parts[p, 2], x1, 2):
                                m = _insert(values, m, image[y, x])
                blocks[channel, by, bx, 0] = _middle(values, m)
                blocks[channel, by, bx, 1] = -1.0


@njit(nogil=True, error_model="numpy")
def _insert(values, n, v):
    """Insert a value into the first n, kept sorted; NaN is left out."""
    if not np.isfinite(v):
        return n
    at = n
    while at > 0 and values[at - 1] > v:
        values[at] = values[at - 1]
        at -= 1
    values[at] = v
    return n + 1


@njit(nogil=True, error_model="numpy")
def _middle(values, n):
    if n == 0:
        return np.float32(np.nan)
    return np.float32(0.5) * (values[(n - 1) // 2] + values[n // 2])


@njit(cache=True, nogil=True, error_model="numpy")
def _clip(image, parts, noise, cell_px, low, high, blocks):
    """Mean of the kept pixels of the blocks that have outliers, around the median of the 3x3 blocks' levels."""
    level = blocks[:, :, 0].copy()
    around = np.empty(9, np.float32)
    for by in range(blocks.shape[0]):
        for bx in range(blocks.shape[1]):
            if blocks[by, bx, 1] >= 0:
                continue
            n = 0
            for j in range(max(by - 1, 0), min(by + 2, blocks.shape[0])):
                for i in range(max(bx - 1, 0), min(bx + 2, blocks.shape[1])):
                    n = _insert(around, n, level[j, i])
            center = _middle(around, n)
            sigma = noise[by * BLOCK_PX // cell_px, bx * BLOCK_PX // cell_px]
            sum_, count, above = 0.0, 0, 0.0
            for p in range(parts.shape[0]):
                stride = parts[p, 3]
                for y in range(by * BLOCK_PX + parts[p, 1], min((by + 1) * BLOCK_PX, image.shape[0]), stride):
                    for x in range(bx * BLOCK_PX + parts[p, 2], min((bx + 1) * BLOCK_PX, image.shape[1]), stride):
                        excess = image[y, x] - center
                        if excess > high * sigma:
                            above += excess
                        elif excess >= -low * sigma:
                            sum_ += excess
                            count += 1
            blocks[by, bx, 0] = center + sum_ / count if count > 0 else np.nan
            blocks[by, bx, 1] = count
            blocks[by, bx, 2] = above
