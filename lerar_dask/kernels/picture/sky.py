"""The sky of masters: what is object-free, how bright it is in each channel, how green, and how it slopes.

In   tiles of pixels of several channels, their medians and scatters on a grid
Out  the darkest object-free tiles, the sky of each channel, the fog, the slope between channels

A tile is `TILE_PX` square at fixed places of the canvas, so nothing depends on how an image is cut into pieces.
BackgroundNeutralization as in PixInsight's documentation, its modes by name; values below 0 are kept unless a mode cuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA

__all__ = [
    "TILE_PX",
    "Slope",
    "fit_slope",
    "fog_of",
    "level_of",
    "nebula_tiles",
    "neutralize",
    "sky_of",
    "sky_tiles",
    "slope_at",
    "tile_statistics",
    "tiles_inside",
]

TILE_PX = 64
_SHARE_VALID = 0.5
"""Share of a tile's pixels that must have data in all channels."""
_DARKEST = 0.25
"""Share of the object-free tiles, the darkest, that are sky."""
_CALM = 1.25
"""Tiles whose scatter is more than this times that of calm ones hold objects."""
_FAINT = (3.0, 30.0)
"""Faint nebula lies so many sigma of a pixel over the sky, in the mean of the channels."""
Mode = Literal["zero", "target", "rescale", "rescale-as-needed", "truncate"]


def tile_statistics(pixels: np.ndarray) -> np.ndarray:
    """Median, sigma (of the MAD) and largest value of each tile and channel.

    Parameters
    ----------
    pixels : (channel, y, x) float32     the first pixel is a tile's; a pixel counts where all channels have data

    Returns
    -------
    (ty, tx, channel, 3) float32; NaN where too few pixels count
    """
    n, height, width = pixels.shape
    ty, tx = -(-height // TILE_PX), -(-width // TILE_PX)
    out = np.full((ty, tx, n, 3), np.nan, np.float32)
    for j in range(ty):
        for i in range(tx):
            tile = pixels[:, j * TILE_PX : (j + 1) * TILE_PX, i * TILE_PX : (i + 1) * TILE_PX].reshape(n, -1)
            good = tile[:, np.isfinite(tile).all(axis=0)]
            if good.shape[1] < _SHARE_VALID * TILE_PX * TILE_PX:
                continue
            middle = np.median(good, axis=1)
            out[j, i, :, 0] = middle
            out[j, i, :, 1] = MAD_TO_SIGMA * np.median(np.abs(good - middle[:, None]), axis=1)
            out[j, i, :, 2] = good.max(axis=1)
    return out


def sky_tiles(tiles: np.ndarray) -> np.ndarray:
    """Which tiles are sky: as calm as the calmest, and the darkest of them in all channels.

    Parameters
    ----------
    tiles : (ty, tx, channel, ...) of `tile_statistics`

    Returns
    -------
    (ty, tx) bool
    """
    middle, scatter = tiles[..., 0].astype(np.float64), tiles[..., 1].astype(np.float64)
    known = np.asarray(np.isfinite(middle).all(axis=-1))
    if not known.any():
        return known
    calm = np.quantile(scatter[known], 0.2, axis=0)
    free = known & (scatter <= _CALM * calm + 1e-30).all(axis=-1)
    # Height over the darkest in units of scatter, the largest of the channels: a nebula of one color is none of the sky.
    height = (middle - np.quantile(middle[free], 0.02, axis=0)) / np.maximum(calm, 1e-30)
    height = height.max(axis=-1)
    return np.asarray(free & (height <= np.quantile(height[free], _DARKEST)))


def tiles_inside(tiles: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Which tiles with data lie in a rectangle, most of each, (ty, tx) bool.

    Parameters
    ----------
    box : x0, y0, x1, y1, pixels
    """
    x0, y0, x1, y1 = box
    ys, xs = (np.arange(n) * TILE_PX + TILE_PX / 2 for n in tiles.shape[:2])
    inside = ((ys >= y0) & (ys <= y1))[:, None] & ((xs >= x0) & (xs <= x1))[None]
    return np.asarray(inside & np.isfinite(tiles[..., 0]).all(axis=-1))


def level_of(tiles: np.ndarray) -> tuple[float, float]:
    """Median of an image and its scatter: of pixels about their tiles, and of the tiles about the whole.

    Parameters
    ----------
    tiles : (ty, tx, ...) of one channel of `tile_statistics`
    """
    known = tiles[np.isfinite(tiles[..., 0])].astype(np.float64)
    middle = float(np.median(known[:, 0]))
    among = MAD_TO_SIGMA * float(np.median(np.abs(known[:, 0] - middle)))
    return middle, float(np.hypot(np.median(known[:, 1]), among))


def nebula_tiles(tiles: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Which tiles hold faint nebula: little above the sky in the mean of the channels, (ty, tx) bool."""
    middle, scatter = tiles[..., 0].astype(np.float64), tiles[..., 1].astype(np.float64)
    if not sky.any():
        return np.zeros(sky.shape, bool)
    over = (middle - np.median(middle[sky], axis=0)).mean(axis=-1)
    sigma = np.median(scatter[sky], axis=0).mean()
    with np.errstate(invalid="ignore"):
        return (over > _FAINT[0] * sigma) & (over < _FAINT[1] * sigma)


def sky_of(tiles: np.ndarray, sky: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level and sigma of a pixel of the sky by channel, (channel,) float64 each."""
    chosen = tiles[sky].astype(np.float64)
    return np.median(chosen[..., 0], axis=0), np.median(chosen[..., 1], axis=0)


def fog_of(difference: np.ndarray, where: np.ndarray) -> float:
    """Green fog: G less the mean of R and B, in sigma of that difference in a pixel; NaN without such tiles.

    Parameters
    ----------
    difference : (ty, tx, ...) float32     median and sigma of G - (R + B) / 2 in tiles
    """
    if not where.any():
        return float("nan")
    middle, sigma = np.median(difference[where][:, :2].astype(np.float64), axis=0)
    return float(middle / max(sigma, 1e-30))


def neutralize(
    rgb: np.ndarray,
    sky: np.ndarray,
    *,
    mode: Mode = "zero",
    target: float = 0.0,
    extremes: tuple[float, float] | None = None,
) -> np.ndarray:
    """The sky of every channel at one level.

    Parameters
    ----------
    rgb : (channel, y, x) float32
    sky : (channel,) float            level of each channel's sky
    mode : zero: sky at 0, values below it kept; target: at `target`, cut to 0..1; rescale: at 0, then the whole range of
        the image brought to 0..1; rescale-as-needed: only where it leaves 0..1; truncate: at 0, cut to 0..1
    extremes : least and largest value of the whole image with its sky at 0, for the modes that rescale; None: `rgb` is
        the whole
    """
    level = np.float32(target if mode == "target" else 0.0)
    out = rgb - (np.asarray(sky, np.float64)[:, None, None] - level).astype(np.float32)
    if mode in ("target", "truncate"):
        return np.clip(out, 0, 1)
    if mode == "zero":
        return out
    low, high = (np.float32(v) for v in extremes or (np.nanmin(out), np.nanmax(out)))
    if mode == "rescale-as-needed" and low >= 0 and high <= 1:
        return out
    return (out - low) / (high - low)


# ------------------------------------------------------------------------------------------------ slope between channels


@dataclass(frozen=True)
class Slope:
    """A polynomial of low degree over the canvas."""

    coefficients: tuple[float, ...]
    """Of u^i v^j with i + j <= degree, in the order of `_terms`; u, v run from -1 to 1 over the canvas."""
    degree: int
    shape: tuple[int, int]
    """Rows and columns of the canvas."""
    range: float
    """Largest less smallest value on the canvas."""


def fit_slope(values: np.ndarray, where: np.ndarray, shape: tuple[int, int], degree: int) -> Slope:
    """Polynomial through tiles, robust against those that hold more than sky.

    Parameters
    ----------
    values : (ty, tx)         medians of tiles
    where : (ty, tx) bool     those that count
    shape : of the canvas
    """
    j, i = np.nonzero(where)
    terms = _terms(j * TILE_PX + 0.5 * (TILE_PX - 1), i * TILE_PX + 0.5 * (TILE_PX - 1), shape, degree)
    data = values[where].astype(np.float64)
    weight = np.ones(len(data))
    found = np.zeros(terms.shape[1])
    for _ in range(8):
        root = np.sqrt(weight)
        found = np.linalg.lstsq(terms * root[:, None], data * root, rcond=1e-8)[0]
        left = data - terms @ found
        sigma = MAD_TO_SIGMA * np.median(np.abs(left)) + 1e-30
        weight = 1 / (1 + (left / (2 * sigma)) ** 2) ** 2
    ys, xs = np.meshgrid(np.linspace(0, shape[0] - 1, 9), np.linspace(0, shape[1] - 1, 9), indexing="ij")
    on_grid = _terms(ys.ravel(), xs.ravel(), shape, degree) @ found
    return Slope(tuple(map(float, found)), degree, shape, float(np.ptp(on_grid)))


def slope_at(slope: Slope, y0: int, x0: int, shape: tuple[int, int]) -> np.ndarray:
    """The polynomial, less its mean over the canvas, in a window that begins at (y0, x0); (y, x) float32."""
    ys, xs = np.arange(y0, y0 + shape[0], dtype=float), np.arange(x0, x0 + shape[1], dtype=float)
    v, u = _unit(ys, slope.shape[0]), _unit(xs, slope.shape[1])
    out = np.zeros(shape)
    for (i, j), c in zip(_powers(slope.degree), slope.coefficients, strict=True):
        mean = (1 / (i + 1) if i % 2 == 0 else 0.0) * (1 / (j + 1) if j % 2 == 0 else 0.0)
        out += c * (v[:, None] ** i * u[None, :] ** j - mean)
    return out.astype(np.float32)


def _terms(y: np.ndarray, x: np.ndarray, shape: tuple[int, int], degree: int) -> np.ndarray:
    v, u = _unit(y, shape[0]), _unit(x, shape[1])
    return np.stack([v**i * u**j for i, j in _powers(degree)], axis=-1)


def _powers(degree: int) -> list[tuple[int, int]]:
    return [(i, total - i) for total in range(degree + 1) for i in range(total, -1, -1)]


def _unit(at: np.ndarray, n: int) -> np.ndarray:
    return 2 * np.asarray(at, np.float64) / max(n - 1, 1) - 1
