"""Guide: the image that the user gave for the grid (`--align-to`), measured once.

Reads   a FITS file
Writes  registration/guides/<key>/stars; its star list
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lerar_dask.errors import FrameError, UsageError
from lerar_dask.frames.picture import Picture, light_of, open_picture
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.calibrate.voids import find_voids
from lerar_dask.kernels.measure.sub import measure
from lerar_dask.settings import Ingest
from lerar_dask.store.access import Store

__all__ = ["measure_align_image"]


def measure_align_image(store: Store, path: Path, settings: Ingest) -> tuple[str, tuple[int, int]]:
    """Where the star list of an image lies in the store, and the image's shape; measured when it is not there yet.

    Raises
    ------
    UsageError
        when the file is no image that can be used.
    """
    try:
        picture = open_picture(path)
        return _measure(store, picture, path, settings)
    except FrameError as error:
        raise UsageError(f"--align-to {path}: {error.message}") from error


def _measure(store: Store, picture: Picture, path: Path, settings: Ingest) -> tuple[str, tuple[int, int]]:
    frame = picture.frame
    key = digest("guide", code_of(__name__), str(path.resolve()), frame.size, frame.mtime_ns, settings)[:20]
    at = f"registration/guides/{key}/stars"
    if not store.has(at):
        image = light_of(picture.planes())
        found = measure(
            image,
            image.copy(),
            cfa=picture.cfa,
            cell_px=settings.background_cell_px,
            detection_sigma=settings.detection_sigma,
            max_stars=settings.max_stars,
            max_spikes=1,
            saturated_raw=frame.header.saturation_adu or float("inf"),
            defects=np.zeros(0, np.int32),
            voids=find_voids(image),
            blank=False,
        )
        if len(found.stars) < 6:
            raise FrameError(f"it shows too few stars ({len(found.stars)} found, 6 needed)")
        store.write_array(at, found.stars, dims=("star", "column"), meaning="stars of the image that sets the grid")
    return at, frame.shape
