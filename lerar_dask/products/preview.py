"""Pictures of linear images: the auto-stretched preview, and small maps for the report.

In: a master by bands of rows, so that a huge one need not be in memory; or small maps. Out: PNG files, or their bytes.
The first row of the array is the top of the picture, unless the rows are said to run upwards. No data is black.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.kernels.output.binning import area_means
from lerar_dask.kernels.robust.medians import median
from lerar_dask.products.hdus import atomic_path

__all__ = ["MAX_PX", "Palette", "autostretch", "map_png", "reduce_planes", "reduce_rows", "render", "write_preview"]

MAX_PX = 2000
"""Longest side of a preview."""
ReadRows = Callable[[int, int], np.ndarray]
Palette = str
"""viridis, or balance (around zero)."""
_SKY_SHADE = 0.20
"""Where the sky lies in the picture; PixInsight's STF takes 0.25, too bright a sky on a screen with other things."""
_SHADOWS = 2.8
"""Black lies this many sigma (of MAD_TO_SIGMA times the MAD) below the sky."""
_DARKEST_SHARE = 0.002
_SAMPLE_PX = 400_000
"""Pixels that levels are taken from."""
_BAND_ROWS = 256
_BALANCE = ("#1f5fa8", "#6aa6d6", "#dfe8ee", "#f3f1ec", "#f0d9c4", "#dd8452", "#a2371f")


def write_preview(
    path: Path,
    read_rows: ReadRows,
    shape: tuple[int, int, int],
    *,
    bottom_up: bool = False,
    max_px: int = MAX_PX,
) -> np.ndarray:
    """Write an auto-stretched 8-bit PNG of a master; returns the stretched picture for further use.

    Parameters
    ----------
    read_rows : (y0, y1) -> (channel, plane, y1 - y0, x) float32; plane 0 is shown, NaN = no data
    shape : channels (1 or 3), rows, columns
    """
    stretched = autostretch(reduce_rows(read_rows, shape, max_px=max_px))
    picture = render(stretched, bottom_up=bottom_up)
    with atomic_path(path) as partial:
        picture.save(partial, format="PNG", compress_type=3)  # run lengths: 4x as fast, and no larger
    return stretched


def reduce_rows(
    read_rows: ReadRows, shape: tuple[int, int, int], *, plane: int = 0, max_px: int = MAX_PX
) -> np.ndarray:
    """Area means of a plane, at most `max_px` on a side, in one pass over bands of rows.

    Returns
    -------
    image : (channel, y, x) float32; NaN where less than half of an area has data
    """
    _, height, width = shape
    factor = max(1, max(height, width) // max_px)
    step = max(factor, _BAND_ROWS // factor * factor)
    bands = []
    for y0 in range(0, height, step):
        rows = np.asarray(read_rows(y0, min(y0 + step, height)))[:, plane]
        bands.append(area_means(rows, factor))
    image = np.concatenate(bands, axis=1)
    ratio = max(image.shape[1:]) / max_px
    if ratio <= 1:
        return image
    size = max(1, round(image.shape[2] / ratio)), max(1, round(image.shape[1] / ratio))
    return np.stack([_box_mean(channel, size) for channel in image])


def reduce_planes(read_rows: ReadRows, shape: tuple[int, int, int], *, max_px: int) -> np.ndarray:
    """Area means of all planes, (plane, channel, y, x) float32, at most `max_px` on a side, in one pass."""
    _, height, width = shape
    factor = max(1, -(-max(height, width) // max_px))
    step = max(factor, _BAND_ROWS // factor * factor)
    bands = []
    for y0 in range(0, height, step):
        rows = np.asarray(read_rows(y0, min(y0 + step, height)))
        bands.append(np.stack([area_means(rows[:, plane], factor) for plane in range(rows.shape[1])]))
    return np.concatenate(bands, axis=2)


def autostretch(image: np.ndarray) -> np.ndarray:
    """Map a linear image to 0..1 so that the sky is dark gray and faint light shows.

    The curve is PixInsight's STF autostretch (linked). Before it, the sky of each channel is brought to one level, and
    the stars' light to equal mean shares of the channels: sensors see green about twice as bright as red or blue.

    Parameters
    ----------
    image : (channel, y, x) float32; NaN = no data

    Returns
    -------
    stretched : (channel, y, x) float32 in 0..1; NaN where any channel has no data
    """
    valid = np.isfinite(image).all(axis=0)
    if not valid.any():
        return np.full(image.shape, np.nan, np.float32)
    shown = image[:, valid].astype(np.float32)
    sample = shown[:, :: max(1, shown.shape[1] // _SAMPLE_PX)]
    skies = median(sample, axis=1)[:, None]
    gains = _star_gains(sample - skies)[:, None]
    pixels = (sample - skies) * gains
    sigma = float(np.mean(MAD_TO_SIGMA * median(np.abs(pixels), axis=1)))
    top = float(np.quantile(pixels, 0.9998))
    sigma = sigma or max(top, 1e-6) / 100  # more than half of the pixels are equal
    # Where nebula fills the field, MAD measures it and not the sky: black is then where the image is darkest.
    darkest = float(np.quantile(pixels.mean(axis=0), _DARKEST_SHARE))
    black, white = min(max(-_SHADOWS * sigma, darkest), -0.5 * sigma), max(top, 10 * sigma)
    shown -= skies + black / gains
    shown *= gains / np.float32(white - black)
    midtone = float(_mtf(_SKY_SHADE, -black / (white - black)))
    stretched = np.full(image.shape, np.nan, np.float32)
    stretched[:, valid] = np.minimum(_mtf(midtone, np.clip(shown, 0, 1, out=shown)), 1)
    return stretched


def render(stretched: np.ndarray, *, bottom_up: bool = False) -> Image.Image:
    """Picture (gray or RGB) of (channel, y, x) values in 0..1."""
    bytes_ = (np.nan_to_num(stretched, nan=0.0) * 255 + 0.5).astype(np.uint8)
    if bottom_up:
        bytes_ = bytes_[:, ::-1]
    return Image.fromarray(bytes_[0] if len(bytes_) == 1 else np.ascontiguousarray(np.moveaxis(bytes_, 0, -1)))


def map_png(
    values: np.ndarray,
    *,
    low: float,
    high: float,
    palette: Palette = "viridis",
    max_px: int = 360,
    bottom_up: bool = False,
) -> bytes:
    """PNG of a map; no data is transparent.

    Parameters
    ----------
    values : (y, x) float; NaN = no data
    low, high : values at the ends of the palette
    """
    table = _palette(palette)
    scale = 255 / (high - low) if high > low else 0.0
    levels = np.clip((np.nan_to_num(values, nan=low) - low) * scale, 0, 255).astype(np.uint8)
    pixels = np.dstack([table[levels], np.where(np.isfinite(values), 255, 0).astype(np.uint8)])
    picture = Image.fromarray(np.ascontiguousarray(pixels[::-1] if bottom_up else pixels))
    longest = max(picture.size)
    if longest > max_px:
        picture = picture.resize([max(1, round(s * max_px / longest)) for s in picture.size], Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _star_gains(pixels: np.ndarray) -> np.ndarray:
    """Factor per channel that makes the light above the sky white on the whole, (channel,)."""
    if len(pixels) == 1:
        return np.ones(1, np.float32)
    sigma = MAD_TO_SIGMA * median(np.abs(pixels), axis=1)[:, None]
    bright = (pixels > 10 * sigma).all(axis=0) & (pixels < 0.5 * pixels.max(axis=1, keepdims=True)).all(axis=0)
    if bright.sum() < 50:
        return np.ones(len(pixels), np.float32)
    level = median(pixels[:, bright], axis=1)
    return np.clip(level.mean() / level, 0.25, 4).astype(np.float32)


def _mtf(midtone: np.ndarray | float, x: np.ndarray | float) -> np.ndarray:
    """Midtones transfer function: 0 -> 0, midtone -> 1/2, 1 -> 1; its own parameter for `x` -> `midtone` as well."""
    return np.asarray((midtone - 1) * x / ((2 * midtone - 1) * x - midtone))


def _box_mean(channel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Area means at any ratio; `size` is columns, rows."""
    valid = np.isfinite(channel).astype(np.float32)
    total, weight = (
        np.asarray(Image.fromarray(a).resize(size, Image.Resampling.BOX)) for a in (np.nan_to_num(channel), valid)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight >= 0.5, total / weight, np.nan).astype(np.float32)


def _palette(name: Palette) -> np.ndarray:
    """(256, 3) uint8 colors."""
    if name == "balance":
        nodes = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in _BALANCE], float)
        at = np.linspace(0, len(nodes) - 1, 256)
        return np.stack([np.interp(at, np.arange(len(nodes)), nodes[:, k]) for k in range(3)], axis=1).astype(np.uint8)
    from bokeh.palettes import Viridis256

    return np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in Viridis256], np.uint8)
