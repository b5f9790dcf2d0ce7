"""Trails from pixels: position, width and extent of a line, to a fraction of a pixel.

In: a line found in blocks (`trails`), and the sub's pixels in windows along it. Out: the line (y0, x0, y1, x1, half width,
SNR), twice where a plane has two lights, or nothing where the pixels do not confirm it. The median profile across all
windows gives place and width, so that stars on the way do not matter; each window's own offset gives the slope.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.kernels.compiled.kernel import kernel
from lerar_dask.kernels.robust.medians import median
from lerar_dask.kernels.trails.search import REACH_PX, Line, line_axis

__all__ = ["extent_windows", "refine_line"]

CONFIRMED = 6.0
"""SNR that the pixels of a candidate must show."""
WINGS = 0.03
"""A mask reaches to this surface brightness, in sigma of a pixel."""
MARGIN_PX = 1.5
SEGMENT_PX = 64
"""Length of a pixel window along a line."""


def extent_windows(line: Line, shape: tuple[int, int]) -> np.ndarray:
    """Pixel windows along a line, (n, 4) int: y0, y1, x0, x1, cut at the frame; 64 px along, 65 px across."""
    height, width = shape
    length, across = (height, width) if line.steep else (width, height)
    at, slope = line_axis(line)
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
    at, slope = line_axis(line)
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


def _strip(pixels: np.ndarray, window: np.ndarray, steep: bool, cfa: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels less their local level, over their noise, as (across, along), with the positions of both axes."""
    out = np.array(pixels, np.float64)
    steps = [(a, b) for a in (0, 1) for b in (0, 1)] if cfa else [(0, 0)]
    for a, b in steps:
        _level(out[a::2, b::2] if cfa else out)
    rows, columns = np.arange(window[0], window[1]), np.arange(window[2], window[3])
    np.clip(out, -6.0, 40.0, out=out)
    return (out.T, rows, columns) if steep else (out, columns, rows)


def _level(part: np.ndarray) -> None:
    """Take the median off, and divide by the noise, in place."""
    part -= median(part)
    part /= max(MAD_TO_SIGMA * float(median(np.abs(part))), 1e-9)


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
    from scipy.optimize import least_squares  # takes a tenth of a second, and most nights have no line to fit

    axis = np.arange(-REACH_PX, REACH_PX + 1, dtype=float)
    noise = max(MAD_TO_SIGMA * float(np.median(np.abs(profile - np.median(profile)))), 1e-3)
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
    level = np.nan_to_num(_row_medians(profiles, np.isfinite(profiles)))
    filled = np.nan_to_num(profiles - level[:, None])
    score = filled @ kernels.T
    best = score.argmax(axis=1)
    noise = MAD_TO_SIGMA * median(np.abs(filled), axis=1) + 1e-3
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
        spread = max(MAD_TO_SIGMA * float(np.median(away[weight > 0])), 0.3)
        robust = np.where(away < 3 * spread, weight, 0.0)
    return at + a - b * middle, slope + b


def _amplitudes(profiles: np.ndarray, offset: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Matched amplitude of each segment, in sigma of a pixel, and its error."""
    axis = np.arange(-REACH_PX, REACH_PX + 1, dtype=float)
    kernel = np.exp(-0.5 * ((axis - offset) / width) ** 2)
    far = np.abs(axis - offset) > 3.5 * width + 1
    known = np.isfinite(profiles)
    use = far[None, :] & known
    n_far = use.sum(axis=1)
    level = np.where(n_far > 4, _row_medians(profiles, use), 0.0)
    square = (known * kernel**2).sum(axis=1)
    total = np.nansum((profiles - level[:, None]) * kernel, axis=1)
    spread = np.where(n_far > 8, MAD_TO_SIGMA * _row_medians(np.abs(profiles - level[:, None]), use), np.inf)
    covered = square > 0.6 * (kernel**2).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        amplitude = np.where(covered, total / square, 0.0)
        error = np.where(covered, np.maximum(spread, 0.08) / np.sqrt(square), np.inf)
    return amplitude, error


def _row_medians(values: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Median of the values in use of each row; NaN where there are none."""
    ordered = np.sort(np.where(use, values, np.inf), axis=1)
    count, rows = use.sum(axis=1), np.arange(len(values))
    middle = (
        ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, np.minimum(count // 2, values.shape[1] - 1)]
    ) / 2
    return np.where(count > 0, middle, np.nan)


@kernel
def _means_across(pixels: np.ndarray, along0: float, across0: float, at: float, slope: float, out: np.ndarray) -> None:
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
