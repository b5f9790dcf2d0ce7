"""LN reference: the image that gives scale and background (`--ln-reference`), measured once, as a sub is.

Reads   a FITS file
Writes  measures/ln-reference_<size>/<key>: blocks, grid and stars of the image, in slot 0
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerar_dask.errors import FrameError, UsageError
from lerar_dask.frames.frame import Frame
from lerar_dask.frames.picture import Picture, open_picture
from lerar_dask.identity import code_of, digest
from lerar_dask.settings import Ingest
from lerar_dask.stages.image_measures import measure_image
from lerar_dask.store.access import Store

__all__ = ["MeasuredImage", "measure_reference"]


@dataclass(frozen=True, kw_only=True)
class MeasuredImage:
    """Where the measurements of the image lie in the store."""

    geometry: str
    measure: str
    shape: tuple[int, int]
    trust: str
    """What is taken on trust, in words; empty when nothing is."""


def measure_reference(store: Store, path: Path, settings: Ingest) -> MeasuredImage:
    """Measure an image, unless it is measured already; its identity is path, size and time.

    Raises
    ------
    UsageError
        when the file is no image that can be used.
    """
    try:
        picture = open_picture(path)
        return _measure(store, picture, path, settings)
    except FrameError as error:
        raise UsageError(f"{path}: {error.message}") from error


def _measure(store: Store, picture: Picture, path: Path, settings: Ingest) -> MeasuredImage:
    frame, n_planes, cfa = picture.frame, picture.n_planes, picture.cfa
    height, width = frame.shape
    key = digest("ln-reference", code_of(__name__), str(path.resolve()), frame.size, frame.mtime_ns, settings)[:20]
    geometry = f"ln-reference_{width}x{height}_{cfa or ('mono' if n_planes == 1 else 'color')}"
    measures = store.measures(geometry, key)
    if not measures.has(0):
        found = measure_image(picture, settings, blocks=True)
        parts = {"blocks": found.blocks, "grid": found.grid, "stars": found.stars, "spikes": np.zeros((1, 3))}
        measures.create(1, {name: part.shape for name, part in parts.items()})
        measures.write(0, **parts, summary=found.summary)
    return MeasuredImage(geometry=geometry, measure=key, shape=frame.shape, trust=_trust(frame, n_planes))


def _trust(frame: Frame, n_planes: int) -> str:
    header = frame.header
    integer = frame.pixels is not None and frame.pixels.dtype[1] in "iu"
    if n_planes > 1:
        return "its colors are taken as the sensor's, not balanced"
    if integer and not (header.is_stack or header.calibrated):
        return "it is taken as calibrated, which nothing in it says"
    return ""
