"""Reader of the raw pixels of one frame geometry, by windows; safe for any number of threads.

A process may outlive a run (a dask worker at an address): shards and array descriptions that were replaced since are
noticed and read anew.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable

import numpy as np

from lerar_dask.errors import StoreError, damaged_part, unreadable_part
from lerar_dask.store.document import NODE, read_array_node
from lerar_dask.store.shard import Shard
from lerar_dask.store.storage import Place

__all__ = ["RawReader"]

_TRIES = 3


class RawReader:
    """Raw pixels (slot, y, x); an index of 13 bytes per inner chunk stays in memory for every shard touched."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._shards: dict[int, Shard] = {}
        self._written: dict[int, Hashable] = {}
        self._lock = threading.Lock()
        self._described: Hashable = None
        self._describe()

    @property
    def is_far(self) -> bool:
        """Whether every read costs a request."""
        return self._place.storage.in_vain_bytes > 0

    def shard(self, slot: int) -> Place:
        """Where the pixels of one sub are kept."""
        return self._place / f"c/{int(slot)}/0/0"

    def has(self, slot: int) -> bool:
        """Whether the sub's shard is there."""
        return self.shard(slot).exists()

    def window(self, slot: int, y0: int, y1: int, x0: int, x1: int, out: np.ndarray) -> None:
        """Copy rows y0..y1-1, columns x0..x1-1 of one sub into `out[:y1 - y0, :x1 - x0]` (stored dtype).

        Raises
        ------
        DamagedError
            when the shard is missing or damaged.
        """
        for _ in range(_TRIES):
            shard = self._shard(slot)
            if not (0 <= y0 <= y1 <= self.shape[0] and 0 <= x0 <= x1 <= self.shape[1]):
                raise ValueError(f"window {y0}:{y1}, {x0}:{x1} is outside of {self.shape}")
            if y0 == y1 or x0 == x1 or shard.window(y0, y1, x0, x1, out):
                return
            self.forget(slot)
        raise StoreError(f"a shard of the store changes while it is read: {self.shard(slot)}")

    def read(self, slot: int) -> np.ndarray:
        """All pixels of one sub."""
        out = np.empty(self.shape, self.dtype)
        self.window(slot, 0, self.shape[0], 0, self.shape[1], out)
        return out

    def check(self, slot: int, *, pixels: bool) -> None:
        """Check the index of a sub's shard as it lies on the disk, and (`pixels`) all its chunks.

        Raises
        ------
        DamagedError
            when it is damaged or missing.
        """
        self.forget(slot)
        self._shard(slot)
        height, width = self.shape
        for y0 in range(0, height if pixels else 0, self.chunk[0]):
            y1 = min(y0 + self.chunk[0], height)
            self.window(slot, y0, y1, 0, width, np.empty((y1 - y0, width), self.dtype))

    def forget(self, slot: int) -> None:
        """Drop the index of a shard that is about to be replaced."""
        with self._lock:
            self._shards.pop(slot, None)

    def trust(self, slot: int) -> None:
        """Take the chunks of a shard that this process has just written as checked, as long as it stays as is."""
        place = self.shard(slot)
        identity = place.storage.identity(place.path)
        with self._lock:
            self._written[slot] = identity

    def _shard(self, slot: int) -> Shard:
        shard = self._shards.get(slot)
        if shard is None:
            self._describe()
            shard = Shard(self.shard(slot), grid=self._grid, chunk=self.chunk, dtype=self.dtype, codec=self.codec)
            with self._lock:
                if self._written.get(slot) == shard.identity:
                    shard.checked[:] = True
                shard = self._shards.setdefault(slot, shard)
        return shard

    def _describe(self) -> None:
        """Read shape, dtype, inner chunks and codec, unless they are those of the file that was read last."""
        described = self._place / NODE
        try:
            identity = described.storage.identity(described.path)
            if self._described == identity:
                return
            node = read_array_node(self._place)
            self.shape: tuple[int, int] = tuple(node["shape"][1:])
            self.dtype = np.dtype(node["data_type"]).newbyteorder("<")
            self.codec: str = node["attributes"]["codec"]
            self.chunk: tuple[int, int] = tuple(node["codecs"][0]["configuration"]["chunk_shape"][1:])
            rows, columns = (-(-n // side) for n, side in zip(self.shape, self.chunk, strict=True))
        except OSError as error:
            raise unreadable_part(described, error) from error
        except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError) as error:
            raise damaged_part(described) from error
        self._grid = (rows, columns)
        self._described = identity
