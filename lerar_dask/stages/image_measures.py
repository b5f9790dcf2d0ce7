"""Measurements of an image that the user points at, read in bands: it may be larger than memory.

Reads   the file
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames.picture import Picture, light_of
from lerar_dask.kernels.calibrate.voids import find_voids
from lerar_dask.kernels.measure.joined import bands_of, join_bands
from lerar_dask.kernels.measure.sub import Measures, measure
from lerar_dask.settings import Ingest

__all__ = ["MIN_STARS", "measure_image"]

MIN_STARS = 6
"""Fewer do not place an image."""
_BAND_PX = 1 << 24
"""Pixels that are measured at a time."""


def measure_image(picture: Picture, settings: Ingest, *, blocks: bool) -> Measures:
    """Measure an image as a sub is.

    Parameters
    ----------
    blocks : of color planes, blocks and grid of each are measured too; False: stars of their light alone

    Raises
    ------
    FrameError
        when it cannot be read, holds nothing or shows too few stars.
    """
    parts = []
    alive = np.zeros(picture.n_planes, bool)
    for band in bands_of(picture.frame.shape, cell_px=settings.background_cell_px, most_px=_BAND_PX):
        planes = picture.planes(band.first, band.last)
        alive |= [not np.isnan(p).all() and np.nanmin(p) < np.nanmax(p) for p in planes]
        parts.append((band, _measured(planes, picture, settings, blocks=blocks)))
    if not alive.all():
        raise FrameError("it holds no picture")
    found = join_bands(parts, cell_px=settings.background_cell_px, max_stars=settings.max_stars)
    if len(found.stars) < MIN_STARS:
        raise FrameError(f"it shows too few stars ({len(found.stars)} found, {MIN_STARS} needed)")
    return found


def _measured(planes: list[np.ndarray], picture: Picture, settings: Ingest, *, blocks: bool) -> Measures:
    """Blocks of each plane; stars of their light together, as they are measured on a color sub."""
    stars = _measured_plane(light_of(planes), picture, settings)
    if len(planes) == 1 or not blocks:
        return stars
    found = [_measured_plane(plane, picture, settings) for plane in planes]
    return replace(
        stars, blocks=np.concatenate([f.blocks for f in found]), grid=np.concatenate([f.grid for f in found])
    )


def _measured_plane(image: np.ndarray, picture: Picture, settings: Ingest) -> Measures:
    return measure(
        image,
        image.copy(),
        cfa=picture.cfa,
        cell_px=settings.background_cell_px,
        detection_sigma=settings.detection_sigma,
        max_stars=settings.max_stars,
        max_spikes=1,
        saturated_raw=picture.frame.header.saturation_adu or float("inf"),
        defects=np.zeros(0, np.int32),
        voids=find_voids(image),
        blank=False,
    )
