"""Measure: everything that is to be known of a calibrated sub, in one call: background, stars, blocks.

In   calibrated pixels, the raw ones beside them (saturation is told by the sensor, not by what calibration made of it)
Out  `Measures`: blocks, grid, stars, spikes (sharp detections that are no stars), a few numbers for people
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerar_dask.kernels.background import background_grid, interpolate_grid
from lerar_dask.kernels.detection import detect_peaks
from lerar_dask.kernels.moments import adaptive_moments, aperture_flux, weighted_flux
from lerar_dask.kernels.statistics import BLOCK_PX, block_statistics

__all__ = ["STAR_COLUMNS", "Measures", "measure", "measure_shapes"]

STAR_COLUMNS = ("x", "y", "flux", "flux_error", "peak", "fwhm", "e1", "e2", "snr", "flags")
EDGE, SATURATED, DIVERGED, MOVED, BLENDED = 1, 2, 4, 8, 16
_FIRST_FWHM = 3.0
_CANDIDATES = 2
"""Candidates that are measured, per star kept."""
_SHAPES = 1500
"""Candidates whose center and shape are fitted."""
_APERTURES = 500
"""Stars whose light is measured in an aperture: enough to fix a scale to 0.1 %."""


@dataclass(frozen=True)
class Measures:
    """What was measured on a sub."""

    blocks: np.ndarray
    grid: np.ndarray
    stars: np.ndarray
    """(n, 10) float64 in the order of STAR_COLUMNS, brightest first."""
    spikes: np.ndarray
    """(n, 3) float64 x, y, height."""
    summary: dict[str, float]


def measure_shapes(
    shape: tuple[int, int], *, cfa: str | None, cell_px: int, max_stars: int, max_spikes: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that `measure` makes of a frame of this shape, padded."""
    channels = 3 if cfa else 1
    by, bx = (-(-n // BLOCK_PX) for n in shape)
    gy, gx = (-(-n // cell_px) for n in shape)
    return {
        "blocks": (channels, by, bx, 3),
        "grid": (channels, gy, gx, 2),
        "stars": (max_stars, len(STAR_COLUMNS)),
        "spikes": (max_spikes, 3),
    }


def measure(
    image: np.ndarray,
    raw: np.ndarray,
    *,
    cfa: str | None,
    cell_px: int,
    detection_sigma: float,
    max_stars: int,
    max_spikes: int,
    saturated_raw: float,
    defects: np.ndarray,
) -> Measures:
    """Measure a calibrated sub; its defects become NaN.

    Parameters
    ----------
    image : (y, x) float32        calibrated, C-contiguous; used up: defects are filled from their neighbors
    raw : (y, x)                  the same pixels as stored
    cfa : str or None             2x2 pattern
    saturated_raw : float         stored value from which a pixel is saturated
    defects : (m,) int32          flat indices of pixels that are left out
    """
    image.reshape(-1)[defects] = np.nan
    gaps = defects if raw.dtype.kind in "ui" else np.flatnonzero(~np.isfinite(image))
    grid = background_grid(image, cfa=cfa, cell_px=cell_px)
    first = _first_look(image, gaps, grid, cfa, cell_px, detection_sigma)
    blocks = block_statistics(image, grid, cfa=cfa, cell_px=cell_px, fwhm_px=first * (2.0 if cfa else 1.0))
    stars, spikes = _stars(image, raw, gaps, grid, cfa, cell_px, detection_sigma, max_stars, max_spikes, saturated_raw, first)
    good = stars[(stars[:, 9].astype(int) & (EDGE | SATURATED | DIVERGED | BLENDED)) == 0]
    usable = good if len(good) else stars
    fwhm = float(np.median(usable[:, 5])) if len(usable) else 0.0
    # The shape common to the stars: noise makes each of them look a little long.
    roundness = float(np.hypot(np.median(usable[:, 6]), np.median(usable[:, 7]))) if len(usable) else 0.0
    level, noise = grid[..., 0], grid[..., 1]
    summary = {
        "background_adu": _finite_median(level),
        "noise_adu": _finite_median(noise),
        "gradient_adu": float(np.nanpercentile(level, 95) - np.nanpercentile(level, 5))
        if np.isfinite(level).any()
        else 0.0,
        "fwhm_px": fwhm,
        # e = (a^2 - b^2) / (a^2 + b^2) of the moments; eccentricity = sqrt(1 - b^2 / a^2)
        "eccentricity": float(np.sqrt(2 * roundness / (1 + roundness))),
        "n_stars": len(stars),
    }
    return Measures(blocks, grid, stars, spikes, summary)


def _finite_median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _stars(
    image: np.ndarray,
    raw: np.ndarray,
    gaps: np.ndarray,
    grid: np.ndarray,
    cfa: str | None,
    cell_px: int,
    sigma: float,
    max_stars: int,
    max_spikes: int,
    saturated: float,
    first: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Stars and spikes of a sub, in its own pixels."""
    level, noise, cell = _luminance(grid, cfa, cell_px)
    _fill_gaps(image, gaps, step=2 if cfa else 1, level=float(np.median(level)))
    filled = _superpixels(image) if cfa else image
    peaks = detect_peaks(filled, level, noise, cell_px=cell, fwhm_px=first, sigma=sigma)
    fwhm = _typical_fwhm(filled, peaks, level, cell)
    sharp = peaks[:, 3] < (0.12 if fwhm < 2.1 else 0.2)
    spikes = peaks[sharp][:max_spikes]
    peaks = peaks[~sharp][: _CANDIDATES * max_stars]
    stars = _shapes(filled, peaks, level, cell, fwhm)
    stars = stars[_like_the_others(stars)]
    stars = stars[np.argsort(-stars[:, 2], kind="stable")][:max_stars]
    _add_light(filled, stars, noise, cell, fwhm)
    stars = stars[np.isfinite(stars[:, 2]) & (stars[:, 2] > 0)]
    stars[:, 9] = stars[:, 9].astype(int) | _saturation(raw, stars, cfa, saturated) | _blends(stars)
    scale, shift = (2.0, 0.5) if cfa else (1.0, 0.0)
    if cfa:
        stars[:, :2] = stars[:, :2] * scale + shift
        stars[:, 5] *= scale
        stars[:, 2:4] *= 4.0
    stars = stars[np.argsort(-stars[:, 2], kind="stable")][:max_stars]
    found = np.column_stack([spikes[:, 0] * scale + shift, spikes[:, 1] * scale + shift, spikes[:, 4]])
    return stars, found


def _superpixels(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels."""
    h, w = (n // 2 * 2 for n in image.shape)
    cut = image[:h, :w]
    return np.ascontiguousarray((cut[::2, ::2] + cut[1::2, ::2] + cut[::2, 1::2] + cut[1::2, 1::2]) * np.float32(0.25))


def _luminance(grid: np.ndarray, cfa: str | None, cell_px: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Level and noise on cells of the plane that stars are looked for on, and the side of its cells."""
    level, noise = grid[0, ..., 0], grid[0, ..., 1]
    if cfa:
        share = np.array([cfa.count(c) for c in "RGB"]) / 4.0
        level = np.tensordot(share, grid[..., 0], 1)
        noise = np.sqrt(np.tensordot(share / 4.0, grid[..., 1] ** 2, 1))
    known = np.isfinite(level) & np.isfinite(noise)
    middle = (float(np.median(level[known])), float(np.median(noise[known]))) if known.any() else (0.0, 1.0)
    level, noise = (np.where(known, v, m).astype(np.float32) for v, m in zip((level, noise), middle, strict=True))
    return level, noise, cell_px // 2 if cfa else cell_px


def _first_look(
    image: np.ndarray, gaps: np.ndarray, grid: np.ndarray, cfa: str | None, cell_px: int, sigma: float
) -> float:
    """Width of the stars in the middle of the sub: what the whole is then filtered with."""
    size = 16 * cell_px
    (y0, y1), (x0, x1) = (_middle_cells(n, cell_px, size) for n in image.shape)
    part = np.ascontiguousarray(image[y0:y1, x0:x1])
    cells = grid[:, y0 // cell_px : -(-y1 // cell_px), x0 // cell_px : -(-x1 // cell_px)]
    level, noise, cell = _luminance(cells, cfa, cell_px)
    _fill_gaps(part, np.flatnonzero(~np.isfinite(part)), step=2 if cfa else 1, level=float(np.median(level)))
    plane = _superpixels(part) if cfa else part
    peaks = detect_peaks(plane, level, noise, cell_px=cell, fwhm_px=_FIRST_FWHM, sigma=sigma)
    return _typical_fwhm(plane, peaks, level, cell)


def _middle_cells(length: int, cell_px: int, size: int) -> tuple[int, int]:
    """Whole cells in the middle of an axis, `size` pixels at most."""
    if length <= size:
        return 0, length
    start = (length - size) // 2 // cell_px * cell_px
    return start, start + size


def _fill_gaps(plane: np.ndarray, gaps: np.ndarray, *, step: int, level: float) -> None:
    """Give missing pixels the mean of their neighbors, so that they neither hide stars nor make any."""
    ys, xs = np.divmod(gaps, plane.shape[1])
    height, width = plane.shape
    total, count = np.zeros(len(gaps)), np.zeros(len(gaps))
    for dy, dx in ((0, step), (0, -step), (step, 0), (-step, 0)):
        near = plane[np.clip(ys + dy, 0, height - 1), np.clip(xs + dx, 0, width - 1)]
        good = np.isfinite(near)
        total += np.where(good, near, 0.0)
        count += good
    plane[ys, xs] = np.where(count > 0, total / np.maximum(count, 1), level)


def _sky_at(field: np.ndarray, peaks: np.ndarray, shape: tuple[int, int], cell: int) -> np.ndarray:
    return interpolate_grid(field, peaks[:, 0], peaks[:, 1], shape=shape, cell_px=cell)


def _typical_fwhm(plane: np.ndarray, peaks: np.ndarray, level: np.ndarray, cell: int) -> float:
    """Width of the frame's own stars: middle of the densest half of the brightest ones' widths."""
    bright = peaks[peaks[:, 3] > 0.2][:200]
    if len(bright) < 3:
        return _FIRST_FWHM
    table = adaptive_moments(plane, bright[:, :2], _sky_at(level, bright, plane.shape, cell), fwhm_px=_FIRST_FWHM)
    det = table[:, 2] * table[:, 4] - table[:, 3] ** 2
    good = (table[:, 6] == 0) & (det > 0)
    if good.sum() < 3:
        return _FIRST_FWHM
    widths = np.sort(2.3548 * det[good] ** 0.25)
    half = len(widths) // 2 + 1
    spans = widths[half - 1 :] - widths[: len(widths) - half + 1]
    start = int(np.argmin(spans / (widths[: len(spans)] + 1e-9)))
    return float(np.clip(np.median(widths[start : start + half]), 1.0, 40.0))


def _shapes(plane: np.ndarray, peaks: np.ndarray, level: np.ndarray, cell: int, fwhm: float) -> np.ndarray:
    """Table of the candidates, STAR_COLUMNS, with the flux of their Gaussian."""
    if not len(peaks):
        return np.zeros((0, len(STAR_COLUMNS)))
    sky = _sky_at(level, peaks, plane.shape, cell)
    table = np.empty((len(peaks), 7))
    table[:_SHAPES] = adaptive_moments(plane, peaks[:_SHAPES, :2], sky[:_SHAPES], fwhm_px=fwhm)
    if len(peaks) > _SHAPES:
        # The faint rest serves only to be masked: its whole pixel and its light under the common shape will do.
        variance = (fwhm / 2.3548) ** 2
        table[_SHAPES:] = (0.0, 0.0, variance, 0.0, variance, 0.0, 0.0)
        table[_SHAPES:, :2] = peaks[_SHAPES:, :2]
        shape = (variance, 0.0, variance)
        table[_SHAPES:, 5] = weighted_flux(plane, peaks[_SHAPES:, :2], sky[_SHAPES:], shape=shape)
    flags = table[:, 6].astype(int)
    moved = np.hypot(table[:, 0] - peaks[:, 0], table[:, 1] - peaks[:, 1]) > max(0.75 * fwhm, 1.0)
    flags |= np.where(moved, MOVED, 0)
    det = np.maximum(table[:, 2] * table[:, 4] - table[:, 3] ** 2, 1e-6)
    size = np.maximum(table[:, 2] + table[:, 4], 1e-6)
    return np.column_stack(
        [
            table[:, 0], table[:, 1], table[:, 5], np.zeros(len(table)), peaks[:, 4], 2.3548 * det**0.25,
            (table[:, 2] - table[:, 4]) / size, 2 * table[:, 3] / size, peaks[:, 2], flags,
        ]
    )  # fmt: skip


def _add_light(plane: np.ndarray, stars: np.ndarray, noise: np.ndarray, cell: int, fwhm: float) -> None:
    """Flux in an aperture that grows with the seeing, so that every sub sees the same share of a star; and its error."""
    if not len(stars):
        return
    bright = stars[:_APERTURES]
    sigma = _sky_at(noise, bright, plane.shape, cell)
    light = aperture_flux(
        plane, bright[:, :2], radius_px=2.4 * fwhm, inner_px=3.5 * fwhm, outer_px=5.0 * fwhm, noise=sigma
    )
    # The faint ones get the light of their Gaussian times what the bright ones have beyond theirs.
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = float(np.nanmedian(light[:, 0] / bright[:, 2]))
    stars[_APERTURES:, 2] *= beyond
    stars[_APERTURES:, 3] = stars[_APERTURES:, 2] / np.maximum(stars[_APERTURES:, 8], 1.0)
    bright[:, 2] = light[:, 0]
    bright[:, 3] = sigma * np.sqrt(np.maximum(light[:, 1], 1) * (1 + light[:, 1] / np.maximum(light[:, 3], 1)))


def _like_the_others(stars: np.ndarray) -> np.ndarray:
    """Which candidates look like the frame's own stars, whatever these look like."""
    flags = stars[:, 9].astype(int)
    keep = (flags & (EDGE | DIVERGED | MOVED)) == 0
    keep &= np.isfinite(stars).all(axis=1) & (stars[:, 2] > 0)
    if keep.sum() < 5:
        return keep
    sure = keep & (stars[:, 8] > 10)
    model = stars[sure if sure.sum() >= 5 else keep]
    snr = np.maximum(stars[:, 8], 1.0)
    log_width = np.log(np.maximum(stars[:, 5], 0.3))
    middle = np.median(np.log(model[:, 5]))
    mad = 1.4826 * np.median(np.abs(np.log(model[:, 5]) - middle)) + 0.03
    apart = (log_width - middle) / np.hypot(mad, 1.3 / snr)
    # Saturated stars are wide and still stars; cosmic rays are narrow.
    keep &= ((apart < 4.5) | (stars[:, 4] > 0.3 * stars[:, 4].max())) & (apart > -4.5) & (log_width > middle - 0.55)
    for column in (6, 7):
        e = model[:, column]
        center = np.median(e)
        width = 1.4826 * np.median(np.abs(e - center)) + 0.03
        keep &= np.abs(stars[:, column] - center) < 4.5 * np.hypot(width, 1.5 / snr)
    return keep


def _saturation(raw: np.ndarray, stars: np.ndarray, cfa: str | None, saturated: float) -> np.ndarray:
    """Flag of stars with a saturated raw pixel in their core."""
    step = 2 if cfa else 1
    ys, xs = (np.rint(stars[:, i]).astype(int) * step for i in (1, 0))
    reach = range(-step, 2 * step)
    height, width = raw.shape
    core = [raw[np.clip(ys + dy, 0, height - 1), np.clip(xs + dx, 0, width - 1)] for dy in reach for dx in reach]
    return np.where(np.max(core, axis=0) >= saturated, SATURATED, 0) if len(stars) else np.zeros(0, int)


def _blends(stars: np.ndarray) -> np.ndarray:
    """Flag of stars with a neighbor within 3 FWHM that has more than 5 % of their light."""
    if len(stars) < 2:
        return np.zeros(len(stars), int)
    from scipy.spatial import cKDTree

    reach = 3.0 * float(np.median(stars[:, 5]))
    out = np.zeros(len(stars), int)
    for i, j in cKDTree(stars[:, :2]).query_pairs(reach):
        if stars[j, 2] > 0.05 * stars[i, 2]:
            out[i] = BLENDED
        if stars[i, 2] > 0.05 * stars[j, 2]:
            out[j] = BLENDED
    return out
