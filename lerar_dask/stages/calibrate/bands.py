"""Bands of rows of a master: how they are combined from files, and how they lie in the store.

In   calibration frames, rows of them; a master's key
Out  calibration/<master key>/image, one chunk per band
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lerar_dask.frames.frame import Frame
from lerar_dask.frames.reader import fill_band, has_words, read_words
from lerar_dask.kernels.calibrate.light import into_stack
from lerar_dask.kernels.calibrate.masters import combine_winsorized
from lerar_dask.store.access import Store
from lerar_dask.store.chunk import checked_chunk, chunk_parts
from lerar_dask.store.layout import packing_of
from lerar_dask.store.storage import Place

__all__ = ["BAND_ROWS", "band_bytes", "combine_rows", "has_band", "is_whole", "read_band", "read_master", "write_band"]

BAND_ROWS = 256
"""Rows of a master that one task makes, one chunk of it; never derived from memory."""
_STRIP_ROWS = 8
"""Rows that are combined at once: their samples stay in the processor's cache."""
_READ_BYTES = 64 << 20
"""Rows of all frames that are read at once, as far as a strip of each is not more."""


def combine_rows(
    frames: Sequence[Frame],
    rows: tuple[int, int],
    *,
    below: np.ndarray | None,
    factors: Sequence[float],
    limits: tuple[float, float],
) -> np.ndarray:
    """Winsorized mean of (frame - below) * factor, rows y0..y1-1.

    Parameters
    ----------
    below : (y1 - y0, x) float32 or None     what is taken off every frame
    factors : (n,)                           one per frame
    limits : low and high, in sigma

    Returns
    -------
    (y1 - y0, x) float32
    """
    y0, y1 = rows
    (low, high), width = limits, frames[0].shape[1]
    image = np.empty((y1 - y0, width), np.float32)
    if all(has_words(frame) for frame in frames):
        step = _rows_at_once(len(frames), width)
        buffer = np.empty((len(frames), min(step, y1 - y0), width), np.uint16)
        for a in range(0, y1 - y0, step):
            b = min(a + step, y1 - y0)
            for i, frame in enumerate(frames):
                read_words(frame, y0 + a, y0 + b, buffer[i, : b - a])
            under = None if below is None else below[a:b]
            _combine_words(buffer[:, : b - a], under, factors, low, high, image[a:b])
        return image
    stack = np.empty((y1 - y0, len(frames), width), np.float32)
    for i, (frame, factor) in enumerate(zip(frames, factors, strict=True)):
        fill_band(frame, y0, y1, stack, i, pedestal=below, factor=factor)
    return combine_winsorized(stack, low=low, high=high, out=image)


def band_bytes(frames: Sequence[Frame], width: int) -> int:
    """Memory that `combine_rows` takes for a band of rows of these frames."""
    maps = 3 * 4 * BAND_ROWS * width
    if all(has_words(frame) for frame in frames):
        return maps + len(frames) * width * (2 * _rows_at_once(len(frames), width) + 4 * _STRIP_ROWS)
    bounds = 2 * 4 * BAND_ROWS * width
    return maps + bounds + 4 * BAND_ROWS * width * len(frames)


def _rows_at_once(n: int, width: int) -> int:
    """Rows that are read of each of `n` files before they are combined."""
    return int(np.clip(_READ_BYTES // (2 * n * width), _STRIP_ROWS, BAND_ROWS)) // _STRIP_ROWS * _STRIP_ROWS


def _combine_words(
    words: np.ndarray,
    below: np.ndarray | None,
    factors: Sequence[float],
    low: float,
    high: float,
    image: np.ndarray,
) -> None:
    """Combine rows of plain 16 bit files, a few rows at a time."""
    stack = np.empty((_STRIP_ROWS, len(words), image.shape[1]), np.float32)
    nothing = np.empty((0, 0), np.float32)
    for a in range(0, len(image), _STRIP_ROWS):
        b = min(a + _STRIP_ROWS, len(image))
        under = nothing if below is None else below[a:b]
        for i, (rows, factor) in enumerate(zip(words, factors, strict=True)):
            into_stack(rows[a:b], np.uint16(0x8000), under, np.float32(factor), stack[: b - a], i)
        combine_winsorized(stack[: b - a], low=low, high=high, out=image[a:b])


def read_master(store: Store, key: str, shape: tuple[int, int]) -> np.ndarray:
    """All pixels of a master.

    Raises
    ------
    StoreError
        when a band is missing or damaged.
    """
    image = np.empty(shape, np.float32)
    for y0 in range(0, shape[0], BAND_ROWS):
        image[y0 : y0 + BAND_ROWS] = read_band(store, key, y0, shape)
    return image


def read_band(store: Store, key: str, y0: int, shape: tuple[int, int]) -> np.ndarray:
    """Rows y0 to y0 + BAND_ROWS of a master, as far as it has them."""
    packed = bool(packing_of(f"calibration/{key}/image"))
    chunk = checked_chunk(_band(store, key, y0), (BAND_ROWS, shape[1]), np.dtype("<f4"), packed=packed)
    return chunk[: shape[0] - y0]


def is_whole(store: Store, key: str, shape: tuple[int, int]) -> bool:
    """Whether all bands of a master were written."""
    return all(has_band(store, key, y0) for y0 in range(0, shape[0], BAND_ROWS))


def has_band(store: Store, key: str, y0: int) -> bool:
    """Whether the band of a master that begins with a row was written."""
    return _band(store, key, y0).exists()


def write_band(store: Store, key: str, y0: int, rows: np.ndarray) -> int:
    """Write a band of a master as its chunk, which is whole also at the lower end; bytes written."""
    chunk = rows
    if len(rows) < BAND_ROWS:
        chunk = np.full((BAND_ROWS, rows.shape[1]), np.nan, np.float32)
        chunk[: len(rows)] = rows
    parts = chunk_parts(chunk.astype("<f4", copy=False), packed=packing_of(f"calibration/{key}/image"))
    return _band(store, key, y0).put(parts)


def _band(store: Store, key: str, y0: int) -> Place:
    """Where a chunk is kept: zarr-python takes 5 ms and 0.2 s of import for the same."""
    return store.place(f"calibration/{key}/image/c/{y0 // BAND_ROWS}/0")
