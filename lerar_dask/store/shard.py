"""One shard per sub: a Zarr v3 sharding-codec file, written and read by our own code.

A shard holds the inner chunks of one sub one after the other and ends with an index: (offset, length) as little-endian
uint64 for each inner chunk in row-major order, then the crc32c of the index. Each inner chunk ends with the crc32c of
its bytes. zarr-python reads and writes the same files (tests compare both ways); for one window it costs 5 to 30 times
more.

Windows are read with `pread`, not through a memory map: a map is 0.1 ns per pixel faster, but its pages count as ours,
a read error or a file cut short under it ends the process (SIGBUS), and letting its pages go interrupts all cores.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c
from numcodecs import blosc

from lerar_dask.errors import DamagedError, damaged_part, space_error, unreadable_part

__all__ = ["Shard", "file_identity", "inner_chunk", "shard_parts", "write_atomically"]

_SIDE = {"none": 256, "lz4": 128}
"""About the side of an inner chunk by codec: fixed, never from the number of subs or memory."""
"""Errors that no other task would escape."""
_MISSING = 0xFFFFFFFFFFFFFFFF
_CRC = 4
_MOST_OF = 0.7
"""Share of a chunk's rows from which on neighboring chunks are read in one call, what lies between included."""
_scratch = threading.local()

blosc.use_threads = False


def write_atomically(path: Path, data: bytes | memoryview | np.ndarray | Iterable) -> int:
    """Write a file so that it appears whole or not at all; returns its size.

    Parameters
    ----------
    data : one buffer, or buffers one after the other (an iterator may reuse its buffer)

    Raises
    ------
    SpaceError
        when the disk is full or read-only.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    parts = [data] if isinstance(data, bytes | bytearray | memoryview | np.ndarray) else data
    try:
        try:
            size = _write_parts(partial, parts)
            _name(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        if full := space_error(error, path.parent, writing=True):
            raise full from error
        raise
    return size


def _name(partial: Path, path: Path) -> None:
    """Give a file its name; a folder that stands in its place makes way, to be swept."""
    try:
        os.replace(partial, path)
    except IsADirectoryError:
        path.rename(path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial"))
        os.replace(partial, path)


def _write_parts(path: Path, parts: Iterable) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o644)
    size = 0
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            size += len(view)
            while len(view):
                view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
    return size


def inner_chunk(shape: tuple[int, int], codec: str) -> tuple[int, int]:
    """Rows and columns of the inner chunks of a frame: fours of pixels, and a whole number of them just covers it.

    Chunks of 256 px would hold 14 % of padding for a sensor of 4144 x 2822. Sides are multiples of 4 because blosc
    leaves a buffer unshuffled, and so as large as it was, whose items are not a multiple of 8.

    >>> inner_chunk((2822, 4144), "none")
    (260, 260)
    """
    counts = (max(1, round(n / _SIDE[codec])) for n in shape)
    rows, columns = (-(-n // count) for n, count in zip(shape, counts, strict=True))
    return rows + -rows % 4, columns + -columns % 4


def shard_parts(image: np.ndarray, *, chunk: tuple[int, int], codec: str) -> Iterator[np.ndarray | bytes]:
    """A sub (y, x) as the buffers of its shard file, one row of inner chunks at a time; edges are padded with zeros.

    A row of chunks stays in the processor's cache from here to the page cache; the buffer is used again for the next.
    """
    height, width = chunk
    dtype = image.dtype.newbyteorder("<")
    n_rows, n_columns = (-(-n // side) for n, side in zip(image.shape, chunk, strict=True))
    index = np.empty((n_rows * n_columns, 2), "<u8")
    band = np.zeros((n_columns, height * width * dtype.itemsize + _CRC), np.uint8)
    at = 0
    for cy in range(n_rows):
        rows = image[cy * height : (cy + 1) * height]
        if len(rows) < height:
            band[...] = 0
        for cx in range(n_columns):
            columns = rows[:, cx * width : (cx + 1) * width]
            plain = band[cx, :-_CRC]
            plain.view(dtype).reshape(chunk)[: columns.shape[0], : columns.shape[1]] = columns
            if codec == "none":
                band[cx, -_CRC:] = np.frombuffer(crc32c(plain).to_bytes(_CRC, "little"), np.uint8)
                length = band.shape[1]
            else:
                packed = blosc.compress(plain.view(dtype), b"lz4", 1, blosc.BITSHUFFLE, 0, dtype.itemsize)
                yield packed
                yield crc32c(packed).to_bytes(_CRC, "little")
                length = len(packed) + _CRC
            index[cy * n_columns + cx] = at, length
            at += length
        if codec == "none":
            yield band
    yield index
    yield crc32c(index).to_bytes(_CRC, "little")


class Shard:
    """What is known of a shard file: its index, parsed once, and which inner chunks were checked."""

    __slots__ = ("checked", "chunk", "codec", "dtype", "identity", "lengths", "n_columns", "offsets", "path")

    def __init__(
        self, path: Path, *, grid: tuple[int, int], chunk: tuple[int, int], dtype: np.dtype, codec: str
    ) -> None:
        self.path, self.dtype, self.codec, self.chunk = path, dtype, codec, chunk
        self.n_columns = grid[1]
        self._read_index(grid[0] * grid[1])

    def window(self, y0: int, y1: int, x0: int, x1: int, out: np.ndarray) -> bool:
        """Copy rows y0..y1-1, columns x0..x1-1 into `out` (stored dtype); False when the file was replaced meanwhile."""
        height, width = self.chunk
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable_part(self.path, error) from error
        try:
            if file_identity(descriptor) != self.identity:
                return False
            for cy in range(y0 // height, -(-y1 // height)):
                a, b = max(y0 - cy * height, 0), min(y1 - cy * height, height)
                to = out[cy * height + a - y0 : cy * height + b - y0]
                first, last = cy * self.n_columns + x0 // width, cy * self.n_columns + -(-x1 // width)
                together = self._run(descriptor, first, last, a, b) if b - a > _MOST_OF * height else None
                for chunk in range(first, last):
                    left = (chunk - cy * self.n_columns) * width
                    c, d = max(x0 - left, 0), min(x1 - left, width)
                    rows = self._rows(descriptor, chunk, a, b) if together is None else together[chunk - first]
                    to[:, left + c - x0 : left + d - x0] = rows[:, c:d]
        finally:
            os.close(descriptor)
        return True

    def _run(self, descriptor: int, first: int, last: int, a: int, b: int) -> np.ndarray | None:
        """Rows a..b-1 of neighboring chunks, (chunk, row, column), by one call; None where they do not allow it."""
        offsets, width = self.offsets[first:last], self.chunk[1] * self.dtype.itemsize
        step = width * self.chunk[0] + _CRC
        if self.codec != "none" or step % self.dtype.itemsize or not self.checked[first:last].all():
            return None
        if int(offsets[-1]) - int(offsets[0]) != (last - 1 - first) * step:
            return None
        data = _buffer("packed", (last - 1 - first) * step + (b - a) * width)
        self._read(descriptor, data, int(offsets[0]) + a * width, first)
        return np.ndarray(
            (last - first, b - a, self.chunk[1]), self.dtype, data.data, strides=(step, width, self.dtype.itemsize)
        )

    def _rows(self, descriptor: int, chunk: int, a: int, b: int) -> np.ndarray:
        """Rows a..b-1 of an inner chunk, in a buffer of this thread; its crc is checked at the first touch."""
        offset, length = int(self.offsets[chunk]), int(self.lengths[chunk])
        if offset == _MISSING:
            raise damaged_part(self.path, "lacks pixels")
        width = self.chunk[1] * self.dtype.itemsize
        if self.codec == "none" and self.checked[chunk]:
            data = _buffer("packed", (b - a) * width)
            self._read(descriptor, data, offset + a * width, chunk)
            return data.view(self.dtype).reshape(b - a, self.chunk[1])
        data = _buffer("packed", length)
        self._read(descriptor, data, offset, chunk)
        if not self.checked[chunk]:
            if crc32c(data[:-_CRC]) != int.from_bytes(data[-_CRC:].tobytes(), "little"):
                raise self._damaged(chunk)
            self.checked[chunk] = True
        plain = data[:-_CRC]
        if self.codec != "none":
            plain = _buffer("plain", self.chunk[0] * width)
            try:
                blosc.decompress(data[:-_CRC], plain)
            except (ValueError, RuntimeError) as error:
                raise self._damaged(chunk) from error
        return plain.view(self.dtype).reshape(self.chunk)[a:b]

    def _read(self, descriptor: int, data: np.ndarray, offset: int, chunk: int) -> None:
        try:
            got = os.preadv(descriptor, [data.data], offset)
        except OSError as error:
            raise unreadable_part(self.path, error) from error
        if got != len(data):
            raise self._damaged(chunk)

    def _read_index(self, n_chunks: int) -> None:
        """Parse and check the index; nothing in it may point outside of the file."""
        size = 16 * n_chunks + _CRC
        try:
            with open(self.path, "rb") as file:
                self.identity = file_identity(file.fileno())
                start = self.identity[1] - size
                tail = os.pread(file.fileno(), size, max(start, 0))
        except OSError as error:
            raise unreadable_part(self.path, error) from error
        if start < 0 or len(tail) != size:
            raise damaged_part(self.path, "is cut short")
        if crc32c(tail[:-_CRC]) != int.from_bytes(tail[-_CRC:], "little"):
            raise damaged_part(self.path, "is damaged (its index)")
        index = np.frombuffer(tail[:-_CRC], "<u8").reshape(n_chunks, 2)
        there = index[:, 0] != _MISSING
        plain = self.chunk[0] * self.chunk[1] * self.dtype.itemsize
        shortest, longest = (plain + _CRC,) * 2 if self.codec == "none" else (16 + _CRC, plain + 16 + _CRC)
        ends = index[there].astype(float).sum(axis=1)  # float: no wrap-around of hostile numbers
        fits = (index[there, 1] >= shortest) & (index[there, 1] <= longest) & (ends <= start)
        if not fits.all():
            raise damaged_part(self.path, "is damaged (its index)")
        # 13 bytes per inner chunk stay in memory for every shard that was touched.
        self.offsets = index[:, 0].copy()
        self.lengths = index[:, 1].astype(np.uint32)
        self.checked = np.zeros(n_chunks, bool)

    def _damaged(self, chunk: int) -> DamagedError:
        return damaged_part(self.path, f"is damaged (inner chunk {divmod(chunk, self.n_columns)})")


def file_identity(descriptor: int) -> tuple[int, int, int]:
    """A shard is only ever replaced, never changed: another file has another identity."""
    status = os.fstat(descriptor)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _buffer(name: str, size: int) -> np.ndarray:
    """Bytes of this thread, used again from chunk to chunk."""
    buffer = getattr(_scratch, name, None)
    if buffer is None or len(buffer) < size:
        buffer = np.empty(size, np.uint8)
        setattr(_scratch, name, buffer)
    return buffer[:size]
