"""Measurements of subs: arrays with one chunk file per sub, and a few numbers as JSON beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lerar_dask.store.chunk import checked_chunk, chunk_parts
from lerar_dask.store.create import array_node, make_group
from lerar_dask.store.document import NODE, read_array_node, read_document, write_document, write_node
from lerar_dask.store.fields import SUMMARY
from lerar_dask.store.layout import ArraySpec, spec_of
from lerar_dask.store.storage import Place

__all__ = ["MeasureStore"]


class MeasureStore:
    """Measurements of the subs of a geometry under one key; `create` by the driver, `write` by tasks."""

    def __init__(self, root: Place, geometry: str, key: str) -> None:
        self._root, self._at = root, f"measures/{geometry}/{key}"
        self._place = root / self._at
        self._shapes: dict[str, tuple[int, ...]] = {}
        """Of one sub's part: they follow from geometry and key, and never change."""

    def create(self, n_slots: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make (or grow) the arrays: shape of one sub's part by name (driver only)."""
        make_group(self._root, self._at)
        for name, shape in shapes.items():
            there = (self._place / name / NODE).exists()
            if not there or read_array_node(self._place / name)["shape"][0] < n_slots:
                node = array_node(
                    f"{self._at}/{name}", shape=(n_slots, *shape), dtype=self._dtype(name), chunks=(1, *shape)
                )
                write_node(self._place / name, node)

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
            padded = np.full(self._shape(name), np.nan, self._dtype(name).newbyteorder("<"))
            padded[tuple(slice(0, n) for n in array.shape)] = array
            total += self._chunk(name, slot).put(chunk_parts(padded, packed=self._spec(name).packed))
        return total + write_document(self._summary(slot), dict(summary))

    def has(self, slot: int) -> bool:
        """Whether a sub's measurements are there."""
        return self._summary(slot).exists()

    def summary(self, slot: int) -> dict[str, Any]:
        """A few numbers of one sub.

        Raises
        ------
        DamagedError
            when they are missing or damaged.
        """
        return dict(read_document(self._summary(slot), SUMMARY))

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
        dtype, packed = self._dtype(name).newbyteorder("<"), bool(self._spec(name).packed)
        return checked_chunk(self._chunk(name, slot), self._shape(name), dtype, packed=packed)

    def _chunk(self, name: str, slot: int) -> Place:
        return self._place / "/".join([name, "c", str(int(slot)), *["0"] * len(self._shape(name))])

    def _summary(self, slot: int) -> Place:
        return self._place / f"summary/{int(slot)}.json"

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            self._shapes[name] = tuple(read_array_node(self._place / name)["shape"][1:])
        return self._shapes[name]

    def _dtype(self, name: str) -> np.dtype:
        return np.dtype(self._spec(name).dtype)

    def _spec(self, name: str) -> ArraySpec:
        spec = spec_of(f"{self._at}/{name}")
        assert spec is not None
        return spec


def _unpadded(table: np.ndarray) -> np.ndarray:
    return table[np.isfinite(table[:, 0])]
