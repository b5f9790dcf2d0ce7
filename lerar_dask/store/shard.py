"""One shard per sub: a Zarr v3 sharding-codec file, written and read by our own code.

A shard holds the inner chunks of one sub one after the other and ends with an index: (offset, length) as little-endian
uint64 for each inner chunk in row-major order, then the crc32c of the index. Each inner chunk ends with the crc32c of
its bytes. zarr-python reads and writes the same files (tests compare both ways); for one window it costs 5 to 30 times
more.
"""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c
from numcodecs import blosc

from lerar_dask.errors import SpaceError, StoreError

__all__ = ["INNER_CHUNK", "Shard", "encode_shard", "write_atomically"]

INNER_CHUNK = {"none": 256, "lz4": 128}
"""Side of an inner chunk by codec: fixed, never from the number of subs or memory."""
_MISSING = np.uint64(0xFFFFFFFFFFFFFFFF)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

blosc.use_threads = False


def write_atomically(path: Path, data: bytes | bytearray | memoryview | list) -> int:
    """Write a file so that it appears whole or not at all; returns its size.

    Raises
    ------
    SpaceError
        when the disk is full or read-only.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    parts = data if isinstance(data, list) else [data]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb", buffering=0) as file:
            for part in parts:
                view = memoryview(part).cast("B")
                while len(view):
                    view = view[file.write(view) :]
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno in _FULL:
            raise SpaceError(
                f"{os.strerror(error.errno)}: {path.parent}", "make room and call again: it goes on where it stopped"
            ) from error
        raise
    return sum(len(memoryview(p).cast("B")) for p in parts)


def encode_shard(image: np.ndarray, *, codec: str) -> list:
    """Parts of a shard file of one sub (y, x); edge chunks are padded with zeros."""
    side = INNER_CHUNK[codec]
    height, width = image.shape
    grid = (-(-height // side), -(-width // side))
    index = np.empty((*grid, 2), "<u8")
    parts: list = []
    at = 0
    for cy in range(grid[0]):
        for cx in range(grid[1]):
            piece = image[cy * side : (cy + 1) * side, cx * side : (cx + 1) * side]
            if piece.shape != (side, side):
                padded = np.zeros((side, side), image.dtype)
                padded[: piece.shape[0], : piece.shape[1]] = piece
                piece = padded
            chunk = np.ascontiguousarray(piece)
            data = chunk.tobytes()
            if codec == "lz4":
                data = blosc.compress(chunk, b"lz4", 1, blosc.BITSHUFFLE, 0, chunk.itemsize)
            parts += [data, crc32c(data).to_bytes(4, "little")]
            index[cy, cx] = at, len(data) + 4
            at += len(data) + 4
    tail = index.tobytes()
    return [*parts, tail, crc32c(tail).to_bytes(4, "little")]


class Shard:
    """A shard file opened for windows: its index, parsed once, and which chunks were checked."""

    __slots__ = ("checked", "codec", "dtype", "fill", "grid", "index", "path", "side")

    def __init__(self, path: Path, *, grid: tuple[int, int], dtype: np.dtype, codec: str) -> None:
        self.path, self.grid, self.dtype, self.codec = path, grid, dtype, codec
        self.side = INNER_CHUNK[codec]
        size = 16 * grid[0] * grid[1] + 4
        try:
            with open(path, "rb") as file:
                file.seek(-size, os.SEEK_END)
                tail = file.read(size)
        except OSError as error:
            raise StoreError(f"a shard of the store is missing or cut short: {path}") from error
        if crc32c(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
            raise StoreError(f"a shard of the store is damaged (its index): {path}")
        self.index = np.frombuffer(tail[:-4], "<u8").reshape(*grid, 2)
        self.checked = np.zeros(grid, bool)

    def window(self, y0: int, y1: int, x0: int, x1: int, out: np.ndarray) -> None:
        """Copy rows y0..y1-1, columns x0..x1-1 into `out` (stored dtype)."""
        side = self.side
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for cy in range(y0 // side, -(-y1 // side)):
                for cx in range(x0 // side, -(-x1 // side)):
                    top, left = cy * side, cx * side
                    a, b = max(y0, top), min(y1, top + side)
                    c, d = max(x0, left), min(x1, left + side)
                    self._copy(descriptor, cy, cx, out[a - y0 : b - y0, c - x0 : d - x0], a - top, c - left)
        finally:
            os.close(descriptor)

    def _copy(self, descriptor: int, cy: int, cx: int, out: np.ndarray, row: int, column: int) -> None:
        """One inner chunk's part: whole and checked at first touch, only its rows afterwards (if not packed)."""
        offset, length = (int(v) for v in self.index[cy, cx])
        if offset == int(_MISSING):
            raise StoreError(f"a shard of the store lacks pixels: {self.path}")
        if self.checked[cy, cx] and self.codec == "none":
            width = self.side * self.dtype.itemsize
            data = os.pread(descriptor, out.shape[0] * width, offset + row * width)
            rows = np.frombuffer(data, self.dtype).reshape(out.shape[0], self.side)
            out[...] = rows[:, column : column + out.shape[1]]
            return
        data = os.pread(descriptor, length, offset)
        if not self.checked[cy, cx]:
            if len(data) != length or crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
                raise StoreError(f"a shard of the store is damaged (chunk {cy}, {cx}): {self.path}")
            self.checked[cy, cx] = True
        plain = data[:-4] if self.codec == "none" else blosc.decompress(data[:-4])
        chunk = np.frombuffer(plain, self.dtype).reshape(self.side, self.side)
        out[...] = chunk[row : row + out.shape[0], column : column + out.shape[1]]
