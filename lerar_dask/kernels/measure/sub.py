"""Measure: everything that is to be known of a calibrated sub, in one call: background, stars, blocks.

In   calibrated pixels, the raw ones beside them (saturation is told by the sensor, not by what calibration made of it)
Out  `Measures`: blocks, grid, stars, spikes (sharp detections that are no stars), a few numbers for people
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerar_dask.constants import BLOCK_PX, StarFlag
from lerar_dask.kernels.calibrate.voids import fill_boxes, near_boxes
from lerar_dask.kernels.measure.background import background_grid, step_of
from lerar_dask.kernels.measure.blocks import block_statistics
from lerar_dask.kernels.measure.detection import halve
from lerar_dask.kernels.measure.stars import STAR_COLUMNS, Found, find_stars, typical_width

__all__ = ["STAR_COLUMNS", "Measures", "measure", "measure_shapes"]

_LOOKS = (8, 16)
"""Sides, in cells, of the middle of a sub in which the width of the stars is looked for first."""
_GAPS = 1 << 20
"""Missing pixels that are filled at a time."""
_ENOUGH_STARS = 100
"""So many tell the width to half a percent."""


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
    voids: np.ndarray,
    blank: bool,
) -> Measures:
    """Measure a calibrated sub; its defects become NaN.

    Parameters
    ----------
    image : (y, x) float32        calibrated, C-contiguous; used up: defects are filled from their neighbors
    raw : (y, x)                  the same pixels as stored
    cfa : str or None             2x2 pattern
    saturated_raw : float         stored value from which a pixel is saturated
    defects : (m,) int32          flat indices of pixels that are left out
    voids : (v, 4) int            rectangles without data, from `voids.find_voids`
    blank : bool                  whether single pixels of integer frames may be without data (NaN in `image`)
    """
    image.reshape(-1)[defects] = np.nan
    for y0, y1, x0, x1 in voids:
        image[y0:y1, x0:x1] = np.nan
    if raw.dtype.kind == "f":
        image[~np.isfinite(image)] = np.nan
    grid = background_grid(image, cfa=cfa, cell_px=cell_px, step_adu=step_of(image))
    first = _first_look(image, grid, cfa, cell_px, detection_sigma)
    blocks = block_statistics(image, grid, cfa=cfa, cell_px=cell_px, fwhm_px=first * (2.0 if cfa else 1.0))
    level, noise, cell = _luminance(grid, cfa, cell_px)
    fill_boxes(image, voids, level, cell_px=cell_px)
    gaps = np.flatnonzero(np.isnan(image)) if blank or raw.dtype.kind == "f" else defects
    _fill_gaps(image, gaps, step=2 if cfa else 1, level=level, cell_px=cell_px)
    found = find_stars(
        halve(image) if cfa else image,
        level,
        noise,
        cell_px=cell,
        sigma=detection_sigma,
        max_stars=max_stars,
        max_spikes=max_spikes,
        growth=_growth(level, noise),
        width_px=first,
        raw=raw,
        saturation=saturated_raw,
        raw_step=2 if cfa else 1,
    )
    if cfa:
        found = _from_superpixels(found, image, cfa, grid, cell_px)
    found = _beside_voids(found, voids)
    return Measures(blocks, grid, found.stars, found.spikes, _summary(grid, found))


def _beside_voids(found: Found, voids: np.ndarray) -> Found:
    """Without what was found inside a void; stars beside one are flagged like those at the edge of the frame."""
    if not len(voids):
        return found
    stars = found.stars[~near_boxes(found.stars[:, :2], voids, 0.5)]
    reach = 1.5 * found.fwhm_px + 3 if np.isfinite(found.fwhm_px) else 8.0
    cut = near_boxes(stars[:, :2], voids, reach)
    stars[cut, 9] = stars[cut, 9].astype(np.int64) | StarFlag.EDGE
    spikes = found.spikes[~near_boxes(found.spikes[:, :2], voids, 2.0)]
    return Found(stars, spikes, found.fwhm_px, found.eccentricity)


def _summary(grid: np.ndarray, found: Found) -> dict[str, float]:
    level, noise = grid[..., 0], grid[..., 1]
    known = np.isfinite(level)
    return {
        "background_adu": _finite_median(level),
        "noise_adu": _finite_median(noise),
        "gradient_adu": float(np.percentile(level[known], 95) - np.percentile(level[known], 5)) if known.any() else 0.0,
        "fwhm_px": found.fwhm_px if np.isfinite(found.fwhm_px) else 0.0,
        "eccentricity": found.eccentricity if np.isfinite(found.eccentricity) else 0.0,
        "n_stars": len(found.stars),
    }


def _finite_median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _growth(level: np.ndarray, noise: np.ndarray) -> float:
    """Variance per ADU of light: at most what explains the sky's noise by its level."""
    sky = float(np.median(level))
    return float(np.median(noise)) ** 2 / sky if sky > 0 else 0.0


def _from_superpixels(found: Found, image: np.ndarray, cfa: str, grid: np.ndarray, cell_px: int) -> Found:
    """Positions and sizes in sensor pixels; light summed over them; spikes at the pixel that sticks out."""
    stars = found.stars.copy()
    stars[:, :2] = 2 * stars[:, :2] + 0.5
    stars[:, 2:4] *= 4
    stars[:, 5] *= 2
    x, y = (2 * np.rint(found.spikes[:, :2])).astype(np.int64).T
    rows, columns = y[:, None] + np.array([0, 0, 1, 1]), x[:, None] + np.array([0, 1, 0, 1])
    channel = np.array(["RGB".index(c) for c in cfa])
    height = image[rows, columns] - grid[channel, rows // cell_px, columns // cell_px, 0]
    at, best = np.arange(len(x)), np.argmax(height, axis=1)
    spikes = np.column_stack([columns[at, best], rows[at, best], height[at, best]]).astype(np.float64)
    return Found(stars, spikes, 2 * found.fwhm_px, found.eccentricity)


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


def _first_look(image: np.ndarray, grid: np.ndarray, cfa: str | None, cell_px: int, sigma: float) -> float:
    """Width of the stars in the middle of the sub, as wide a one as has enough: what the whole is then filtered with."""
    width = 3.0
    for cells in _LOOKS:
        (y0, y1), (x0, x1) = (_middle_cells(n, cell_px, cells * cell_px) for n in image.shape)
        part = image[y0:y1, x0:x1].copy()
        around = grid[:, y0 // cell_px : -(-y1 // cell_px), x0 // cell_px : -(-x1 // cell_px)]
        level, noise, cell = _luminance(around, cfa, cell_px)
        gaps = np.flatnonzero(np.isnan(part))
        _fill_gaps(part, gaps, step=2 if cfa else 1, level=level, cell_px=cell_px)
        plane = halve(part) if cfa else part
        width, n_stars = typical_width(plane, level, noise, cell_px=cell, sigma=sigma)
        if n_stars >= _ENOUGH_STARS:
            break
    return width


def _middle_cells(length: int, cell_px: int, size: int) -> tuple[int, int]:
    """Whole cells in the middle of an axis, `size` pixels at most."""
    if length <= size:
        return 0, length
    start = (length - size) // 2 // cell_px * cell_px
    return start, start + size


def _fill_gaps(plane: np.ndarray, gaps: np.ndarray, *, step: int, level: np.ndarray, cell_px: int) -> None:
    """Give missing pixels the mean of their neighbors, so that they neither hide stars nor make any.

    Parameters
    ----------
    level : (gy, gx) float32     what those without neighbors get, per cell of `cell_px` pixels
    """
    for first in range(0, len(gaps), _GAPS):
        ys, xs = np.divmod(gaps[first : first + _GAPS], plane.shape[1])
        height, width = plane.shape
        total, count = np.zeros(len(ys)), np.zeros(len(ys))
        for dy, dx in ((0, step), (0, -step), (step, 0), (-step, 0)):
            near = plane[np.clip(ys + dy, 0, height - 1), np.clip(xs + dx, 0, width - 1)]
            good = np.isfinite(near)
            total += np.where(good, near, 0.0)
            count += good
        alone = level[ys // cell_px, xs // cell_px]
        plane[ys, xs] = np.where(count > 0, total / np.maximum(count, 1), alone)
