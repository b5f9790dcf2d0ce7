"""FITS HDUs written in bands of rows, so that an image larger than memory can be written, with checksums.

In: headers of astropy, rows of float32 (counts are written as integers). Out: one file that appears under its name only
when it is complete.

The sizes of all HDUs are known from their headers, so that bands of several images can be written in turn; headers are
written last, when the sums are known. astropy's own checksum path holds a whole HDU in memory and sums it in Python.
"""

from __future__ import annotations

import contextlib
import io
import os
import unicodedata
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lerar_dask.errors import space_error
from lerar_dask.kernels.output.words import turn_words

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["FitsWriter", "ascii_text", "atomic_path", "image_header"]

_BLOCK = 2880


_TEXT_OF_BITS = {-32: "32-bit floating point", 16: "16-bit integers", 32: "32-bit integers"}


def image_header(shape: tuple[int, ...], *, primary: bool, name: str, bits: int = -32) -> fits.Header:
    """Header of an image, `shape` in numpy order, `bits` as FITS counts them; other cards are added behind."""
    from astropy.io import fits

    header = fits.Header()
    if primary:
        header["SIMPLE"] = (True, "conforms to FITS standard")
    else:
        header["XTENSION"] = ("IMAGE", "image extension")
    header["BITPIX"] = (bits, _TEXT_OF_BITS[bits])
    header["NAXIS"] = (len(shape), "number of axes")
    for axis, length in enumerate(reversed(shape), start=1):
        header[f"NAXIS{axis}"] = length
    if primary:
        header["EXTEND"] = (True, "extensions follow")
    else:
        header["PCOUNT"] = 0
        header["GCOUNT"] = 1
    header["EXTNAME"] = name
    return header


def ascii_text(text: object) -> str:
    """Printable ASCII, which is all that a FITS card may hold; accents are dropped, the rest becomes `?`."""
    plain = unicodedata.normalize("NFKD", str(text))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in plain)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` when the block ends well, and is removed when not.

    Raises
    ------
    SpaceError
        when the disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")  # that nobody can put a link in its place
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if full := space_error(error, path, writing=True):
            raise full from error
        raise
    finally:
        partial.unlink(missing_ok=True)


class FitsWriter:
    """Writes the images and tables of one FITS file; use as a context manager around `atomic_path`'s path."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._end = 0
        self._images: list[_Image] = []
        self._words = np.empty(0, np.uint32)

    def __enter__(self) -> FitsWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._write_headers()
        finally:
            os.close(self._fd)

    def add_image(self, header: fits.Header, shape: tuple[int, ...]) -> int:
        """Make room for an image of `shape`; returns its index for `write_rows`."""
        header["DATASUM"] = ("0", "data unit checksum")
        header["CHECKSUM"] = ("0" * 16, "HDU checksum")
        image = _Image(header, shape, self._end)
        self._images.append(image)
        self._end = image.data_start + _padded(image.item_bytes * int(np.prod(shape)))
        os.ftruncate(self._fd, self._end)
        return len(self._images) - 1

    def write_rows(self, index: int, row: int, rows: np.ndarray) -> None:
        """Write whole rows of an image.

        Parameters
        ----------
        row : int                    counted over all leading axes: plane * height + y
        rows : (h, x) float32; for an image of integers whole numbers, NaN becomes 0
        """
        image = self._images[index]
        at = image.data_start + image.item_bytes * row * image.shape[-1]
        if image.is_counts:
            counts = np.where(np.isnan(rows), np.float32(0.0), rows).astype(f">i{image.item_bytes}")
            image.sum += _word_sum(counts, row * image.shape[-1])
            _write_all(self._fd, counts, at)
            return
        if self._words.size < rows.size:
            self._words = np.empty(rows.size, np.uint32)
        words = self._words[: rows.size].reshape(rows.shape)
        image.sum += turn_words(np.ascontiguousarray(rows, np.float32), words)
        _write_all(self._fd, words, at)

    def add_table(self, table: fits.BinTableHDU) -> None:
        """Append a table whole; without the time of day that astropy notes beside its sums."""
        from astropy.io import fits

        buffer = io.BytesIO()
        table.add_checksum(when="of this HDU")
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(buffer)
        block = buffer.getvalue()[_BLOCK:]
        _write_all(self._fd, np.frombuffer(block, np.uint8), self._end)
        self._end += len(block)

    def _write_headers(self) -> None:
        for image in self._images:
            image.header["DATASUM"] = str(_fold(image.sum))
            words = np.frombuffer(image.header.tostring().encode("ascii"), ">u4")
            image.header["CHECKSUM"] = _encode(_fold(int(words.sum(dtype=np.uint64)) + image.sum))
            text = image.header.tostring().encode("ascii")
            assert len(text) == image.data_start - image.start
            _write_all(self._fd, np.frombuffer(text, np.uint8), image.start)


class _Image:
    """Where an image lies in the file, and the sum of its words so far."""

    def __init__(self, header: fits.Header, shape: tuple[int, ...], start: int) -> None:
        self.header, self.shape, self.start = header, shape, start
        self.is_counts, self.item_bytes = header["BITPIX"] > 0, abs(header["BITPIX"]) // 8
        self.data_start = start + len(header.tostring())
        self.sum = 0


def _write_all(fd: int, data: np.ndarray, offset: int) -> None:
    view: Any = memoryview(data.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    while view:
        n = os.pwrite(fd, view, offset)
        view, offset = view[n:], offset + n


def _word_sum(counts: np.ndarray, first: int) -> int:
    """Sum of 32-bit words of big-endian integers, of which the first is number `first` of its image."""
    if counts.dtype.itemsize == 4:
        return int(counts.view(">u4").sum(dtype=np.uint64))
    halves = counts.reshape(-1).view(">u2")
    upper, lower = halves[first % 2 :: 2], halves[1 - first % 2 :: 2]
    return (int(upper.sum(dtype=np.uint64)) << 16) + int(lower.sum(dtype=np.uint64))


def _padded(n: int) -> int:
    return -(-n // _BLOCK) * _BLOCK


def _fold(total: int) -> int:
    """Ones' complement sum of 32-bit words: carries go round."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _encode(total: int) -> str:
    """ASCII form of the complement of a sum (FITS standard 4.0, appendix J): 16 letters and digits."""
    value = 0xFFFFFFFF ^ total
    letters = [[0] * 4 for _ in range(4)]
    for i in range(4):
        byte = value >> (24 - 8 * i) & 0xFF
        letters[i] = [byte // 4 + 48] * 4
        letters[i][0] += byte % 4
        while any(_is_punctuation(c) for c in letters[i]):
            for a, b in ((0, 1), (2, 3)):
                if _is_punctuation(letters[i][a]) or _is_punctuation(letters[i][b]):
                    letters[i][a] += 1
                    letters[i][b] -= 1
    text = "".join(chr(letters[i][j]) for j in range(4) for i in range(4))
    return text[-1] + text[:-1]


def _is_punctuation(code: int) -> bool:
    return 0x3A <= code <= 0x40 or 0x5B <= code <= 0x60
