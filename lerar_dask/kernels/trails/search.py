"""Trails of satellites and planes: straight lines in a sub's blocks, after scene and sky are taken off.

In: residuals of a sub's 8 px blocks over their noise (`block_scene`). Out: lines in the sub's pixels, to a few pixels;
`trail_fit` gives them their width. A discrete Radon transform sums whole lines, so that trails far below a pixel's noise
are found. Only bright lines count: where another sub has a trail, the scene holds a faint ghost of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.kernels.compiled.kernel import kernel
from lerar_dask.kernels.robust.medians import median

__all__ = ["REACH_PX", "Line", "find_lines", "line_axis"]

THRESHOLD = 6.0
"""SNR from which a sum along a line is a candidate (largest in noise: 4.6 to 5.2)."""
_DARK_MARGIN = 1.2
"""Trails must exceed the strongest dark line by this factor."""
REACH_PX = 32
"""Half width of a pixel window across a line."""
MAX_BINS = 256
MIN_BINS = 12
MAX_LINES = 12


@dataclass(frozen=True)
class Line:
    """A straight trail from (y0, x0) to (y1, x1), in pixels of the sub."""

    y0: float
    x0: float
    y1: float
    x1: float
    half_width: float
    snr: float

    @property
    def steep(self) -> bool:
        """Whether it runs along y more than along x."""
        return abs(self.y1 - self.y0) > abs(self.x1 - self.x0)


def line_axis(line: Line) -> tuple[float, float]:
    """Position of a line across at 0 along, and its slope."""
    if line.steep:
        slope = (line.x1 - line.x0) / (line.y1 - line.y0)
        return line.x0 - slope * line.y0, slope
    slope = (line.y1 - line.y0) / (line.x1 - line.x0)
    return line.y0 - slope * line.x0, slope


def find_lines(excess: np.ndarray, *, shape: tuple[int, int]) -> list[Line]:
    """Lines in a sub's block residuals, brightest first, to a few pixels; half width 0.

    Parameters
    ----------
    excess : (by, bx) float32     residual over noise per 8 px block; NaN = unknown
    shape : (height, width)       the sub

    Notes
    -----
    Nothing in the sky makes a dark line: where a crowded field or a bad fit leaves structure in the residuals, the
    strongest dark line says how bright a line of that structure can be, and what is to be a trail must exceed it.

    The longer side is binned to at most 256 bins: there a line's sum has gained all it can, and the transform costs 2 ms.
    """
    fold = max(1, -(-max(excess.shape) // MAX_BINS))
    flat, fine = _flattened(excess, fold)
    best = _best(flat)
    limit = max(THRESHOLD, _DARK_MARGIN * best[2])
    found: list[Line] = []
    for _ in range(MAX_LINES):
        if best[0] < limit:
            break
        line = _sharpened(fine, best[1], fold, shape)
        if line.snr >= limit:
            found.append(line)
        _erase(flat, line if line.snr >= limit else _in_pixels(best[1], fold, 0.0), 8.0 * fold)
        best = _best(flat)
    return found


def _flattened(excess: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Clipped residuals at bin scale, (2, ny, nx): value, validity; and at block scale (NaN = 0)."""
    known = np.isfinite(excess)
    values = np.where(known, excess, np.float32(0.0))
    spread = MAD_TO_SIGMA * float(median(np.abs(values[known]))) if known.any() else 1.0
    values = np.clip(values * np.float32(1.0 / max(spread, 0.5)), -4.0, 4.0)
    count = uniform_filter(known.astype(np.float32), 13, mode="constant")
    local = uniform_filter(np.clip(values, -1.5, 1.5), 13, mode="constant") / np.maximum(count, np.float32(0.05))
    fine = np.where(known, values - local, 0.0).astype(np.float32)
    ny, nx = -(-excess.shape[0] // fold), -(-excess.shape[1] // fold)
    padded = np.zeros((2, ny * fold, nx * fold), np.float32)
    padded[0, : excess.shape[0], : excess.shape[1]] = fine
    padded[1, : excess.shape[0], : excess.shape[1]] = known
    folded = np.zeros((2, ny, nx), np.float32)
    for a in range(fold):  # a sum over two short axes at once takes ten times as long
        for b in range(fold):
            folded += padded[:, a::fold, b::fold]
    number = folded[1]
    flat = np.zeros((2, ny, nx), np.float32)
    use = number >= 0.4 * fold * fold
    flat[0][use] = np.clip(folded[0][use] / np.sqrt(number[use]), -4.0, 4.0)
    flat[1] = use
    inside = flat[0][use]
    if inside.size:
        flat[0] /= max(MAD_TO_SIGMA * float(median(np.abs(inside))), 0.5)
    return flat, fine


def _best(flat: np.ndarray) -> tuple[float, tuple[float, float, float, float], float]:
    """Highest line SNR of all directions, its ends in bins, and the SNR of the darkest line."""
    found = [_strongest(flat, turned) for turned in range(4)]
    snr, ends, _ = max(found, key=lambda item: item[0])
    return snr, ends, max(dark for _, _, dark in found)


def _strongest(flat: np.ndarray, turned: int) -> tuple[float, tuple[float, float, float, float], float]:
    """As `_best`, of one quarter of directions; ends are (y0, x0, y1, x1)."""
    image = flat if turned < 2 else flat.transpose(0, 2, 1)
    image = image[:, :, ::-1] if turned % 2 else image
    rows, columns = image.shape[1:]
    size = 1 << max(rows - 1, 1).bit_length()
    total = np.zeros((2, size, columns + size), np.float32)
    total[:, :rows, size:] = image
    work = np.empty_like(total)
    total, work = _radon(total, work)
    snr, shift, x, dark = _peak(total, MIN_BINS)
    x0 = float(x - size)
    x1 = x0 + shift * (rows - 1) / (size - 1)
    if turned % 2:
        x0, x1 = columns - 1 - x0, columns - 1 - x1
    ends = (0.0, x0, rows - 1.0, x1) if turned < 2 else (x0, 0.0, x1, rows - 1.0)
    return snr, ends, dark


def _radon(total: np.ndarray, work: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums along all lines that move 0..size-1 columns over all rows (Brady's recursion), of value and validity."""
    height = 1
    while height < total.shape[1]:
        for part in range(2):
            _radon_level(total[part], height, work[part])
        total, work = work, total
        height *= 2
    return total, work


def _in_pixels(ends: tuple[float, float, float, float], fold: int, snr: float) -> Line:
    y0, x0, y1, x1 = ((v + 0.5) * 8 * fold - 0.5 for v in ends)
    return Line(y0, x0, y1, x1, 0.0, snr)


def _sharpened(fine: np.ndarray, ends: tuple[float, float, float, float], fold: int, shape: tuple[int, int]) -> Line:
    """Best line at block scale near one found in bins, cut to the frame."""
    line = _in_pixels(ends, fold, 0.0)
    at, slope = line_axis(line)
    length = shape[0] if line.steep else shape[1]
    image = np.ascontiguousarray(fine.T if line.steep else fine)
    a, b = at, at + slope * (length - 1)
    snr = 0.0
    step = 4.0 * fold
    for _ in range(3):
        snr, a, b = _search(image, a, b, length, step)
        step /= 2
    if line.steep:
        return Line(0.0, a, length - 1.0, b, 0.0, snr)
    return Line(a, 0.0, b, length - 1.0, 0.0, snr)


def _erase(flat: np.ndarray, line: Line, bin_px: float) -> None:
    """Take a line's bins out of the search."""
    at, slope = line_axis(line)
    _, ny, nx = flat.shape
    y, x = (np.arange(ny) + 0.5) * bin_px - 0.5, (np.arange(nx) + 0.5) * bin_px - 0.5
    offset = x[None, :] - at - slope * y[:, None] if line.steep else y[:, None] - at - slope * x[None, :]
    near = np.abs(offset) <= 1.6 * bin_px + REACH_PX / 2
    flat[:, near] = 0.0


@kernel(borrows=True)
def _radon_level(total: np.ndarray, height: int, out: np.ndarray) -> None:
    """Join pairs of bands of `height` rows; row r of a band = shift r."""
    size, width = total.shape
    for band in range(0, size, 2 * height):
        for shift in range(2 * height):
            upper = total[band + shift // 2]
            lower = total[band + height + shift // 2]
            move = (shift + 1) // 2
            row = out[band + shift]
            for x in range(width - move):
                row[x] = upper[x] + lower[x + move]
            for x in range(width - move, width):
                row[x] = upper[x]


@kernel(borrows=True)
def _peak(total: np.ndarray, shortest: float) -> tuple[float, int, int, float]:
    """Highest sum / sqrt(count), one or two bins wide, where it is, and minus the lowest."""
    best, dark = 0.0, 0.0
    where = (0, 0)
    for shift in range(total.shape[1]):
        for x in range(total.shape[2] - 1):
            n = total[1, shift, x]
            if n >= shortest:
                one = total[0, shift, x] / np.sqrt(n)
                if one > best:
                    best = one
                    where = (shift, x)
                both = n + total[1, shift, x + 1]
                two = (total[0, shift, x] + total[0, shift, x + 1]) / np.sqrt(both)
                if two > best:
                    best = two
                    where = (shift, x)
                dark = max(dark, -one, -two)
    return best, where[0], where[1], dark


@kernel(borrows=True)
def _search(image: np.ndarray, a: float, b: float, length: int, step: float) -> tuple[float, float, float]:
    """Ends (positions across at both ends of the frame) with the highest sum within four steps."""
    rows, columns = image.shape
    best = -1e9
    best_a, best_b = a, b
    for i in range(-4, 5):
        for j in range(-4, 5):
            start, end = a + i * step, b + j * step
            total = 0.0
            square = 0.0
            for c in range(columns):
                position = (start + (end - start) * (c * 8 + 3.5) / (length - 1) - 3.5) / 8.0
                r = int(np.floor(position))
                t = position - r
                if r >= 0 and r + 1 < rows:
                    top, low = image[r, c], image[r + 1, c]
                    # A zero is a masked block: it carries no weight.
                    if top != 0.0:
                        total += (1 - t) * top
                        square += (1 - t) * (1 - t)
                    if low != 0.0:
                        total += t * low
                        square += t * t
            if square > 0:
                value = total / np.sqrt(square)
                if value > best:
                    best, best_a, best_b = value, start, end
    return best, best_a, best_b
