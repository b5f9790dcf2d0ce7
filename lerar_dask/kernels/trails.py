"""Trails of satellites and planes: straight lines in a sub's blocks, after scene and sky are taken off.

In: 8 px blocks of a sub (clipped-high flux included), the scene at block scale, the sky at block centers. A discrete Radon
transform sums whole lines, so that trails far below a pixel's noise are found; pixel windows along the few lines found
then give position and width to a fraction of a pixel. Out: lines (y0, x0, y1, x1, half width, SNR) in the sub's pixels.
Only bright lines count: where another sub has a trail, the scene holds a faint ghost of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.ndimage import uniform_filter
from scipy.optimize import least_squares

__all__ = [
    "Line",
    "add_clipped",
    "add_to_scene",
    "block_residuals",
    "extent_windows",
    "find_lines",
    "lasting_light",
    "refine_line",
    "scene_of",
]

THRESHOLD = 6.0
"""SNR from which a sum along a line is a candidate (largest in noise: 4.6 to 5.2)."""
_DARK_MARGIN = 1.2
"""Trails must exceed the strongest dark line by this factor."""
_LASTING = 0.35
"""Share of the subs from which on light clipped at one place belongs to the scene."""
CONFIRMED = 6.0
"""SNR that the pixels of a candidate must show."""
WINGS = 0.03
"""A mask reaches to this surface brightness, in sigma of a pixel."""
MARGIN_PX = 1.5
SEGMENT_PX = 64
"""Length of a pixel window along a line."""
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


def add_to_scene(
    blocks: np.ndarray,
    masked: np.ndarray,
    sky: np.ndarray,
    pull: np.ndarray,
    *,
    scale: float,
    sigma: float,
    origin_xy: tuple[float, float],
    total: np.ndarray,
    weight: np.ndarray,
    known: np.ndarray | None = None,
) -> None:
    """Add a sub's normalized blocks to the scene's sums.

    Parameters
    ----------
    blocks : (by, bx, 3) float32     one channel
    masked : (by, bx) bool           True = under a star
    sky : (by, bx) float32           sky at block centers
    pull : (3, 3) float64            reference plane to sub
    sigma : float                    noise of a pixel, ADU
    total, weight : (sy, sx) float64 sums, in place
    known : (sy, sx) float64, optional   scene of a first round: blocks 4 sigma away from it are left out
    """
    first = np.zeros((1, 1)) if known is None else known
    inverse = np.linalg.inv(pull)
    _splat(blocks, masked, sky, inverse, scale, sigma, *origin_xy, first, known is not None, total, weight)


def scene_of(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Scene at block scale; NaN where nothing fell."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan)


def add_clipped(
    blocks: np.ndarray,
    masked: np.ndarray,
    pull: np.ndarray,
    *,
    origin_xy: tuple[float, float],
    clipped: np.ndarray,
    seen: np.ndarray,
) -> None:
    """Count a sub where blocks of the scene lie beside blocks of its own, and beside such that had light clipped.

    Parameters
    ----------
    blocks, masked, pull : as in `add_to_scene`
    clipped, seen : (sy, sx) int32    counts of subs, in place
    """
    own = np.zeros((2, *clipped.shape), np.bool_)
    _touch(blocks, masked, np.linalg.inv(pull), *origin_xy, own[0], own[1])
    clipped += own[0]
    seen += own[1]


def lasting_light(clipped: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Blocks of the scene where many subs had light clipped: unmasked stars, and knots of nebula; bool.

    A trail clips one sub's light; among few subs one of them is a large share.
    """
    limit = np.minimum(np.maximum(_LASTING, 1.2 / np.maximum(seen, 1)), 0.9)
    return clipped > limit * seen


def block_residuals(
    blocks: np.ndarray,
    masked: np.ndarray,
    sky: np.ndarray,
    pull: np.ndarray,
    scene: np.ndarray,
    *,
    scale: float,
    noise: np.ndarray,
    noise_cell_px: int,
    origin_xy: tuple[float, float],
) -> np.ndarray:
    """Flux of each block beyond scene and sky, over its noise; (by, bx) float32, NaN where unknown or masked.

    Parameters
    ----------
    noise : (gy, gx) float32     sigma of a pixel on cells of `noise_cell_px`
    """
    out = np.empty(blocks.shape[:2], np.float32)
    inverse = np.linalg.inv(pull)
    _excess(blocks, masked, sky, inverse, scene, scale, noise, noise_cell_px // 8, *origin_xy, out)
    return out


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
    limit = max(THRESHOLD, _DARK_MARGIN * _best(flat * np.array([-1, 1], np.float32)[:, None, None])[0])
    found: list[Line] = []
    for _ in range(MAX_LINES):
        best = _best(flat)
        if best[0] < limit:
            break
        line = _sharpened(fine, best[1], fold, shape)
        if line.snr >= limit:
            found.append(line)
        _erase(flat, line if line.snr >= limit else _in_pixels(best[1], fold, 0.0), 8.0 * fold)
    return found


def extent_windows(line: Line, shape: tuple[int, int]) -> np.ndarray:
    """Pixel windows along a line, (n, 4) int: y0, y1, x0, x1, cut at the frame; 64 px along, 65 px across."""
    height, width = shape
    length, across = (height, width) if line.steep else (width, height)
    at, slope = _axis(line)
    windows = []
    for start in range(0, length, SEGMENT_PX):
        middle = round(at + slope * (start + SEGMENT_PX / 2 - 0.5))
        low, high = max(middle - REACH_PX, 0), min(middle + REACH_PX + 1, across)
        if high - low < 8:
            continue
        along = (start, min(start + SEGMENT_PX, length))
        windows.append((*along, low, high) if line.steep else (low, high, *along))
    return np.array(windows, np.int64).reshape(-1, 4)


def refine_line(
    line: Line, windows: np.ndarray, pixels: list[np.ndarray], *, shape: tuple[int, int], cfa: bool = False
) -> list[Line]:
    """Position, width and extent of a line from the pixels along it; empty when they do not confirm it.

    Parameters
    ----------
    windows : (n, 4) int                from `extent_windows`
    pixels : n float32 arrays           the sub's pixels in those windows (raw values will do: steps are local)

    Returns
    -------
    lines : the line, and a parallel one where a plane has two lights
    """
    strips = [_strip(p, w, line.steep, cfa) for p, w in zip(pixels, windows, strict=True)]
    at, slope = _axis(line)
    tilt = 1.0 / np.hypot(1.0, slope)
    centers = np.array([s[1].mean() for s in strips])
    for reach in (24.0, 12.0, 6.0):
        profiles = np.array([_profile(s, at, slope) for s in strips])
        shape_ = _typical(profiles)
        peak, offset, width, _ = _gaussian(shape_, reach)
        if peak <= 0:
            return []
        at += offset
        if len(strips) >= 6:
            shifts, errors = _segment_shifts(
                np.array([_profile(s, at, slope) for s in strips]), width, reach=min(reach, 10.0)
            )
            at, slope = _robust_line(centers, shifts, errors, at, slope)
    profiles = np.array([_profile(s, at, slope) for s in strips])
    out: list[Line] = []
    rest = _typical(profiles)
    for _ in range(2):
        peak, offset, width, noise = _gaussian(rest, 4.0 if not out else 28.0)
        amplitude, error = _amplitudes(profiles, offset, width)
        made = _made(at + offset, slope, tilt, peak, width, amplitude, error, centers, line, shape)
        if made is None or (out and (peak < 6 * noise or abs(offset) < 2.5 * width)):
            break
        out.append(made)
        axis = np.arange(-REACH_PX, REACH_PX + 1)
        rest = rest - peak * np.exp(-0.5 * ((axis - offset) / width) ** 2)
    return out


def _made(
    at: float,
    slope: float,
    tilt: float,
    peak: float,
    width: float,
    amplitude: np.ndarray,
    error: np.ndarray,
    centers: np.ndarray,
    line: Line,
    shape: tuple[int, int],
) -> Line | None:
    """A line with its extent and half width, if its segments confirm it."""
    good = np.isfinite(error) & (error > 0)
    if peak <= 2 * WINGS or good.sum() < 2:
        return None
    z = np.where(good, amplitude / np.where(good, error, 1.0), 0.0)
    pair = np.array([z[max(0, i - 1) : i + 1].sum() / np.sqrt(min(i + 1, 2)) for i in range(len(z))])
    hit = np.flatnonzero((pair > 2.5) & (z > 1.0))
    if not len(hit):
        return None
    first, last = centers[hit[0]] - SEGMENT_PX, centers[hit[-1]] + SEGMENT_PX
    inside = (centers >= first) & (centers <= last) & good
    # A single bright source is not a line: clip what one segment may bring.
    clipped = np.clip(z[inside], -6.0, 12.0)
    snr = float(clipped.sum() / np.sqrt(max(inside.sum(), 1)))
    if snr < CONFIRMED or np.median(z[inside]) < 0.7:
        return None
    length = shape[0] if line.steep else shape[1]
    first = 0.0 if first < 300 else first
    last = length - 1.0 if last > length - 301 else last
    half = (width * np.sqrt(2 * np.log(max(peak / WINGS, 1.5)))) * tilt + MARGIN_PX
    if last - first < 8 * width:
        return None
    ends = (at + slope * first, at + slope * last)
    if line.steep:
        return Line(first, ends[0], last, ends[1], half, snr)
    return Line(ends[0], first, ends[1], last, half, snr)


def _axis(line: Line) -> tuple[float, float]:
    """Position across at 0 along, and slope."""
    if line.steep:
        slope = (line.x1 - line.x0) / (line.y1 - line.y0)
        return line.x0 - slope * line.y0, slope
    slope = (line.y1 - line.y0) / (line.x1 - line.x0)
    return line.y0 - slope * line.x0, slope


def _strip(pixels: np.ndarray, window: np.ndarray, steep: bool, cfa: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels less their local level, over their noise, as (across, along), with the positions of both axes."""
    out = np.array(pixels, np.float64)
    steps = [(a, b) for a in (0, 1) for b in (0, 1)] if cfa else [(0, 0)]
    for a, b in steps:
        part = out[a::2, b::2] if cfa else out
        part -= np.median(part)
        part /= max(1.4826 * np.median(np.abs(part)), 1e-9)
    rows, columns = np.arange(window[0], window[1]), np.arange(window[2], window[3])
    np.clip(out, -6.0, 40.0, out=out)
    return (out.T, rows, columns) if steep else (out, columns, rows)


def _profile(strip: tuple[np.ndarray, np.ndarray, np.ndarray], at: float, slope: float) -> np.ndarray:
    """Mean across a line at whole-pixel offsets -32..32; NaN where the frame ends."""
    pixels, along, across = strip
    out = np.empty(2 * REACH_PX + 1)
    _means_across(pixels, float(along[0]), float(across[0]), at, slope, out)
    return out


def _typical(profiles: np.ndarray) -> np.ndarray:
    """Median profile of all segments: stars on the way do not matter; level 0 away from the line."""
    known = np.isfinite(profiles).any(axis=0)
    out = np.zeros(profiles.shape[1])
    out[known] = np.nanmedian(profiles[:, known], axis=0)
    return out - np.median(out[known])


def _gaussian(profile: np.ndarray, reach: float) -> tuple[float, float, float, float]:
    """Peak, center, sigma of the strongest bump within `reach`, and the profile's noise."""
    axis = np.arange(-REACH_PX, REACH_PX + 1, dtype=float)
    noise = max(1.4826 * float(np.median(np.abs(profile - np.median(profile)))), 1e-3)
    smooth = np.convolve(profile, np.array([0.25, 0.5, 0.25]), mode="same")
    inside = np.abs(axis) <= reach
    start = int(np.flatnonzero(inside)[smooth[inside].argmax()])
    guess = (max(float(smooth[start]), 1e-3), float(axis[start]), 1.7)
    near = np.abs(axis - guess[1]) <= 16
    fit = least_squares(_misfit, guess, method="lm", max_nfev=200, args=(axis[near], profile[near]))
    peak, center, width = (float(v) for v in fit.x)
    width = abs(width)
    if not (0.4 < width < 12 and abs(center - guess[1]) < 4):
        return (*guess, noise)
    return peak, center, width, noise


def _misfit(bell: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bell (peak, center, sigma) less data."""
    return bell[0] * np.exp(-0.5 * ((x - bell[1]) / bell[2]) ** 2) - y


def _segment_shifts(profiles: np.ndarray, width: float, *, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Offset of each segment from the line, by its flux-weighted center, and its error."""
    axis = np.arange(-REACH_PX, REACH_PX + 1, dtype=float)
    trial = np.arange(-reach, reach + 0.25, 0.5)
    kernels = np.exp(-0.5 * ((axis[None, :] - trial[:, None]) / width) ** 2)
    kernels /= np.sqrt((kernels**2).sum(axis=1, keepdims=True))
    level = np.array([np.median(p[np.isfinite(p)]) if np.isfinite(p).any() else 0.0 for p in profiles])
    filled = np.nan_to_num(profiles - level[:, None])
    score = filled @ kernels.T
    best = score.argmax(axis=1)
    noise = 1.4826 * np.median(np.abs(filled), axis=1) + 1e-3
    snr = score.max(axis=1) / noise
    # A star on the way may be far brighter than the trail: no segment outweighs the others by much.
    return trial[best], np.where(snr > 3.0, width / np.clip(snr, 3.0, 6.0), np.inf)


def _robust_line(
    centers: np.ndarray, shifts: np.ndarray, errors: np.ndarray, at: float, slope: float
) -> tuple[float, float]:
    """Straight line through the segments' offsets, outliers left out; unchanged where too few are known."""
    weight = np.where(np.isfinite(errors), 1.0 / errors**2, 0.0)
    if (weight > 0).sum() < 4:
        return at, slope
    middle = float(np.average(centers, weights=weight))
    a = b = 0.0
    robust = weight.copy()
    for _ in range(8):
        if (robust > 0).sum() < 3:
            return at, slope
        x = centers - middle
        s0, s1, s2 = robust.sum(), robust @ x, robust @ (x * x)
        t0, t1 = robust @ shifts, robust @ (x * shifts)
        determinant = s0 * s2 - s1 * s1
        if determinant <= 0:
            return at, slope
        a, b = (s2 * t0 - s1 * t1) / determinant, (s0 * t1 - s1 * t0) / determinant
        away = np.abs(shifts - a - b * x)
        spread = max(1.4826 * float(np.median(away[weight > 0])), 0.3)
        robust = np.where(away < 3 * spread, weight, 0.0)
    return at + a - b * middle, slope + b


def _amplitudes(profiles: np.ndarray, offset: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Matched amplitude of each segment, in sigma of a pixel, and its error."""
    axis = np.arange(-REACH_PX, REACH_PX + 1, dtype=float)
    kernel = np.exp(-0.5 * ((axis - offset) / width) ** 2)
    far = np.abs(axis - offset) > 3.5 * width + 1
    known = np.isfinite(profiles)
    use = far[None, :] & known
    level = np.array([np.median(p[u]) if u.sum() > 4 else 0.0 for p, u in zip(profiles, use, strict=True)])
    square = (known * kernel**2).sum(axis=1)
    total = np.nansum((profiles - level[:, None]) * kernel, axis=1)
    spread = np.array(
        [
            1.4826 * np.median(np.abs(p[u] - v)) if u.sum() > 8 else np.inf
            for p, u, v in zip(profiles, use, level, strict=True)
        ]
    )
    covered = square > 0.6 * (kernel**2).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        amplitude = np.where(covered, total / square, 0.0)
        error = np.where(covered, np.maximum(spread, 0.08) / np.sqrt(square), np.inf)
    return amplitude, error


# ------------------------------------------------------------------------------------------------------- block scale


def _flattened(excess: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Clipped residuals at bin scale, (2, ny, nx): value, validity; and at block scale (NaN = 0)."""
    known = np.isfinite(excess)
    values = np.where(known, excess, np.float32(0.0))
    spread = 1.4826 * float(np.median(np.abs(values[known]))) if known.any() else 1.0
    values = np.clip(values * np.float32(1.0 / max(spread, 0.5)), -4.0, 4.0)
    count = uniform_filter(known.astype(np.float32), 13, mode="constant")
    local = uniform_filter(np.clip(values, -1.5, 1.5), 13, mode="constant") / np.maximum(count, np.float32(0.05))
    fine = np.where(known, values - local, 0.0).astype(np.float32)
    ny, nx = -(-excess.shape[0] // fold), -(-excess.shape[1] // fold)
    padded = np.zeros((2, ny * fold, nx * fold), np.float32)
    padded[0, : excess.shape[0], : excess.shape[1]] = fine
    padded[1, : excess.shape[0], : excess.shape[1]] = known
    folded = padded.reshape(2, ny, fold, nx, fold).sum(axis=(2, 4))
    number = folded[1]
    flat = np.zeros((2, ny, nx), np.float32)
    use = number >= 0.4 * fold * fold
    flat[0][use] = np.clip(folded[0][use] / np.sqrt(number[use]), -4.0, 4.0)
    flat[1] = use
    inside = flat[0][use]
    if inside.size:
        flat[0] /= max(1.4826 * float(np.median(np.abs(inside))), 0.5)
    return flat, fine


def _best(flat: np.ndarray) -> tuple[float, tuple[float, float, float, float]]:
    """Highest line SNR of all directions, and its ends in bins."""
    return max((_strongest(flat, turned) for turned in range(4)), key=lambda item: item[0])


def _strongest(flat: np.ndarray, turned: int) -> tuple[float, tuple[float, float, float, float]]:
    """Highest line SNR in one quarter of directions, and its ends (y0, x0, y1, x1) in bins."""
    image = flat if turned < 2 else flat.transpose(0, 2, 1)
    image = image[:, :, ::-1] if turned % 2 else image
    rows, columns = image.shape[1:]
    size = 1 << max(rows - 1, 1).bit_length()
    total = np.zeros((2, size, columns + size), np.float32)
    total[:, :rows, size:] = image
    work = np.empty_like(total)
    total, work = _radon(total, work)
    snr, shift, x = _peak(total, MIN_BINS)
    x0 = float(x - size)
    x1 = x0 + shift * (rows - 1) / (size - 1)
    if turned % 2:
        x0, x1 = columns - 1 - x0, columns - 1 - x1
    ends = (0.0, x0, rows - 1.0, x1) if turned < 2 else (x0, 0.0, x1, rows - 1.0)
    return snr, ends


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
    at, slope = _axis(line)
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
    at, slope = _axis(line)
    _, ny, nx = flat.shape
    y, x = (np.arange(ny) + 0.5) * bin_px - 0.5, (np.arange(nx) + 0.5) * bin_px - 0.5
    offset = x[None, :] - at - slope * y[:, None] if line.steep else y[:, None] - at - slope * x[None, :]
    near = np.abs(offset) <= 1.6 * bin_px + REACH_PX / 2
    flat[:, near] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _means_across(
    pixels: np.ndarray, along0: float, across0: float, at: float, slope: float, out: np.ndarray
) -> None:
    """Means of the pixels (across, along) by their whole-pixel offset from a line; NaN of fewer than 16."""
    reach = out.size // 2
    count = np.zeros(out.size, np.int64)
    out[:] = 0.0
    for j in range(pixels.shape[1]):
        first = across0 - (at + slope * (along0 + j))
        for i in range(pixels.shape[0]):
            place = int(np.rint(first + i)) + reach
            if 0 <= place < out.size:
                count[place] += 1
                out[place] += pixels[i, j]
    for k in range(out.size):
        out[k] = out[k] / count[k] if count[k] >= 16 else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def _peak(total: np.ndarray, shortest: float) -> tuple[float, int, int]:
    """Highest sum / sqrt(count), one or two bins wide."""
    best = 0.0
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
    return best, where[0], where[1]


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def _splat(
    blocks: np.ndarray,
    masked: np.ndarray,
    sky: np.ndarray,
    inverse: np.ndarray,
    scale: float,
    sigma: float,
    x0: float,
    y0: float,
    known: np.ndarray,
    clip: bool,
    total: np.ndarray,
    weight: np.ndarray,
) -> None:
    limit = 4.0 * sigma / (8.0 * scale)
    inv_scale = 1.0 / scale
    for i in range(blocks.shape[0]):
        for j in range(blocks.shape[1]):
            n = blocks[i, j, 1]
            if masked[i, j] or n <= 0:
                continue
            y, x = i * 8 + 3.5, j * 8 + 3.5
            d = 1.0 / (inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2])
            column = ((inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) * d - x0) / 8.0
            row = ((inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) * d - y0) / 8.0
            r, c = int(np.floor(row)), int(np.floor(column))
            if r < 0 or c < 0 or r + 1 >= total.shape[0] or c + 1 >= total.shape[1]:
                continue
            fy, fx = row - r, column - c
            v = (blocks[i, j, 0] - sky[i, j]) * inv_scale
            if clip:
                # Values of one side only: a clipped scene must not fall below what the first round saw.
                top = known[r, c] + fx * (known[r, c + 1] - known[r, c])
                low = known[r + 1, c] + fx * (known[r + 1, c + 1] - known[r + 1, c])
                if abs(v - top - fy * (low - top)) > limit:
                    continue
            for a in range(2):
                for b in range(2):
                    share = (fy if a else 1.0 - fy) * (fx if b else 1.0 - fx)
                    total[r + a, c + b] += share * v
                    weight[r + a, c + b] += share


@njit(cache=True, nogil=True, error_model="numpy")
def _touch(
    blocks: np.ndarray,
    masked: np.ndarray,
    inverse: np.ndarray,
    x0: float,
    y0: float,
    clipped: np.ndarray,
    seen: np.ndarray,
) -> None:
    """Mark the four blocks of the scene around each block of a sub."""
    for i in range(blocks.shape[0]):
        for j in range(blocks.shape[1]):
            if masked[i, j] or blocks[i, j, 1] <= 0:
                continue
            y, x = i * 8 + 3.5, j * 8 + 3.5
            d = 1.0 / (inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2])
            c = int(np.floor(((inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) * d - x0) / 8.0))
            r = int(np.floor(((inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) * d - y0) / 8.0))
            if r < 0 or c < 0 or r + 1 >= seen.shape[0] or c + 1 >= seen.shape[1]:
                continue
            light = blocks[i, j, 2] > 0
            for a in range(2):
                for b in range(2):
                    seen[r + a, c + b] = True
                    clipped[r + a, c + b] |= light


@njit(cache=True, nogil=True, error_model="numpy")
def _excess(
    blocks: np.ndarray,
    masked: np.ndarray,
    sky: np.ndarray,
    inverse: np.ndarray,
    scene: np.ndarray,
    scale: float,
    noise: np.ndarray,
    per_noise: int,
    x0: float,
    y0: float,
    out: np.ndarray,
) -> None:
    for i in range(blocks.shape[0]):
        for j in range(blocks.shape[1]):
            out[i, j] = np.nan
            n = blocks[i, j, 1]
            if masked[i, j] or n <= 0:
                continue
            y, x = i * 8 + 3.5, j * 8 + 3.5
            d = 1.0 / (inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2])
            column = ((inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) * d - x0) / 8.0
            row = ((inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) * d - y0) / 8.0
            r, c = int(np.floor(row)), int(np.floor(column))
            if r < 0 or c < 0 or r + 1 >= scene.shape[0] or c + 1 >= scene.shape[1]:
                continue
            fy, fx = row - r, column - c
            top = scene[r, c] + fx * (scene[r, c + 1] - scene[r, c])
            low = scene[r + 1, c] + fx * (scene[r + 1, c + 1] - scene[r + 1, c])
            model = scale * (top + fy * (low - top)) + sky[i, j]
            sigma = noise[min(i // per_noise, noise.shape[0] - 1), min(j // per_noise, noise.shape[1] - 1)]
            value = ((blocks[i, j, 0] - model) * n + blocks[i, j, 2]) / (sigma * np.sqrt(n) + 1e-30)
            out[i, j] = value
