"""LN reference: the image that gives scale and background (`--ln-reference`), measured once, as a sub is.

Reads   a FITS file
Writes  measures/ln-reference_<size>/<key>: blocks, grid, stars of the image in slot 0
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerar_dask.errors import FrameError, UsageError
from lerar_dask.frames.fits import read_cards
from lerar_dask.frames.reader import Frame, band_of
from lerar_dask.frames.scan import probe
from lerar_dask.kernels.measure import Measures, measure, measure_shapes
from lerar_dask.settings import Ingest, digest
from lerar_dask.store.access import Store

__all__ = ["CODE_VERSION", "MeasuredImage", "measure_reference"]

CODE_VERSION = 1
MIN_STARS = 6


@dataclass(frozen=True, kw_only=True)
class MeasuredImage:
    """Where the measurements of the image lie in the store."""

    geometry: str
    measure: str
    shape: tuple[int, int]
    is_raw: bool
    """It looks as a camera wrote it: nothing says that it was calibrated."""


def measure_reference(store: Store, path: Path, settings: Ingest) -> MeasuredImage:
    """Measure an image, unless it is measured already; its identity is path, size and time.

    Raises
    ------
    UsageError
        when the file is no image that can be used.
    """
    frame = probe(path)
    problem = frame.problem or _planes_problem(frame)
    if problem:
        raise UsageError(f"--ln-reference {path}: {problem}")
    cfa, (height, width) = frame.header.cfa, frame.shape
    key = digest("ln-reference", CODE_VERSION, str(path.resolve()), frame.size, frame.mtime_ns, settings)[:20]
    geometry = f"ln-reference_{width}x{height}_{cfa or 'mono'}"
    measures = store.measures(geometry, key)
    if not measures.has(0):
        shapes = measure_shapes(
            frame.shape, cfa=cfa, cell_px=settings.background_cell_px, max_stars=settings.max_stars, max_spikes=1
        )
        measures.create(1, shapes)
        found = _measured(frame, settings)
        if len(found.stars) < MIN_STARS:
            raise UsageError(
                f"--ln-reference {path}: it shows too few stars ({len(found.stars)} found, {MIN_STARS} needed)"
            )
        measures.write(
            0,
            blocks=found.blocks,
            grid=found.grid,
            stars=found.stars,
            spikes=found.spikes[:1],
            summary=found.summary,
        )
    header = frame.header
    integer = frame.pixels is not None and np.dtype(frame.pixels.dtype).kind in "iu"
    is_raw = integer and not (header.is_stack or header.calibrated)
    return MeasuredImage(geometry=geometry, measure=key, shape=frame.shape, is_raw=is_raw)


def _measured(frame: Frame, settings: Ingest) -> Measures:
    """Measurements of the image's pixels; saturation is what its header says."""
    try:
        image = np.ascontiguousarray(band_of(frame, 0, frame.shape[0]), np.float32)
    except FrameError as error:
        raise UsageError(f"--ln-reference {frame.path}: {error.message}") from error
    if not np.isfinite(image).any() or np.nanmin(image) == np.nanmax(image):
        raise UsageError(f"--ln-reference {frame.path}: it holds no picture")
    return measure(
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


def _planes_problem(frame: Frame) -> str:
    """A result of three planes has no single background."""
    assert frame.pixels is not None
    axes = {c[:8].strip(): c[10:].split("/")[0].strip() for c in read_cards(frame.path, frame.pixels.hdu)}
    if axes.get("ZNAXIS3", axes.get("NAXIS3", "1")) != "1":
        return "it is a color image of several planes; give one plane, or a color sub"
    return ""
