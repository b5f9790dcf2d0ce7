"""Frame: a file, its header, where its pixels lie, or why it cannot be used; and the ways to its pixels.

A frame is found by `probe(path)` (header only, bounded bytes, no pixel memory); a reader is chosen by magic bytes, the
suffix serves messages only. Physical value = stored * scale + zero.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames.header import Header
from lerar_dask.kernels.calibrate import into_stack, swap_words

__all__ = ["Frame", "PixelSource", "RawPixels", "band_of", "fill_band", "map_pixels", "map_words", "read_pixels"]


@dataclass(frozen=True, kw_only=True)
class PixelSource:
    """Where the pixels of a frame lie and how they are to be understood."""

    layout: str
    """plain: uncompressed at `offset`; astropy: compressed or odd, read whole by astropy."""
    hdu: int
    """Number of the HDU that holds the image."""
    offset: int
    dtype: str
    """As stored in the file, big-endian: '>i2', '>f4' ..."""
    scale: float
    zero: float
    blank: int | None
    lossy: bool = False
    """Floats that were quantized by tile compression."""
    factor: float = 1.0
    """Brings the file's numbers to the unit of the other frames."""
    less: float = 0.0
    """A pedestal that a program has added and says so, in the file's numbers: taken off."""

    @property
    def is_unsigned(self) -> bool:
        """Integers with the offset that makes them unsigned: kept as unsigned integers."""
        bits = {">i2": 2.0**15, ">i4": 2.0**31}
        return self.scale == 1.0 and self.dtype in bits and self.zero == bits[self.dtype]

    @property
    def stored_dtype(self) -> str:
        """Type in which the store keeps the pixels."""
        if self.is_unsigned:
            return {">i2": "uint16", ">i4": "uint32"}[self.dtype]
        return np.dtype(self.dtype).newbyteorder("=").name

    @property
    def stored_scale(self) -> tuple[float, float]:
        """Scale and zero of the stored pixels."""
        scale, zero = (1.0, 0.0) if self.is_unsigned else (self.scale, self.zero)
        return scale * self.factor, (zero - self.less) * self.factor


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A file of the night."""

    path: Path
    size: int
    mtime_ns: int
    header: Header
    shape: tuple[int, int] = (0, 0)
    """Rows, columns."""
    pixels: PixelSource | None = None
    problem: str = ""
    """Why it cannot be used, in words; empty when it can."""

    @property
    def saturation(self) -> float | None:
        """Saturation level as a header tells it, in the unit of the frame's values; a level of 0 tells nothing."""
        level, pixels = self.header.saturation_adu, self.pixels
        return (level - pixels.less) * pixels.factor if level and pixels else None


@dataclass(frozen=True)
class RawPixels:
    """Pixels as they are stored."""

    data: np.ndarray
    """(y, x), native byte order."""
    scale: float
    zero: float
    blank: float | None


def map_pixels(frame: Frame) -> np.ndarray:
    """Big-endian view (y, x) of a plain file's pixels, mapped; unsigned ones still need their sign bit turned."""
    source = _source(frame)
    if source.layout != "plain":
        raise FrameError("its pixels are compressed and cannot be mapped")
    _check_unchanged(frame)
    return np.memmap(frame.path, source.dtype, "r", source.offset, frame.shape)


def map_words(frame: Frame) -> np.ndarray | None:
    """The words (y, x) uint16 of a plain file of unsigned 16 bit pixels, mapped, bytes not swapped; None for others."""
    source = _source(frame)
    if source.layout != "plain" or source.dtype != ">i2" or not source.is_unsigned or source.blank is not None:
        return None
    if source.stored_scale != (1.0, 0.0):
        return None
    return np.asarray(map_pixels(frame)).view("=u2")


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


def band_of(frame: Frame, y0: int, y1: int, *, step: int = 1) -> np.ndarray:
    """Physical values of rows y0, y0 + step, ... below y1, float32; missing ones NaN."""
    source = _source(frame)
    stored = band_stored(frame, y0, y1, step=step)
    scale, zero = source.stored_scale
    values = stored.astype(np.float32)
    if (scale, zero) != (1.0, 0.0):
        values = (stored.astype(np.float64) * scale + zero).astype(np.float32)
    if source.blank is not None:
        blank = source.blank + (int(source.zero) if source.is_unsigned else 0)
        values[stored == blank] = np.nan
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
    words = map_words(frame)
    if words is not None:
        below = np.zeros((0, 0), np.float32) if pedestal is None else np.ascontiguousarray(pedestal, np.float32)
        into_stack(words[y0:y1], np.uint16(0x8000), below, np.float32(factor), stack, i)
        return
    stack[:, i] = band_of(frame, y0, y1)
    if pedestal is not None:
        stack[:, i] -= pedestal
    stack[:, i] *= np.float32(factor)


def band_stored(frame: Frame, y0: int, y1: int, *, step: int = 1) -> np.ndarray:
    """Rows as stored, native byte order."""
    source = _source(frame)
    if source.layout != "plain":
        from lerar_dask.frames.fits import read_with_astropy

        _check_unchanged(frame)
        return read_with_astropy(frame, y0, y1)[::step]
    rows = map_pixels(frame)[y0:y1:step]
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


def _check_unchanged(frame: Frame) -> None:
    """A mapped file that is cut short ends the process: look at its size first."""
    try:
        now = os.stat(frame.path)
    except OSError as error:
        raise FrameError(f"it can no longer be read ({error.strerror})") from error
    if (now.st_size, now.st_mtime_ns) != (frame.size, frame.mtime_ns):
        raise FrameError("the file changed while the run was under way")
