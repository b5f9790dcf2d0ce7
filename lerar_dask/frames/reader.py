"""Reader: the ways to a frame's pixels and cards, whatever format its file has.

`probe` finds out what a file is (header only, bounded bytes, no pixel memory), by its first bytes; a suffix serves messages
only. Rows of uncompressed files are read here; all others are unpacked by their format (formats.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames.formats import format_named
from lerar_dask.frames.frame import Frame, PixelSource, RawPixels
from lerar_dask.frames.reach import patiently, reached, read_into
from lerar_dask.kernels.calibrate.light import swap_words

__all__ = ["band_of", "cards_of", "fill_band", "has_words", "read_pixels", "read_words"]


def cards_of(frame: Frame) -> list[str]:
    """Cards of a frame, verbatim."""
    source = _source(frame)
    return format_named(source.format).cards(frame.path, source.hdu)


def has_words(frame: Frame) -> bool:
    """Whether a file's pixels are plain unsigned 16 bit words, and the values that the words say."""
    source = _source(frame)
    return (
        source.layout == "plain"
        and source.dtype == ">i2"
        and source.is_unsigned
        and source.blank is None
        and source.stored_scale == (1.0, 0.0)
    )


def read_words(frame: Frame, y0: int, y1: int, out: np.ndarray) -> None:
    """Rows y0..y1-1 of a frame that `has_words` into `out`, as this machine reads them: bytes not swapped.

    Read and not mapped: a mapped file that somebody cuts short ends the process. The file is open for as long as this
    takes, so that the number of frames does not count.

    Parameters
    ----------
    out : (y1 - y0, x) uint16, contiguous     written

    Raises
    ------
    FrameError
        when the file cannot be read, is cut short, or has changed since it was scanned.
    """
    _read_plain(frame, [(y0, out)])


def _read_plain(frame: Frame, parts: Sequence[tuple[int, np.ndarray]]) -> None:
    """Rows of a plain file: (first row, array for it and those behind it), bytes as they are."""
    source = _source(frame)
    row_bytes = frame.shape[1] * np.dtype(source.dtype).itemsize
    with reached(frame.path) as descriptor:
        _check_unchanged(frame, os.fstat(descriptor))
        for y, out in parts:
            view, at = memoryview(out).cast("B"), source.offset + y * row_bytes  # type: ignore[arg-type]
            while len(view):
                got = read_into(descriptor, view, at)
                if not got:
                    raise FrameError("the file was cut short while it was read")
                view, at = view[got:], at + got


def read_pixels(frame: Frame) -> RawPixels:
    """All pixels of a frame.

    Raises
    ------
    FrameError
        when the file cannot be read, is cut short, or has changed since it was scanned.
    """
    source = _source(frame)
    data = band_stored(frame, 0, frame.shape[0])
    scale, zero = source.stored_scale
    blank = None if source.blank is None else float(source.blank)
    if blank is not None and source.is_unsigned:
        blank += source.zero
    return RawPixels(data, scale, zero, blank)


def band_of(frame: Frame, y0: int, y1: int, *, step: int = 1, plane: int = 0) -> np.ndarray:
    """Physical values of rows y0, y0 + step, ... below y1, float32; missing ones NaN."""
    source = _source(frame)
    stored = band_stored(frame, y0, y1, step=step, plane=plane)
    scale, zero = source.stored_scale
    with np.errstate(over="ignore"):
        values = stored.astype(np.float32)
        if (scale, zero) != (1.0, 0.0):
            values = (stored.astype(np.float64) * scale + zero).astype(np.float32)
    if source.blank is not None:
        blank = source.blank + (int(source.zero) if source.is_unsigned else 0)
        values[stored == blank] = np.nan
    if stored.dtype.kind == "f":
        values[np.isinf(values)] = np.nan
    return values


def fill_band(
    frame: Frame,
    y0: int,
    y1: int,
    stack: np.ndarray,
    i: int,
    *,
    pedestal: np.ndarray | None = None,
    factor: float = 1.0,
) -> None:
    """(Physical value - pedestal) * factor of rows y0..y1-1 into stack[:, i]; missing ones NaN.

    Parameters
    ----------
    stack : (y1 - y0, frames, x) float32
    pedestal : (y1 - y0, x) float32 or None
    """
    stack[:, i] = band_of(frame, y0, y1)
    if pedestal is not None:
        stack[:, i] -= pedestal
    stack[:, i] *= np.float32(factor)


def band_stored(frame: Frame, y0: int, y1: int, *, step: int = 1, plane: int = 0) -> np.ndarray:
    """Rows as stored, native byte order."""
    source = _source(frame)
    if source.layout == "plain":
        rows = np.empty((len(range(y0, y1, step)), frame.shape[1]), source.dtype)
        first = plane * frame.shape[0] + y0
        _read_plain(frame, [(first, rows)] if step == 1 else [(first + i * step, row) for i, row in enumerate(rows)])
    else:
        with reached(frame.path) as descriptor:
            status = os.fstat(descriptor)
            _check_unchanged(frame, status)
        unpack = format_named(source.format).rows
        rows = patiently(lambda: unpack(frame, source, y0, y1, step, plane), status)
    if source.is_unsigned and source.dtype == ">i2":
        return swap_words(np.asarray(rows).view("=u2"), flip=0x8000)
    if source.is_unsigned:
        word = np.dtype(source.stored_dtype)
        flipped = np.asarray(rows).view(word.newbyteorder(">")).astype(word)
        return np.bitwise_xor(flipped, word.type(1 << (8 * word.itemsize - 1)), out=flipped)
    return np.ascontiguousarray(rows, np.dtype(source.dtype).newbyteorder("="))


def _source(frame: Frame) -> PixelSource:
    if frame.pixels is None:
        raise FrameError(frame.problem or "it has no pixels")
    return frame.pixels


def _check_unchanged(frame: Frame, now: os.stat_result) -> None:
    if (now.st_size, now.st_mtime_ns) != (frame.size, frame.mtime_ns):
        raise FrameError("the file changed while the run was under way")
