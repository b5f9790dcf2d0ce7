"""Guide: the image that the user gave for the grid (`--align-to`), measured once.

Reads   a FITS file
Writes  registration/guides/<key>/stars; its star list
"""

from __future__ import annotations

from pathlib import Path

from lerar_dask.errors import FrameError, UsageError
from lerar_dask.frames.picture import Picture, open_picture
from lerar_dask.identity import code_of, digest
from lerar_dask.settings import Ingest
from lerar_dask.stages.image_measures import measure_image
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
        found = measure_image(picture, settings, blocks=False)
        store.write_array(at, found.stars, dims=("star", "column"), meaning="stars of the image that sets the grid")
    return at, frame.shape
