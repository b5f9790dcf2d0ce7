"""Background: level of the sky and noise of a pixel, on a grid of cells.

In   a calibrated sub, mono or CFA (each color's lattice is measured within itself)
Out  per channel and cell the median of the sky and its sigma

A histogram with bins small against the noise is laid where the cell above had its sky, or, if that does not fit,
where a sample of 64 pixels says; one pass over the cell fills it.
The walk through its lower half gives the median and the 15.87 % point. Stars sit above: what lies more than 2.5 sigma
above the median is cut off and the two points are walked to again, as long as they move.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.measure.lattices import lattices, part_pairs

__all__ = ["background_grid", "interpolate_grid", "smooth_grid", "step_of"]

_SAMPLES = 64
_BINS_BELOW, _BINS = 72, 128
"""Bins of sigma / 12: from 6 sigma below to 4.7 sigma above the sample's median."""
_PER_SIGMA = 12.0
_FEWEST = 48
"""Cells with fewer good pixels take their neighbors' values."""
_FULL = 1024
"""Pixels of a cell and channel up to which all are read; of more, every second row. 1000 fix a median to 0.04 sigma."""


def step_of(image: np.ndarray) -> float:
    """Smallest step between the values of a sub: 0 when they are as good as continuous.

    Parameters
    ----------
    image : (y, x) float32
    """
    sample = image[:: max(1, image.shape[0] // 64), :: max(1, image.shape[1] // 64)]
    values = np.unique(sample[np.isfinite(sample)])
    if values.size < 2 or values.size > sample.size // 2:
        return 0.0
    return float(np.diff(values).min())


def background_grid(image: np.ndarray, *, cfa: str | None, cell_px: int = 64, step_adu: float = 0.0) -> np.ndarray:
    """Level and noise per cell.

    Parameters
    ----------
    image : (y, x) float32     calibrated, C-contiguous; NaN = no data
    cfa : str or None          2x2 pattern, as "RGGB"
    cell_px : int              side of a cell; even
    step_adu : float           smallest step between pixel values; the noise is at least step / sqrt(12)

    Returns
    -------
    grid : (channel, gy, gx, 2) float32     level, noise; NaN only when the sub has no good pixel in that channel
    """
    parts = lattices(cfa)
    n_channels = int(parts[:, 0].max()) + 1
    shape = -(-image.shape[0] // cell_px), -(-image.shape[1] // cell_px)
    grid = np.empty((n_channels, *shape, 2), np.float32)
    _measure_cells(image, parts, cell_px, np.float32(step_adu), grid)
    for channel in range(n_channels):
        for field in range(2):
            _fill(grid[channel, :, :, field])
        grid[channel, :, :, 1] = smooth_grid(grid[channel, :, :, 1])
    return grid


def smooth_grid(field: np.ndarray) -> np.ndarray:
    """Median of 3x3 cells: takes out cells that a bright star or a galaxy fills.

    Parameters
    ----------
    field : (gy, gx) float32
    """
    padded = np.pad(field, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return np.median(windows.reshape(*field.shape, 9), axis=-1).astype(np.float32)


def interpolate_grid(
    field: np.ndarray, xs: np.ndarray, ys: np.ndarray, *, shape: tuple[int, int], cell_px: int
) -> np.ndarray:
    """Values of a grid at positions, bilinear between the centers of its cells, constant beyond the outermost.

    Parameters
    ----------
    field : (gy, gx) float32
    xs, ys : (n,) float64      pixel positions
    shape : (height, width)    of the sub
    """
    y0, ty = _between(np.asarray(ys, float), cell_centers(shape[0], cell_px))
    x0, tx = _between(np.asarray(xs, float), cell_centers(shape[1], cell_px))
    y1, x1 = np.minimum(y0 + 1, field.shape[0] - 1), np.minimum(x0 + 1, field.shape[1] - 1)
    low = field[y0, x0] * (1 - tx) + field[y0, x1] * tx
    high = field[y1, x0] * (1 - tx) + field[y1, x1] * tx
    return low * (1 - ty) + high * ty


def cell_centers(length: int, cell_px: int) -> np.ndarray:
    """Pixel positions of the centers of the cells of one axis; the last cell may be narrower.

    >>> cell_centers(100, 64).tolist()
    [31.5, 81.5]
    """
    first = np.arange(0, length, cell_px)
    return (first + np.minimum(first + cell_px, length) - 1) / 2


def _between(positions: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the center below each position and the fraction to the next."""
    if len(centers) < 2:
        return np.zeros(positions.shape, np.int64), np.zeros(positions.shape)
    below = np.clip(np.searchsorted(centers, positions, side="right") - 1, 0, len(centers) - 2)
    return below, np.clip((positions - centers[below]) / (centers[below + 1] - centers[below]), 0.0, 1.0)


def _fill(field: np.ndarray) -> None:
    """Give cells without a value the mean of their neighbors, from the border of the hole inwards."""
    missing = ~np.isfinite(field)
    if missing.all():
        return
    while missing.any():
        padded = np.pad(field, 1, constant_values=np.nan)
        around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(*field.shape, 9)
        known = np.isfinite(around)
        count = known.sum(axis=-1)
        mean = np.where(known, around, 0).sum(axis=-1, dtype=np.float64) / np.maximum(count, 1)
        ready = missing & (count > 0)
        field[ready] = mean[ready]
        missing &= ~ready


@kernel
def _measure_cells(image, parts, cell_px, step, grid):
    """Fill grid (channel, gy, gx, 2), a band of cells at a time, along the rows: memory is read in its order."""
    n = grid.shape[2]
    sums = np.empty((n + 1, _BINS + 3), np.int32)
    sample = np.empty(2 * _SAMPLES, np.float32)
    guess = np.full((grid.shape[0], n, 2), np.nan, np.float32)
    bins = np.empty((n + 1, 2), np.float32)
    for gy in range(grid.shape[1]):
        y0, y1 = gy * cell_px, min((gy + 1) * cell_px, image.shape[0])
        for channel in range(grid.shape[0]):
            for gx in range(n):
                x0, x1 = gx * cell_px, min((gx + 1) * cell_px, image.shape[1])
                if not np.isfinite(guess[channel, gx, 0]):
                    level, spread = _first_guess(image, parts, channel, y0, y1, x0, x1, sample)
                    guess[channel, gx, 0] = level
                    guess[channel, gx, 1] = spread
                _lay_bins(guess[channel, gx], image, parts, channel, y0, y1, x0, x1, step, bins[gx])
            _count(image, parts, channel, y0, y1, np.int64(0), image.shape[1], cell_px, bins[:n], sums)
            for gx in range(n):
                x0, x1 = gx * cell_px, min((gx + 1) * cell_px, image.shape[1])
                found = _read_off(sums[gx], bins[gx], guess[channel, gx], step, 0.4)
                for attempt in range(5):
                    if found:
                        break
                    if attempt == 0:
                        level, spread = _first_guess(image, parts, channel, y0, y1, x0, x1, sample)
                        guess[channel, gx, 0] = level
                        guess[channel, gx, 1] = spread
                    else:
                        guess[channel, gx, 1] *= np.float32(3.0)
                    _lay_bins(guess[channel, gx], image, parts, channel, y0, y1, x0, x1, step, bins[n])
                    _count(image, parts, channel, y0, y1, x0, x1, cell_px, bins[n : n + 1], sums[n : n + 1])
                    found = _read_off(sums[n], bins[n], guess[channel, gx], step, 0.0)
                grid[channel, gy, gx, 0] = guess[channel, gx, 0]
                grid[channel, gy, gx, 1] = guess[channel, gx, 1]


@part(borrows=True)
def _floor(level, step):
    """Least noise that a cell can have."""
    return max(step / np.float32(12.0**0.5), abs(level) * np.float32(1e-6), np.float32(1e-12))


@part(borrows=True)
def _lay_bins(guess, image, parts, channel, y0, y1, x0, x1, step, bins):
    """Origin and 1 / width of a cell's bins; edges lie halfway between values that pixels can have."""
    level = guess[0] if np.isfinite(guess[0]) else np.float32(0.0)
    spread = max(guess[1], _floor(level, step)) if np.isfinite(guess[0]) else np.float32(1.0)
    width = spread / np.float32(_PER_SIGMA)
    if step > 0:
        width = max(np.float32(np.round(width / step)), np.float32(1.0)) * step
        for p in range(parts.shape[0]):
            y, x = y0 + parts[p, 1], x0 + parts[p, 2]
            if parts[p, 0] == channel and y < y1 and x < x1 and np.isfinite(image[y, x]):
                level = image[y, x] + np.float32(np.round((level - image[y, x]) / step)) * step
    bins[0] = level - np.float32(0.5) * (step if step > 0 else width) - np.float32(_BINS_BELOW) * width
    bins[1] = np.float32(1.0) / width


@part(borrows=True)
def _read_off(sums, bins, guess, step, least):
    """Turn running sums into level and noise in `guess`; False when the bins did not fit."""
    total = sums[_BINS + 1]
    if total < _FEWEST:
        guess[:] = np.nan
        return True
    if not np.isfinite(guess[0]):
        return False
    low, middle, alone = _walk(sums[: _BINS + 2], total)
    width = np.float32(1.0) / bins[1]
    sigma = np.float32((middle - low) * width)
    floor = _floor(guess[0], step)
    if low <= 1.0 or middle >= _BINS + 1.0 or not (alone or sigma > least * guess[1]):
        return False
    guess[0] = bins[0] + np.float32(middle - 1.0) * width
    guess[1] = floor if alone else max(sigma, floor)
    return True


@part(borrows=True)
def _number_of(parts, channel):
    """How many lattices a channel has."""
    n = 0
    for p in range(parts.shape[0]):
        n += parts[p, 0] == channel
    return n


@part(borrows=True)
def _first_guess(image, parts, channel, y0, y1, x0, x1, sample):
    """Median and lower spread of some 64 pixels of a cell."""
    n = 0
    n_lattices = _number_of(parts, channel)
    for p in range(parts.shape[0]):
        if parts[p, 0] != channel:
            continue
        stride = parts[p, 3]
        pixels = ((y1 - y0) // stride) * ((x1 - x0) // stride) * n_lattices
        jump = max(int(np.sqrt(pixels / _SAMPLES)), 1) * stride
        for y in range(y0 + parts[p, 1] + (jump // 2 // stride) * stride, y1, jump):
            # Rows are shifted against each other, so that a bad column spoils one row of samples only.
            shift = ((y - y0) // jump * 3) % max(jump // stride, 1) * stride
            for x in range(x0 + parts[p, 2] + shift, x1, jump):
                v = image[y, x]
                if np.isfinite(v) and n < sample.size:
                    at = n
                    while at > 0 and sample[at - 1] > v:
                        sample[at] = sample[at - 1]
                        at -= 1
                    sample[at] = v
                    n += 1
    if n < 8:
        return np.float32(np.nan), np.float32(0.0)
    middle = sample[n // 2]
    return middle, np.float32(middle - sample[int(0.1587 * n)])


@kernel
def _count(image, parts, channel, y0, y1, x0, x1, cell_px, bins, sums):
    """Running sums of the histograms of neighboring cells; first and last bin hold what lies outside."""
    n = bins.shape[0]
    places, halves = np.empty(cell_px, np.int32), np.empty((2, (x1 - x0 + 1) // 2), np.float32)
    sums[:n] = 0
    n_lattices = _number_of(parts, channel)
    for p in range(parts.shape[0]):
        if parts[p, 0] != channel:
            continue
        stride = parts[p, 3]
        width = cell_px // stride
        pixels = n_lattices * (y1 - y0) * cell_px // (stride * stride)
        jump = stride if pixels <= _FULL else 2 * stride
        for y in range(y0 + parts[p, 1], y1, jump):
            line = image[y, x0:x1]
            if stride == 2:
                part_pairs(line, halves[0], halves[1, : (x1 - x0) // 2])
                line = halves[parts[p, 2], : (x1 - x0 + 1 - parts[p, 2]) // 2]
            for i in range(n):
                row = line[i * width : (i + 1) * width]
                for x in range(row.size):
                    places[x] = _place(row[x], bins[i, 0], bins[i, 1])
                count = sums[i]
                for x in range(row.size):
                    count[np.uint32(places[x])] += 1
    for i in range(n):
        for j in range(1, _BINS + 2):
            sums[i, j] += sums[i, j - 1]


@kernel(inline="always")
def _place(value, origin, inverse):
    """Bin of a value; the bin behind the last one for NaN."""
    place = (value - origin) * inverse + np.float32(1.0)
    place = np.float32(0.0) if place < np.float32(0.0) else place
    place = np.float32(_BINS + 1) if place > np.float32(_BINS + 1) else place
    return np.int32(place if place == place else np.float32(_BINS + 2))


@part(borrows=True)
def _walk(sums, total):
    """Positions of the 15.87 % and the 50 % point, in bins, and whether both lie in a bin that holds nearly all."""
    kept = float(total)
    low = middle = 0.0
    first = second = 0
    for _ in range(5):
        low, first = _point(sums, 0.15866 * kept)
        middle, second = _point(sums, 0.5 * kept)
        cut = middle + 2.5 * (middle - low)
        if cut >= sums.size - 1.0:
            break
        at = int(cut)
        below = sums[at - 1] + (cut - at) * (sums[at] - sums[at - 1]) if at > 0 else cut * sums[0]
        again = below / 0.99379
        if again >= kept - 0.5:
            break
        kept = again
    held = sums[first] - sums[first - 1] if first > 0 else sums[first]
    return low, middle, first == second and held > 0.95 * total


@part(borrows=True)
def _point(sums, wanted):
    """Where the running sum reaches `wanted`, linear inside a bin; and that bin."""
    low, high = 0, sums.size - 1
    while low < high:
        middle = (low + high) // 2
        if sums[middle] >= wanted:
            high = middle
        else:
            low = middle + 1
    below = sums[low - 1] if low > 0 else 0
    return low + (wanted - below) / max(sums[low] - below, 1), low
