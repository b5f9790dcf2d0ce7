"""One shard per sub: a Zarr v3 sharding-codec file, written and read by our own code.

A shard holds the inner chunks of one sub one after the other and ends with an index: (offset, length) as little-endian
uint64 for each inner chunk in row-major order, then the crc32c of the index. Each inner chunk ends with the crc32c of
its bytes. zarr-python reads and writes the same files (tests compare both ways); for one window it costs 5 to 30 times
more.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np
from google_crc32c import value as crc32c
from numcodecs import blosc

from lerar_dask.errors import DamagedError, damaged_part, unreadable_part
from lerar_dask.store.storage import Place, Ranges, ReplacedError

__all__ = ["Shard", "inner_chunk", "shard_parts"]

_SIDE = {"none": 256, "lz4": 128}
"""About the side of an inner chunk by codec: fixed, never from the number of subs or memory."""
_MISSING = 0xFFFFFFFFFFFFFFFF
_CRC = 4
_MOST_OF = 0.7
"""Share of a chunk's rows from which on neighboring chunks are read in one call, what lies between included."""
_scratch = threading.local()

blosc.use_threads = False


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

    __slots__ = ("checked", "chunk", "codec", "dtype", "identity", "lengths", "n_columns", "offsets", "place")

    def __init__(
        self, place: Place, *, grid: tuple[int, int], chunk: tuple[int, int], dtype: np.dtype, codec: str
    ) -> None:
        self.place, self.dtype, self.codec, self.chunk = place, dtype, codec, chunk
        self.n_columns = grid[1]
        self._read_index(grid[0] * grid[1])

    def window(self, y0: int, y1: int, x0: int, x1: int, out: np.ndarray) -> bool:
        """Copy rows y0..y1-1, columns x0..x1-1 into `out` (stored dtype); False when it was replaced meanwhile."""
        height, width = self.chunk
        ranges = self._open()
        try:
            if ranges.identity != self.identity:
                return False
            for cy in range(y0 // height, -(-y1 // height)):
                a, b = max(y0 - cy * height, 0), min(y1 - cy * height, height)
                to = out[cy * height + a - y0 : cy * height + b - y0]
                first, last = cy * self.n_columns + x0 // width, cy * self.n_columns + -(-x1 // width)
                source = self._ahead(ranges, first, last)
                together = self._run(source, first, last, a, b) if b - a > _MOST_OF * height else None
                for chunk in range(first, last):
                    left = (chunk - cy * self.n_columns) * width
                    c, d = max(x0 - left, 0), min(x1 - left, width)
                    rows = self._rows(source, chunk, a, b) if together is None else together[chunk - first]
                    to[:, left + c - x0 : left + d - x0] = rows[:, c:d]
        except ReplacedError:
            return False
        finally:
            ranges.close()
        return True

    def _ahead(self, ranges: Ranges, first: int, last: int) -> Ranges:
        """What neighboring chunks are read from: their bytes fetched in one request, where requests are what costs."""
        most = self.place.storage.in_vain_bytes
        if not most or (self.offsets[first:last] == _MISSING).any():
            return ranges
        start = int(self.offsets[first:last].min())
        stop = int((self.offsets[first:last] + self.lengths[first:last]).max())
        if stop - start > int(self.lengths[first:last].sum()) + most:
            return ranges
        data = _buffer("ahead", stop - start)
        self._read(ranges, data, start, first)
        return _Fetched(data, start, ranges.identity, ranges.size)

    def _run(self, ranges: Ranges, first: int, last: int, a: int, b: int) -> np.ndarray | None:
        """Rows a..b-1 of neighboring chunks, (chunk, row, column), in one read; None where they do not allow it."""
        offsets, width = self.offsets[first:last], self.chunk[1] * self.dtype.itemsize
        step = width * self.chunk[0] + _CRC
        if self.codec != "none" or step % self.dtype.itemsize or not self.checked[first:last].all():
            return None
        if int(offsets[-1]) - int(offsets[0]) != (last - 1 - first) * step:
            return None
        data = _buffer("packed", (last - 1 - first) * step + (b - a) * width)
        self._read(ranges, data, int(offsets[0]) + a * width, first)
        return np.ndarray(
            (last - first, b - a, self.chunk[1]), self.dtype, data.data, strides=(step, width, self.dtype.itemsize)
        )

    def _rows(self, ranges: Ranges, chunk: int, a: int, b: int) -> np.ndarray:
        """Rows a..b-1 of an inner chunk, in a buffer of this thread; its crc is checked at the first touch."""
        offset, length = int(self.offsets[chunk]), int(self.lengths[chunk])
        if offset == _MISSING:
            raise damaged_part(self.place, "lacks pixels")
        width = self.chunk[1] * self.dtype.itemsize
        if self.codec == "none" and self.checked[chunk]:
            data = _buffer("packed", (b - a) * width)
            self._read(ranges, data, offset + a * width, chunk)
            return data.view(self.dtype).reshape(b - a, self.chunk[1])
        data = _buffer("packed", length)
        self._read(ranges, data, offset, chunk)
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

    def _read(self, ranges: Ranges, data: np.ndarray, offset: int, chunk: int) -> None:
        try:
            got = ranges.read_into(data, offset)
        except ReplacedError:
            raise
        except OSError as error:
            raise unreadable_part(self.place, error) from error
        if got != len(data):
            raise self._damaged(chunk)

    def _read_index(self, n_chunks: int) -> None:
        """Parse and check the index; nothing in it may point outside of the shard."""
        buffer = np.empty(16 * n_chunks + _CRC, np.uint8)
        ranges = self._open()
        try:
            self.identity = ranges.identity
            start = ranges.size - len(buffer)
            got = ranges.read_into(buffer, max(start, 0))
        except OSError as error:
            raise unreadable_part(self.place, error) from error
        finally:
            ranges.close()
        tail = buffer.tobytes()
        if start < 0 or got != len(tail):
            raise damaged_part(self.place, "is cut short")
        if crc32c(tail[:-_CRC]) != int.from_bytes(tail[-_CRC:], "little"):
            raise damaged_part(self.place, "is damaged (its index)")
        index = np.frombuffer(tail[:-_CRC], "<u8").reshape(n_chunks, 2)
        there = index[:, 0] != _MISSING
        plain = self.chunk[0] * self.chunk[1] * self.dtype.itemsize
        shortest, longest = (plain + _CRC,) * 2 if self.codec == "none" else (16 + _CRC, plain + 16 + _CRC)
        ends = index[there].astype(float).sum(axis=1)  # float: no wrap-around of hostile numbers
        fits = (index[there, 1] >= shortest) & (index[there, 1] <= longest) & (ends <= start)
        if not fits.all():
            raise damaged_part(self.place, "is damaged (its index)")
        # 13 bytes per inner chunk stay in memory for every shard that was touched.
        self.offsets = index[:, 0].copy()
        self.lengths = index[:, 1].astype(np.uint32)
        self.checked = np.zeros(n_chunks, bool)

    def _open(self) -> Ranges:
        try:
            return self.place.storage.open_ranges(self.place.path)
        except OSError as error:
            raise unreadable_part(self.place, error) from error

    def _damaged(self, chunk: int) -> DamagedError:
        return damaged_part(self.place, f"is damaged (inner chunk {divmod(chunk, self.n_columns)})")


@dataclass(frozen=True)
class _Fetched:
    """Bytes of an object in memory."""

    data: np.ndarray
    start: int
    identity: Hashable
    size: int

    def read_into(self, buffer: np.ndarray, offset: int) -> int:
        """Fill bytes (uint8) from an offset; how many there were."""
        part = self.data[offset - self.start : offset - self.start + len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Nothing is open."""


def _buffer(name: str, size: int) -> np.ndarray:
    """Bytes of this thread, used again from chunk to chunk."""
    buffer = getattr(_scratch, name, None)
    if buffer is None or len(buffer) < size:
        buffer = np.empty(size, np.uint8)
        setattr(_scratch, name, buffer)
    return buffer[:size]
