"""Measurements of subs: arrays with one chunk file per sub, and a few numbers as JSON beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google_crc32c import value as crc32c

from lerar_dask.errors import StoreError
from lerar_dask.store.shard import write_atomically

__all__ = ["MeasureStore"]

_ARRAYS = {
    "blocks": (("slot", "channel", "by", "bx", "field"), "adu", "8 px blocks: mean, count, clipped-high sum"),
    "grid": (("slot", "channel", "gy", "gx", "field"), "adu", "background level and pixel noise in cells"),
    "stars": (("slot", "rank", "column"), "", "stars by brightness, padded with NaN"),
    "spikes": (("slot", "rank", "column"), "", "sharp detections that are no stars: x, y, value"),
}


class MeasureStore:
    """Measurements under one key; `create` by the driver, `write` by tasks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, n_slots: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make (or grow) the arrays: shape of one sub's part by name (driver only)."""
        for name, shape in shapes.items():
            self._describe(name, n_slots, shape)
        for group in (self.path, self.path.parent, self.path.parent.parent):
            node = {"zarr_format": 3, "node_type": "group", "attributes": {}}
            if not (group / "zarr.json").exists():
                write_atomically(group / "zarr.json", json.dumps(node).encode())

    def write(
        self,
        slot: int,
        *,
        blocks: np.ndarray,
        grid: np.ndarray,
        stars: np.ndarray,
        spikes: np.ndarray,
        summary: Mapping[str, Any],
    ) -> int:
        """Write the measurements of one sub; the summary last, as the sign that all is there."""
        total = 0
        for name, array in (("blocks", blocks), ("grid", grid), ("stars", stars), ("spikes", spikes)):
            shape, dtype = self._shape(name)
            padded = np.full(shape, np.nan, dtype)
            padded[tuple(slice(0, n) for n in array.shape)] = array
            body = padded.tobytes()
            total += write_atomically(self._chunk(name, slot), [body, crc32c(body).to_bytes(4, "little")])
        total += write_atomically(self.path / "summary" / f"{slot}.json", json.dumps(dict(summary)).encode())
        return total

    def has(self, slot: int) -> bool:
        """Whether a sub's measurements are there."""
        return (self.path / "summary" / f"{slot}.json").exists()

    def summary(self, slot: int) -> dict[str, Any]:
        """A few numbers of one sub."""
        return json.loads((self.path / "summary" / f"{slot}.json").read_text())

    def read_blocks(self, slot: int) -> np.ndarray:
        """(channel, by, bx, 3) float32."""
        return self._read("blocks", slot)

    def read_grid(self, slot: int) -> np.ndarray:
        """(channel, gy, gx, 2) float32."""
        return self._read("grid", slot)

    def read_stars(self, slot: int) -> np.ndarray:
        """(n, 10) float64, without padding."""
        return _unpadded(self._read("stars", slot))

    def read_spikes(self, slot: int) -> np.ndarray:
        """(n, 3) float64, without padding."""
        return _unpadded(self._read("spikes", slot))

    def _read(self, name: str, slot: int) -> np.ndarray:
        shape, dtype = self._shape(name)
        path = self._chunk(name, slot)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"measurements are missing: {path}") from error
        if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise StoreError(f"measurements are damaged: {path}")
        return np.frombuffer(data[:-4], dtype).reshape(shape)

    def _chunk(self, name: str, slot: int) -> Path:
        dims = len(_ARRAYS[name][0]) - 1
        return (self.path / name / "c" / str(slot)).joinpath(*["0"] * dims)

    def _shape(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        node = json.loads((self.path / name / "zarr.json").read_text())
        return tuple(node["shape"][1:]), np.dtype(node["data_type"]).newbyteorder("<")

    def _describe(self, name: str, n_slots: int, shape: tuple[int, ...]) -> None:
        dims, unit, meaning = _ARRAYS[name]
        dtype = "float64" if name in ("stars", "spikes") else "float32"
        node = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [n_slots, *shape],
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, *shape]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": "NaN",
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "attributes": {"unit": unit, "meaning": meaning},
            "dimension_names": list(dims),
            "storage_transformers": [],
        }
        path = self.path / name / "zarr.json"
        if not path.exists() or json.loads(path.read_text())["shape"][0] < n_slots:
            write_atomically(path, json.dumps(node, indent=1).encode())


def _unpadded(table: np.ndarray) -> np.ndarray:
    return table[np.isfinite(table[:, 0])]
