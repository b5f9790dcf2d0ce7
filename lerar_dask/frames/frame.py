"""Frame: a file of the night, its header, where its pixels lie, or why it cannot be used.

Physical value = stored * scale + zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerar_dask.frames.header import Header

__all__ = ["Frame", "PixelSource", "RawPixels"]


@dataclass(frozen=True, kw_only=True)
class PixelSource:
    """Where the pixels of a frame lie and how they are to be understood."""

    layout: str
    """plain: uncompressed at `offset`; gzip: the same, in a gzipped file; packed: compressed by tiles."""
    hdu: int
    """Number of the HDU that holds the image."""
    offset: int
    dtype: str
    """As stored in the file, big-endian: '>i2', '>f4' ..."""
    scale: float
    zero: float
    blank: int | None
    format: str = "FITS"
    """Name of the reader that knows how to unpack it."""
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
    n_planes: int = 1
    """3 for an image of three colors, which is no sub (then there is a problem, or it is a stack)."""
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
