"""Reader of the raw pixels of one frame geometry, by windows."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np

from lerar_dask.errors import StoreError
from lerar_dask.store.shard import INNER_CHUNK, Shard

__all__ = ["RawReader"]


class RawReader:
    """Raw pixels (slot, y, x); an index of 16 bytes per inner chunk stays in memory for every shard touched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            node = json.loads((path / "zarr.json").read_text())
        except (OSError, ValueError) as error:
            raise StoreError(f"the store has no raw pixels at {path}") from error
        self.shape: tuple[int, int] = tuple(node["shape"][1:])
        self.dtype = np.dtype(node["data_type"]).newbyteorder("<")
        self.codec: str = node["attributes"]["codec"]
        side = INNER_CHUNK[self.codec]
        self._grid = (-(-self.shape[0] // side), -(-self.shape[1] // side))
        self._shards: dict[int, Shard] = {}
        self._lock = threading.Lock()

    def shard_path(self, slot: int) -> Path:
        """File of one sub."""
        return self.path / "c" / str(slot) / "0" / "0"

    def has(self, slot: int) -> bool:
        """Whether the sub's file is there."""
        return self.shard_path(slot).exists()

    def window(self, slot: int, y0: int, y1: int, x0: int, x1: int, out: np.ndarray) -> None:
        """Copy a window of one sub into `out` (y1 - y0, x1 - x0), stored dtype."""
        self._shard(slot).window(y0, y1, x0, x1, out)

    def read(self, slot: int) -> np.ndarray:
        """All pixels of one sub."""
        out = np.empty(self.shape, self.dtype)
        self.window(slot, 0, self.shape[0], 0, self.shape[1], out)
        return out

    def forget(self, slot: int) -> None:
        """Drop the index of a shard that is about to be replaced."""
        with self._lock:
            self._shards.pop(slot, None)

    def _shard(self, slot: int) -> Shard:
        shard = self._shards.get(slot)
        if shard is None:
            shard = Shard(self.shard_path(slot), grid=self._grid, dtype=self.dtype, codec=self.codec)
            with self._lock:
                shard = self._shards.setdefault(slot, shard)
        return shard
