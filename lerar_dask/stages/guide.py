"""Guide: the image that the user gave for the grid (`--align-to`), measured once.

Reads   a FITS file
Writes  registration/guides/<key>/stars; its star list
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lerar_dask.errors import UsageError
from lerar_dask.frames.reader import band_of
from lerar_dask.frames.scan import probe
from lerar_dask.kernels.measure import measure
from lerar_dask.settings import Ingest, digest
from lerar_dask.store.access import Store

__all__ = ["CODE_VERSION", "measure_guide"]

CODE_VERSION = 1


def measure_guide(store: Store, path: Path, settings: Ingest) -> tuple[str, tuple[int, int]]:
    """Where the star list of an image lies in the store, and the image's shape; measured when it is not there yet.

    Raises
    ------
    UsageError
        when the file is no image that can be used.
    """
    frame = probe(path)
    if frame.problem:
        raise UsageError(f"--align-to {path}: {frame.problem}")
    key = digest("guide", CODE_VERSION, str(path.resolve()), frame.size, frame.mtime_ns, settings)[:20]
    at = f"registration/guides/{key}/stars"
    if not store.has(at):
        image = np.ascontiguousarray(band_of(frame, 0, frame.shape[0]), np.float32)
        found = measure(
            image,
            image.copy(),
            cfa=frame.header.cfa,
            cell_px=settings.background_cell_px,
            detection_sigma=settings.detection_sigma,
            max_stars=settings.max_stars,
            max_spikes=1,
            saturated_raw=frame.header.saturation_adu or float("inf"),
            defects=np.zeros(0, np.int32),
        )
        if len(found.stars) < 6:
            raise UsageError(f"--align-to {path}: it shows too few stars ({len(found.stars)} found, 6 needed)")
        store.write_array(at, found.stars, dims=("star", "column"), meaning="stars of the image that sets the grid")
    return at, frame.shape
