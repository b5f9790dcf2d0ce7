"""Block statistics: mean, count and clipped light of 8 px blocks, the data that local normalization works on.

In   a calibrated sub, its background grid, width of its stars
Out  per channel and block the mean of the pixels that are kept, their number, and the light above the level of those that
     were clipped high (stars, trails, cosmic rays)

Means, not medians: a mean takes unseen stars and nebula in exactly in proportion to the transparency. Only what is far
outside is clipped: 6 sigma below; above, 6 sigma and the peak of a star as bright as the faintest that is masked later.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import BLOCK_PX
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.measure.lattices import lattices, part_pairs
from lerar_dask.kernels.robust.medians import middle_of_sorted

__all__ = ["block_statistics"]

_STRIP = 1024
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
    noise = grid[..., 1].repeat(cell_px // BLOCK_PX, axis=1).repeat(cell_px // BLOCK_PX, axis=2)
    noise = np.ascontiguousarray(noise[:, : shape[0], : shape[1]])
    low = np.float32(_CLIP_SIGMA)
    if cfa is None:
        _mono(image, parts, noise[0], low, high, blocks[0])
    else:
        parts = parts[np.argsort(parts[:, 0], kind="stable")]
        _colors(image, parts, noise, low, high, blocks)
    return blocks


@kernel
def _mono(image, parts, noise, low, high, blocks):
    """Blocks of a sub of one channel; what a row of blocks needs of the sub is still in the cache when it is clipped."""
    values, around = np.empty(BLOCK_PX * BLOCK_PX, np.float32), np.empty(9, np.float32)
    columns, sums = np.empty((3, _STRIP), np.float32), np.empty((3, _STRIP // BLOCK_PX), np.float32)
    level = np.empty((blocks.shape[0], blocks.shape[1]), np.float32)
    for by in range(blocks.shape[0] + 1):
        if by < blocks.shape[0]:
            _sum_row(image, noise, low, high, by, columns, sums, values, level, blocks)
        if by > 0:
            _clip_row(image, parts, noise, low, high, by - 1, around, level, blocks)


@part(borrows=True)
def _sum_row(image, noise, low, high, by, columns, sums, values, level, blocks):
    """Mean and count of a row of blocks; a block with outliers gets count -1 and, as its level, its median."""
    y0, y1 = by * BLOCK_PX, min((by + 1) * BLOCK_PX, image.shape[0])
    # Columns of a strip stay in the fastest cache.
    for left in range(0, image.shape[1], _STRIP):
        n_columns = min(_STRIP, image.shape[1] - left)
        _columns(image[y0:y1, left : left + n_columns], columns)
        _join_columns(columns, n_columns, sums)
        for i in range((n_columns + BLOCK_PX - 1) // BLOCK_PX):
            x0, x1 = left + i * BLOCK_PX, left + min((i + 1) * BLOCK_PX, n_columns)
            bx = x0 // BLOCK_PX
            n = np.float32((y1 - y0) * (x1 - x0))
            mean = sums[0, i] / n
            sigma = noise[by, bx]
            level[by, bx] = mean
            blocks[by, bx, 0] = mean
            blocks[by, bx, 1] = n
            blocks[by, bx, 2] = 0.0
            # Written so that NaN in the block goes the slow way.
            if not (sums[1, i] - mean <= high * sigma and mean - sums[2, i] <= low * sigma):
                level[by, bx] = _rough_median(image[y0:y1, x0:x1], values)
                blocks[by, bx, 1] = -1.0


@part(borrows=True)
def _columns(band, columns):
    """Sum, maximum and minimum of the columns of a band."""
    total, most, least = columns[0], columns[1], columns[2]
    n_rows, width = band.shape
    if n_rows == BLOCK_PX:
        # One pass, so that what is gathered stays in registers.
        a, b, c, d, e, f, g, h = band[0], band[1], band[2], band[3], band[4], band[5], band[6], band[7]
        for x in range(width):
            s, t, u, v, w, p, q, r = a[x], b[x], c[x], d[x], e[x], f[x], g[x], h[x]
            total[x] = ((s + t) + (u + v)) + ((w + p) + (q + r))
            most[x] = _max(_max(_max(s, t), _max(u, v)), _max(_max(w, p), _max(q, r)))
            least[x] = _min(_min(_min(s, t), _min(u, v)), _min(_min(w, p), _min(q, r)))
        return
    total[:width] = 0.0
    most[:width] = -np.inf
    least[:width] = np.inf
    for y in range(n_rows):
        row = band[y]
        for x in range(width):
            total[x] += row[x]
            most[x] = _max(most[x], row[x])
            least[x] = _min(least[x], row[x])


@part(borrows=True)
def _join_columns(columns, n_columns, sums):
    """Of the eight columns of each block one sum, maximum and minimum.

    Written out: loops over the columns of a block would not be vector code.
    """
    n = n_columns // BLOCK_PX
    t, m, k = columns[0], columns[1], columns[2]
    for i in range(n):
        x = i * BLOCK_PX
        sums[0, i] = ((((((t[x] + t[x + 1]) + t[x + 2]) + t[x + 3]) + t[x + 4]) + t[x + 5]) + t[x + 6]) + t[x + 7]
    for i in range(n):
        x = i * BLOCK_PX
        first = _max(_max(m[x], m[x + 1]), _max(m[x + 2], m[x + 3]))
        sums[1, i] = _max(first, _max(_max(m[x + 4], m[x + 5]), _max(m[x + 6], m[x + 7])))
    for i in range(n):
        x = i * BLOCK_PX
        first = _min(_min(k[x], k[x + 1]), _min(k[x + 2], k[x + 3]))
        sums[2, i] = _min(first, _min(_min(k[x + 4], k[x + 5]), _min(k[x + 6], k[x + 7])))
    if n * BLOCK_PX < n_columns:
        x = n * BLOCK_PX
        sums[0, n], sums[1, n], sums[2, n] = t[x], m[x], k[x]
        for x in range(n * BLOCK_PX + 1, n_columns):
            sums[0, n] += t[x]
            sums[1, n] = _max(sums[1, n], m[x])
            sums[2, n] = _min(sums[2, n], k[x])


@part(inline="always")
def _max(a, b):
    return a if a > b else b


@part(inline="always")
def _min(a, b):
    return a if a < b else b


@part(borrows=True)
def _rough_median(block, values):
    """Median of every second pixel of every second row; of all where these are missing."""
    m = np.int64(0)  # a bare 0 would be a type of its own, and compiled as well
    for y in range(0, block.shape[0], 2):
        for x in range(0, block.shape[1], 2):
            m = _insert(values, m, block[y, x])
    if m == 0:
        for y in range(block.shape[0]):
            for x in range(block.shape[1]):
                m = _insert(values, m, block[y, x])
    return middle_of_sorted(values, m)


@kernel
def _colors(image, parts, noise, low, high, blocks):
    """As `_mono`, for a CFA sub; its lattices in the order of their channels."""
    values, around = np.empty(BLOCK_PX * BLOCK_PX, np.float32), np.empty(9, np.float32)
    halves = np.empty((4, BLOCK_PX // 2, _STRIP // 2), np.float32)
    columns, sums = np.empty((3, _STRIP // 2), np.float32), np.empty((3, _STRIP // BLOCK_PX), np.float32)
    level = np.empty(blocks.shape[:3], np.float32)
    for by in range(blocks.shape[1] + 1):
        if by < blocks.shape[1]:
            _sum_lattice_row(image, parts, noise, low, high, by, halves, columns, sums, values, level, blocks)
        if by > 0:
            for c in range(blocks.shape[0]):
                own = parts[_first_of(parts, c) : _first_of(parts, c + 1)]
                _clip_row(image, own, noise[c], low, high, by - 1, around, level[c], blocks[c])


@part(borrows=True)
def _first_of(parts, channel):
    """Index of the first lattice of a channel."""
    p = np.int64(0)
    while p < parts.shape[0] and parts[p, 0] < channel:
        p += 1
    return p


@part(borrows=True)
def _sum_lattice_row(image, parts, noise, low, high, by, halves, columns, sums, values, level, blocks):
    """As `_sum_row`, for a CFA sub."""
    y0, y1 = by * BLOCK_PX, min((by + 1) * BLOCK_PX, image.shape[0])
    whole = image.shape[1] // BLOCK_PX if y1 - y0 == BLOCK_PX else 0
    for left in range(0, whole * BLOCK_PX, _STRIP):
        n_columns = min(_STRIP, whole * BLOCK_PX - left)
        n, half = n_columns // BLOCK_PX, n_columns // 2
        _part_band(image, parts, y0, left, half, halves)
        for c in range(blocks.shape[0]):
            first, after = _first_of(parts, c), _first_of(parts, c + 1)
            rows = halves[first:after].reshape(4 * (after - first), halves.shape[2])
            _columns(rows[:, :half], columns)
            _join_fours(columns, n, sums)
            area = np.float32((after - first) * BLOCK_PX * BLOCK_PX // 4)
            share = np.float32(1.0) / area
            for i in range(n):
                bx = left // BLOCK_PX + i
                mean, sigma = sums[0, i] * share, noise[c, by, bx]
                level[c, by, bx] = mean
                blocks[c, by, bx, 0] = mean
                blocks[c, by, bx, 1] = area
                blocks[c, by, bx, 2] = 0.0
                if not (sums[1, i] - mean <= high * sigma and mean - sums[2, i] <= low * sigma):
                    level[c, by, bx] = _lattice_median(image, parts[first:after], y0, y1, bx * BLOCK_PX, values)
                    blocks[c, by, bx, 1] = -1.0
    for c in range(blocks.shape[0]):
        own = parts[_first_of(parts, c) : _first_of(parts, c + 1)]
        for bx in range(whole, blocks.shape[2]):
            # An edge cuts these: by their medians, as if they had outliers.
            level[c, by, bx] = _lattice_median(image, own, y0, y1, bx * BLOCK_PX, values)
            blocks[c, by, bx, 1] = -1.0


@part(borrows=True)
def _part_band(image, parts, y0, left, half, halves):
    """Rows of a strip of a band of blocks, apart by lattice: halves (lattice, row, column)."""
    for p in range(parts.shape[0]):
        for q in range(p + 1, parts.shape[0]):
            if parts[p, 1] == parts[q, 1]:
                even, odd = (p, q) if parts[p, 2] == 0 else (q, p)
                for j in range(BLOCK_PX // 2):
                    row = image[y0 + parts[p, 1] + 2 * j, left : left + 2 * half]
                    part_pairs(row, halves[even, j, :half], halves[odd, j, :half])


@part(borrows=True)
def _lattice_median(image, parts, y0, y1, x0, values):
    """Median of the pixels of one color in a block: of the first of its lattices that has some."""
    m = np.int64(0)
    for p in range(parts.shape[0]):
        if m > 0:
            break
        for y in range(y0 + parts[p, 1], y1, 2):
            for x in range(x0 + parts[p, 2], min(x0 + BLOCK_PX, image.shape[1]), 2):
                m = _insert(values, m, image[y, x])
    return middle_of_sorted(values, m)


@part(borrows=True)
def _join_fours(columns, n, sums):
    """As `_join_columns`, of four columns of each of n blocks."""
    t, m, k = columns[0], columns[1], columns[2]
    for i in range(n):
        x = 4 * i
        sums[0, i] = ((t[x] + t[x + 1]) + t[x + 2]) + t[x + 3]
    for i in range(n):
        x = 4 * i
        sums[1, i] = _max(_max(m[x], m[x + 1]), _max(m[x + 2], m[x + 3]))
    for i in range(n):
        x = 4 * i
        sums[2, i] = _min(_min(k[x], k[x + 1]), _min(k[x + 2], k[x + 3]))


@part(borrows=True)
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


@part(borrows=True)
def _clip_row(image, parts, noise, low, high, by, around, level, blocks):
    """Mean of the kept pixels of the blocks that have outliers, around the median of the 3x3 blocks' levels."""
    y0, y1 = by * BLOCK_PX, min((by + 1) * BLOCK_PX, image.shape[0])
    for bx in range(blocks.shape[1]):
        if blocks[by, bx, 1] >= 0:
            continue
        n = np.int64(0)
        for j in range(max(by - 1, 0), min(by + 2, blocks.shape[0])):
            for i in range(max(bx - 1, 0), min(bx + 2, blocks.shape[1])):
                n = _insert(around, n, level[j, i])
        center = middle_of_sorted(around, n)
        x0, x1 = bx * BLOCK_PX, min((bx + 1) * BLOCK_PX, image.shape[1])
        sigma = noise[by, bx]
        sum_, count, above = 0.0, 0, 0.0
        for p in range(parts.shape[0]):
            stride = parts[p, 3]
            for y in range(y0 + parts[p, 1], y1, stride):
                for x in range(x0 + parts[p, 2], x1, stride):
                    excess = image[y, x] - center
                    if excess > high * sigma:
                        above += excess
                    elif excess >= -low * sigma:
                        sum_ += excess
                        count += 1
        blocks[by, bx, 0] = center + sum_ / count if count > 0 else np.nan
        blocks[by, bx, 1] = count
        blocks[by, bx, 2] = above
