"""Stars: find, measure and choose the stars of a sub.

In   a calibrated sub (for CFA its 2x2 superpixels), its background level and noise per cell
Out  stars by brightness: position, flux, width, shape, flags; and spikes: sharp detections that are no stars

What is a star is decided by likeness to the sub's own stars, so that trailed, tilted and defocused subs keep theirs, and
hot pixels, cosmic rays and the beads of a satellite's trail go. The flux joins an aperture of 2.4 times the sub's own
width (free of loss by seeing, noisy) with a weighted flux that is brought to it by the sub's bright stars (less noisy).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA, SIGMA_TO_FWHM, StarFlag
from lerar_dask.kernels.compiled.kernel import kernel
from lerar_dask.kernels.measure.background import interpolate_grid, smooth_grid
from lerar_dask.kernels.measure.detection import SINGLE, detect_peaks
from lerar_dask.kernels.measure.lines import off_lines
from lerar_dask.kernels.measure.moments import adaptive_moments, aperture_flux, weighted_flux
from lerar_dask.kernels.measure.psf import fit_centers
from lerar_dask.kernels.measure.rings import ring_levels

__all__ = ["STAR_COLUMNS", "Found", "find_stars", "typical_width"]

STAR_COLUMNS = ("x", "y", "flux", "flux_error", "peak", "fwhm", "e1", "e2", "snr", "flags")
_UNDERSAMPLED = 2.2
_MAX_FITS = 150
_MAX_APERTURES = 600
"""Brightest stars that get an aperture; the weight of it in the flux of fainter ones would be small."""
_APERTURE, _RING = 2.4, (3.0, 4.6)


@dataclass(frozen=True)
class Found:
    """Stars of a sub."""

    stars: np.ndarray
    """(n, 10) float64, columns `STAR_COLUMNS`, by flux."""
    spikes: np.ndarray
    """(m, 3) float64: x, y, height; by height."""
    fwhm_px: float
    """Median; NaN without stars."""
    eccentricity: float


@dataclass
class _Candidates:
    """Peaks with their moments, as columns."""

    xy: np.ndarray
    start: np.ndarray
    snr: np.ndarray
    sharpness: np.ndarray
    peak: np.ndarray
    sky: np.ndarray
    noise: np.ndarray
    lonely: np.ndarray
    moments: np.ndarray
    flags: np.ndarray

    def __getitem__(self, keep: np.ndarray) -> _Candidates:
        return _Candidates(**{name: column[keep] for name, column in vars(self).items()})

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def fwhm(self) -> np.ndarray:
        return (
            SIGMA_TO_FWHM * np.maximum(self.moments[:, 2] * self.moments[:, 4] - self.moments[:, 3] ** 2, 1e-6) ** 0.25
        )

    @property
    def shape(self) -> np.ndarray:
        size = self.moments[:, 2] + self.moments[:, 4]
        return np.column_stack([self.moments[:, 2] - self.moments[:, 4], 2 * self.moments[:, 3]]) / size[:, None]


def find_stars(
    image: np.ndarray,
    level: np.ndarray,
    noise: np.ndarray,
    *,
    cell_px: int,
    sigma: float = 5.0,
    max_stars: int = 600,
    max_spikes: int = 2000,
    growth: float = 0.0,
    width_px: float = 3.0,
    raw: np.ndarray | None = None,
    saturation: float = np.inf,
    raw_step: int = 1,
) -> Found:
    """Find and measure the stars of a sub.

    Parameters
    ----------
    image : (y, x) float32               calibrated, C-contiguous, bad pixels repaired
    level, noise : (gy, gx) float32      of the background
    sigma : float                        detection limit in the matched filter
    growth : float                       variance per ADU of light (1 / gain), ADU
    width_px : float                     FWHM to look for first
    raw, saturation                      raw numbers (y, x), and the number from which on they are saturated
    raw_step : int                       raw pixels per pixel and axis: 2 for superpixels
    """
    level = smooth_grid(level)
    noise = np.ascontiguousarray(noise, np.float32)
    if not (np.isfinite(level).all() and np.isfinite(noise).all()):
        return _nothing()
    peaks, typical, _ = _detect(image, level, noise, cell_px, sigma, width_px, most=3 * max_stars // 2)
    single = peaks[:, 3] < SINGLE
    spikes = [peaks[single][:, [0, 1, 4]]]
    peaks = peaks[~single]
    peaks = peaks[off_lines(peaks[:, :2])]
    found = _measure(image, peaks, noise, cell_px, typical)
    _flag_saturated(found, raw, saturation, raw_step)
    like, narrow, typical = _choose(found, typical)
    spikes.append(np.column_stack([found.start[narrow], found.peak[narrow]]))
    found.flags[_neighbors(found.moments, 3 * typical, 0.05)] |= StarFlag.NEIGHBOR
    double = _doubles(found.xy, found.moments[:, 5], 0.5 * typical)
    stars = found[like & ~double]
    stars = stars[np.argsort(-stars.moments[:, 5], kind="stable")[:max_stars]]
    table = _table(image, stars, typical, growth) if len(stars) else np.zeros((0, len(STAR_COLUMNS)))
    spike_table = np.concatenate(spikes)
    order = np.lexsort((spike_table[:, 0], spike_table[:, 1], -spike_table[:, 2]))
    return Found(table, spike_table[order[:max_spikes]], *_widths(table))


def typical_width(
    image: np.ndarray, level: np.ndarray, noise: np.ndarray, *, cell_px: int, sigma: float = 5.0
) -> tuple[float, int]:
    """FWHM of the stars of a (part of a) sub, arguments as for `find_stars`, and how many stars told it.

    3 px when it has hardly any.
    """
    if not (np.isfinite(level).all() and np.isfinite(noise).all()):
        return 3.0, 0
    level, noise = smooth_grid(level), np.ascontiguousarray(noise, np.float32)
    return _detect(image, level, noise, cell_px, sigma, 3.0, most=1000)[1:]


def _nothing() -> Found:
    return Found(np.zeros((0, len(STAR_COLUMNS))), np.zeros((0, 3)), float("nan"), float("nan"))


def _widths(table: np.ndarray) -> tuple[float, float]:
    """Median width and eccentricity of clean stars."""
    clean = (table[:, 9].astype(int) & (StarFlag.SATURATED | StarFlag.DIVERGED | StarFlag.EDGE)) == 0
    good = table[clean & (table[:, 8] > 15)][:200]
    good = good if len(good) >= 5 else table[clean][:200]
    if not len(good):
        return float("nan"), float("nan")
    # The shape common to the stars: noise makes each of them look a little long. e = (a^2 - b^2) / (a^2 + b^2).
    e = min(float(np.hypot(*np.median(good[:, 6:8], axis=0))), 0.999)
    return float(np.median(good[:, 5])), float(np.sqrt(2 * e / (1 + e)))


def _detect(
    image: np.ndarray, level: np.ndarray, noise: np.ndarray, cell_px: int, sigma: float, width: float, *, most: int
) -> tuple[np.ndarray, float, int]:
    """Peaks found with a filter as wide as the stars (beside single pixels `most`, the highest); that width, and of how many."""
    for _ in range(3):
        peaks = detect_peaks(image, level, noise, cell_px=cell_px, fwhm_px=width, sigma=sigma)
        single = peaks[:, 3] < SINGLE
        peaks = peaks[single | (np.cumsum(~single) <= most)]
        peaks = _over_surroundings(image, peaks, level, noise, cell_px, width, sigma)
        bright = peaks[peaks[:, 3] >= SINGLE][:400]
        bright = bright[off_lines(bright[:, :2])]
        if len(bright) < 3:
            return peaks, width, 0
        found = _measure(image, bright, noise, cell_px, width)
        good = (found.flags & (StarFlag.EDGE | StarFlag.MOVED) == 0) & (found.moments[:, 5] > 0)
        sizes = found.fwhm[_lonely(found, good)]
        typical = float(np.exp(_mode(np.log(sizes)))) if len(sizes) >= 3 else width
        if 0.6 < typical / width < 1.45:
            return peaks, typical, len(sizes)
        width = min(max(typical, 1.5), 40.0)
    return peaks, width, 0


def _over_surroundings(
    image: np.ndarray, peaks: np.ndarray, level: np.ndarray, noise: np.ndarray, cell_px: int, width: float, sigma: float
) -> np.ndarray:
    """Peaks that also stand out of a ring around them, with two more columns: their sky, and 1 where the ring is empty.

    Inside a nebula the grid of cells is no sky: its knots would be found, and measured as wide stars.
    """
    xs, ys = peaks[:, 0], peaks[:, 1]
    grid_sky = interpolate_grid(level, xs, ys, shape=image.shape, cell_px=cell_px)  # type: ignore[arg-type]
    spread = interpolate_grid(noise, xs, ys, shape=image.shape, cell_px=cell_px)  # type: ignore[arg-type]
    ring = ring_levels(image, peaks[:, :2], inner_px=2.5 * width, outer_px=3.5 * width)
    apart = ring[:, 0] - grid_sky
    # A trail crosses the ring of each of its beads twice, a neighbor once.
    lonely = ring[:, 1] - ring[:, 0] < 2.2 * spread
    # The median of some 40 pixels is good to 0.2 sigma: less than 0.6 is no reason to leave the grid.
    shift = np.where(np.isfinite(apart) & (np.abs(apart) > 0.6 * spread), apart, 0.0)
    snr = peaks[:, 2] - shift * 2 * np.sqrt(np.pi) * (width / SIGMA_TO_FWHM) / np.maximum(spread, 1e-30)
    height = peaks[:, 4] - shift
    sharpness = np.where(height > 0, (peaks[:, 3] * peaks[:, 4] - shift) / np.where(height > 0, height, 1), 1.0)
    kept = np.column_stack([xs, ys, snr, sharpness, height, grid_sky + shift, lonely])[(snr >= sigma) & (height > 0)]
    return kept[np.lexsort((kept[:, 0], kept[:, 1], -kept[:, 2]))]


def _measure(image: np.ndarray, peaks: np.ndarray, noise: np.ndarray, cell_px: int, width: float) -> _Candidates:
    xs, ys, sky = peaks[:, 0], peaks[:, 1], peaks[:, 5].copy()
    sigma = interpolate_grid(noise, xs, ys, shape=image.shape, cell_px=cell_px)  # type: ignore[arg-type]
    moments = adaptive_moments(image, peaks[:, :2], sky, fwhm_px=width)
    flags = moments[:, 6].astype(np.int64)
    flags[np.hypot(moments[:, 0] - xs, moments[:, 1] - ys) > max(0.75 * width, 1.0)] |= StarFlag.MOVED
    return _Candidates(
        moments[:, :2].copy(), peaks[:, :2].copy(), peaks[:, 2].copy(), peaks[:, 3].copy(), peaks[:, 4].copy(), sky, sigma,
        peaks[:, 6] > 0, moments, flags,
    )  # fmt: skip


def _lonely(found: _Candidates, usable: np.ndarray) -> np.ndarray:
    """Of the usable candidates those that stand alone, if these are enough: beads of a trail may be the majority."""
    alone = usable & found.lonely
    return alone if alone.sum() >= 8 else usable


def _flag_saturated(found: _Candidates, raw: np.ndarray | None, saturation: float, step: int) -> None:
    """Any of the 3x3 pixels around the peak (for superpixels, of what they are made of) at or above the raw limit."""
    if raw is None or not np.isfinite(saturation) or not len(found):
        return
    touched = np.zeros(len(found), np.bool_)
    _touches(raw, found.start.astype(np.int64) * step, step, float(saturation), touched)
    found.flags[touched] |= StarFlag.SATURATED


@kernel(borrows=True)
def _touches(raw, corners, step, limit, touched):
    """Mark positions with a raw pixel at or above a limit in the 3x3 (super)pixels around them."""
    height, width = raw.shape
    for k in range(len(corners)):
        x, y = corners[k, 0], corners[k, 1]
        for j in range(max(y - step, 0), min(y + 2 * step, height)):
            for i in range(max(x - step, 0), min(x + 2 * step, width)):
                if raw[j, i] >= limit:
                    touched[k] = True


def _choose(found: _Candidates, width: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Which candidates are like the sub's own stars, which are sharper, and the width of the stars."""
    none = np.zeros(len(found), bool)
    usable = (found.flags & (StarFlag.EDGE | StarFlag.MOVED) == 0) & (found.moments[:, 5] > 0)
    saturated = found.flags & StarFlag.SATURATED != 0
    bright = np.flatnonzero(_lonely(found, usable & ~saturated))[:200]
    if len(bright) < 3:
        return usable, none, width
    size = np.log(found.fwhm)
    mode = _mode(size[bright])
    near = bright[np.abs(size[bright] - mode) < 0.35]
    spread = MAD_TO_SIGMA * np.median(np.abs(size[near] - mode))
    shape = found.shape
    usual = np.median(shape[near], axis=0)
    loose = MAD_TO_SIGMA * np.median(np.abs(shape[near] - usual), axis=0)
    sharp = float(np.median(found.sharpness[near]))
    fine = np.exp(mode) < 2.1
    per_snr = 1.0 / np.maximum(found.snr, 1.0)
    off = size - mode
    limit = 4.5 * np.hypot(spread, 1.3 * per_snr) + 0.05
    wide = (off > limit) & ~saturated
    narrow = off < (-np.inf if fine else -np.minimum(limit, 0.55))
    turned = (np.abs(shape - usual) > 4.5 * np.hypot(loose, 1.5 * per_snr[:, None]) + 0.05).any(axis=1) & ~saturated
    pointed = found.sharpness < (0.3 if fine else 0.45) * sharp
    like = usable & ~wide & ~narrow & ~turned & ~pointed
    return like, (narrow | pointed) & ~saturated, float(np.exp(mode))


def _mode(values: np.ndarray) -> float:
    """Half-sample mode: survives a majority of others."""
    values = np.sort(values)
    while len(values) > 3:
        n = (len(values) + 1) // 2
        at = int(np.argmin(values[n - 1 :] - values[: len(values) - n + 1]))
        values = values[at : at + n]
    return float(np.median(values))


def _table(image: np.ndarray, stars: _Candidates, width: float, growth: float) -> np.ndarray:
    """Columns of the stars, by flux."""
    inner, outer = _RING
    reach = min(width, 20.0)
    apertures = np.full((len(stars), 4), np.nan)
    apertures[:_MAX_APERTURES] = aperture_flux(
        image,
        stars.xy[:_MAX_APERTURES],
        radius_px=_APERTURE * reach,
        inner_px=inner * reach,
        outer_px=outer * reach,
        noise=stars.noise[:_MAX_APERTURES],
    )
    light, area, ring, count = apertures.T
    clean = stars.flags & (StarFlag.SATURATED | StarFlag.NEIGHBOR | StarFlag.EDGE) == 0
    moments = (
        np.median(stars.moments[clean][:100, 2:5], axis=0) if clean.any() else np.median(stars.moments[:, 2:5], axis=0)
    )
    sky = np.where(np.isfinite(ring), ring, stars.sky)
    fitted = weighted_flux(image, stars.xy, sky, shape=tuple(moments))
    flux, error = _join(light, area, count, fitted, stars, clean, float(np.sqrt(moments[0] * moments[2])), growth)
    xy, fwhm = stars.xy, stars.fwhm
    if width < _UNDERSAMPLED:
        xy, fwhm = _sharpen(image, stars, flux, sky, fwhm, growth)
    shape = stars.shape
    snr = flux / np.maximum(error, 1e-30)
    flags = stars.flags | np.where(_near_edge(xy, image.shape, width), StarFlag.EDGE, 0)
    table = np.column_stack([xy, flux, error, stars.peak, fwhm, shape, snr, flags]).astype(np.float64)
    table = table[np.isfinite(table).all(axis=1) & (flux > 0)]
    return table[np.lexsort((table[:, 0], table[:, 1], -table[:, 2]))]


def _join(
    light: np.ndarray, area: np.ndarray, count: np.ndarray, fitted: np.ndarray, stars: _Candidates, clean: np.ndarray,
    size: float, growth: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Total flux and its error from aperture and weighted flux."""
    variance = stars.noise**2
    wide = np.where(np.isfinite(light), area * variance * (1 + area / np.maximum(count, 1)), 0.0)
    usable = clean & np.isfinite(light) & np.isfinite(fitted) & (fitted > 0) & (light > 5 * np.sqrt(wide))
    if not usable.any():
        usable = np.isfinite(light) & np.isfinite(fitted) & (fitted > 0) & (light > 0)
    factor = float(np.median((light / np.where(fitted > 0, fitted, 1))[usable])) if usable.any() else 1.0
    total = factor * fitted
    # 1 %: how well a weight common to the sub fits a single star.
    narrow = factor**2 * 4 * np.pi * size * variance + (0.01 * total) ** 2
    share = np.where(np.isfinite(light), narrow / np.maximum(narrow + wide, 1e-30), 0.0)
    crowded = stars.flags & StarFlag.NEIGHBOR != 0
    share = np.where(crowded & np.isfinite(total), 0.0, share)
    flux = np.where(share > 0, share * np.nan_to_num(light), 0.0) + (1 - share) * np.nan_to_num(total)
    error = np.sqrt(share**2 * wide + (1 - share) ** 2 * (narrow - (0.01 * total) ** 2) + growth * np.maximum(flux, 0))
    return flux, error


def _sharpen(
    image: np.ndarray, stars: _Candidates, flux: np.ndarray, sky: np.ndarray, fwhm: np.ndarray, growth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centers by PSF fit for the best stars of an undersampled sub; widths scaled to the profile's."""
    best = np.flatnonzero(stars.flags & (StarFlag.SATURATED | StarFlag.EDGE) == 0)[:_MAX_FITS]
    if len(best) < 3:
        return stars.xy, fwhm
    xy = stars.xy.copy()
    fitted, good, width = fit_centers(image, xy[best], flux[best], sky[best], stars.noise[best], growth=growth)
    if good.mean() < 0.5:
        return xy, fwhm
    xy[best[good]] = fitted[good]
    return xy, fwhm * width / float(np.median(fwhm[best]))


def _near_edge(xy: np.ndarray, shape: tuple[int, ...], width: float) -> np.ndarray:
    margin = 1.5 * width + 3
    high = np.array([shape[1], shape[0]]) - 1 - margin
    return np.any((xy < margin) | (xy > high), axis=1)


def _neighbors(moments: np.ndarray, radius: float, share: float) -> np.ndarray:
    """Stars with another one within `radius` that has more than `share` of their flux."""
    order = np.argsort(moments[:, 1], kind="stable")
    found = np.zeros(len(moments), np.bool_)
    _pair(moments[order, 0], moments[order, 1], moments[order, 5], order, radius, share, found)
    return found


def _doubles(xy: np.ndarray, flux: np.ndarray, radius: float) -> np.ndarray:
    """Detections of which a brighter one lies at the same place."""
    order = np.argsort(xy[:, 1], kind="stable")
    found = np.zeros(len(xy), np.bool_)
    _pair(xy[order, 0], xy[order, 1], flux[order], order, radius, 1.0, found)
    return found


@kernel(borrows=True)
def _pair(x, y, flux, order, radius, share, found):
    """Mark those with another within `radius` of at least `share` of their flux; of equal ones the first stays."""
    for i in range(x.size):
        for j in range(i + 1, x.size):
            if y[j] - y[i] > radius:
                break
            if (x[j] - x[i]) ** 2 + (y[j] - y[i]) ** 2 <= radius * radius:
                if flux[j] > share * flux[i]:
                    found[order[i]] = True
                if flux[i] > share * flux[j] or (share == 1.0 and flux[i] == flux[j]):
                    found[order[j]] = True
