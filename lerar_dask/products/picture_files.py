"""Pictures as files: FITS that keeps its state, PNG and TIFF of 16 bits, JPEG of 8, all with the profile sRGB.

In: a picture by bands of rows, (channel, y, x) float32 in 0..1 (FITS: any), so that a huge one need not be in memory.
Out: one file each. The first row of the array is the top of the picture, unless the rows are said to run upwards.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lerar_dask.kernels.output.binning import area_means
from lerar_dask.products.fits import put_cards, put_history
from lerar_dask.products.hdus import FitsWriter, atomic_path, image_header
from lerar_dask.products.provenance import program

__all__ = [
    "BAND_ROWS",
    "JPEG_PX",
    "STATE_CARD",
    "PictureImage",
    "jpeg_factor",
    "srgb_profile",
    "write_fits",
    "write_jpeg",
    "write_png",
    "write_tiff",
]

STATE_CARD = "LERSTATE"
"""Says whether an image is linear or stretched."""
BAND_ROWS = 256
"""Rows that are written at a time."""
_LONGEST_JPEG = 16_000
JPEG_PX = 1 << 26
"""Pixels of a JPEG at most: it is there to be looked at."""
_DATE_OF_PROFILE = slice(24, 36)
ReadRows = Callable[[int, int], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class PictureImage:
    """A picture, or a step on the way to it."""

    read_rows: ReadRows
    """(y0, y1) -> (channel, y1 - y0, x) float32; NaN = no data."""
    shape: tuple[int, int, int]
    """Channels (1 or 3), rows, columns."""
    state: Literal["linear", "stretched"] = "stretched"
    bottom_up: bool = False
    cards: Mapping[str, Any] = field(default_factory=dict)
    """Header words: value or (value, comment)."""
    history: Sequence[str] = ()
    """What was done, a line each."""


def write_fits(path: Path, image: PictureImage) -> None:
    """Write as FITS, (y, x) or (3, y, x) float32."""
    channels, height, _ = image.shape
    shape = image.shape if channels > 1 else image.shape[1:]
    header = image_header(shape, primary=True, name="SCI")
    put_cards(header, {STATE_CARD: (image.state, "linear or stretched"), **image.cards, "PROGRAM": (program(), "")})
    put_history(header, image.history)
    with atomic_path(path) as partial, FitsWriter(partial) as file:
        file.add_image(header, shape)
        for y0, rows in _bands(image, order=1):
            for channel in range(channels):
                file.write_rows(0, channel * height + y0, rows[channel])


def write_png(path: Path, image: PictureImage) -> None:
    """Write as PNG of 16 bits per channel (W3C PNG 3rd edition), row by row.

    Pillow has no such color pictures, and would hold all of one in memory.
    """
    channels, height, width = image.shape
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 0, 0, 0, 0)
    with atomic_path(path) as partial, open(partial, "xb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", head)
        _chunk(file, b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile()))
        packer = zlib.compressobj(4)
        above = np.zeros(width * channels * 2, np.uint8)
        for _, rows in _bands(image):
            plain = _words(rows, ">u2").view(np.uint8).reshape(rows.shape[1], -1)
            # Filter 2 ("up"): what is above is taken off, byte by byte.
            filtered = np.empty((len(plain), plain.shape[1] + 1), np.uint8)
            filtered[:, 0] = 2
            filtered[:, 1:] = plain - np.concatenate([above[None], plain[:-1]])
            above = plain[-1].copy()
            if packed := packer.compress(filtered.tobytes()):
                _chunk(file, b"IDAT", packed)
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def write_tiff(path: Path, image: PictureImage) -> None:
    """Write as TIFF of 16 bits per channel, in strips; beyond 4 GB as BigTIFF."""
    import tifffile

    channels, height, width = image.shape

    def strips() -> Iterator[np.ndarray]:
        for _, rows in _bands(image):
            words = _words(rows, "<u2")
            yield words if channels == 3 else words[..., 0]

    with (
        atomic_path(path) as partial,
        tifffile.TiffWriter(partial, bigtiff=channels * height * width * 2 > 3 << 30) as file,
    ):
        file.write(
            strips(),
            shape=(height, width, 3) if channels == 3 else (height, width),
            dtype="<u2",
            photometric="rgb" if channels == 3 else "minisblack",
            planarconfig="contig" if channels == 3 else None,
            rowsperstrip=BAND_ROWS,
            iccprofile=srgb_profile() if channels == 3 else None,
            software=program(),
            metadata=None,
        )


def write_jpeg(path: Path, image: PictureImage) -> tuple[int, int]:
    """Write as JPEG of 8 bits, smaller where it would have more than `JPEG_PX` pixels; rows and columns written.

    It is put together in memory, at four bytes a pixel.
    """
    from PIL import Image

    channels, height, width = image.shape
    factor = jpeg_factor(height, width)
    size = -(-width // factor), -(-height // factor)
    picture = Image.new("RGB" if channels == 3 else "L", size)
    for y0, rows in _bands(image, step=max(factor, BAND_ROWS // factor * factor)):
        small = area_means(np.ascontiguousarray(rows), factor)
        bytes_ = np.moveaxis((np.nan_to_num(np.clip(small, 0, 1)) * 255 + 0.5).astype(np.uint8), 0, -1)
        band = np.ascontiguousarray(bytes_ if channels == 3 else bytes_[..., 0])
        picture.paste(Image.fromarray(band), (0, y0 // factor))
    with atomic_path(path) as partial, open(partial, "xb") as file:
        picture.save(file, format="JPEG", quality=93, subsampling=0, icc_profile=srgb_profile())
    return size[1], size[0]


def jpeg_factor(height: int, width: int) -> int:
    """By how much a picture is reduced as JPEG."""
    return max(1, -(-max(height, width) // _LONGEST_JPEG), int(np.ceil(np.sqrt(height * width / JPEG_PX))))


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """ICC profile of sRGB, always the same bytes."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[_DATE_OF_PROFILE] = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    return bytes(profile)


def _bands(image: PictureImage, *, step: int = BAND_ROWS, order: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """First row and rows of bands, from the top of the picture down; `order` 1: as the array has them."""
    height = image.shape[1]
    upwards = image.bottom_up and not order
    for at in range(0, height, step):
        y0, y1 = at, min(at + step, height)
        if upwards:
            yield at, image.read_rows(height - y1, height - y0)[:, ::-1]
        else:
            yield at, image.read_rows(y0, y1)


def _words(rows: np.ndarray, dtype: str) -> np.ndarray:
    """(y, x, channel) whole numbers of 16 bits; no data is black."""
    scaled = np.nan_to_num(np.clip(rows, 0, 1)) * np.float32(65535) + np.float32(0.5)
    return np.ascontiguousarray(np.moveaxis(scaled, 0, -1)).astype(dtype)


def _chunk(file: Any, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
