"""Checked opening of a store and typed handles on what is in it.

`Store.create(url)` / `open_store(url)`; a store pickles by its URL. Whoever makes arrays is the driver; tasks only write
shards, chunks and files of their own. zarr is imported only by who wants an array as zarr sees it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lerar_dask.constants import PLANES
from lerar_dask.errors import DamagedError, StoreError, damaged_part
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.store.chunk import checked_chunk, chunk_parts
from lerar_dask.store.create import array_node, check_store, create_store, make_group, raw_node, write_root
from lerar_dask.store.document import NODE, pack, pack_node, read_array_node, read_document, write_document, write_node
from lerar_dask.store.fields import DOCUMENTS
from lerar_dask.store.layout import packing_of
from lerar_dask.store.ledger import Ledger
from lerar_dask.store.measures import MeasureStore
from lerar_dask.store.raw import RawReader
from lerar_dask.store.shard import shard_parts
from lerar_dask.store.storage import Place, open_storage

if TYPE_CHECKING:
    import zarr

__all__ = ["Store", "open_store"]


class Store:
    """A store, wherever its bytes are kept."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.root = Place(open_storage(url))
        self.ledger = Ledger(self.root / "ledger")
        self._raw: dict[str, RawReader] = {}
        self._measures: dict[tuple[str, str], MeasureStore] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.url,)

    def place(self, path: str) -> Place:
        """Where a part of the store is kept; a name that leads out of it, as a store of somebody else may hold, is
        refused.
        """
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise StoreError(
                f"the store {self.url} names a place outside of itself: {path[:80]!r}", "it is not touched"
            )
        return self.root / path

    # ------------------------------------------------------------------------------------------------------- opening

    @classmethod
    def create(cls, url: str | Path) -> Store:
        """Make an empty store, or open the one that is there; one that lost its own description gets it again.

        Raises
        ------
        StoreError
            when the folder holds something else, or a store that is newer than this program.
        """
        root = Place(open_storage(url))
        try:
            return cls.open(url)
        except DamagedError:
            write_root(root)
        except StoreError:
            if (root / NODE).exists():
                raise
            create_store(root)
        return cls.open(url)

    @classmethod
    def open(cls, url: str | Path) -> Store:
        """Open a store.

        Raises
        ------
        StoreError
            when there is none, or it is foreign or newer than this program.
        """
        check_store(Place(open_storage(url)))
        return cls(str(url))

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the store for one run; shared: for one of several jobs that do tasks of a run."""
        with self.root.storage.lock("lock", shared=shared):
            yield

    def sweep(self) -> int:
        """Remove what killed writers left behind (only under the lock); number of things removed."""
        return self.root.storage.sweep()

    # ---------------------------------------------------------------------------------------------------------- raw

    def add_geometry(self, name: str, shape: tuple[int, int], dtype: str, codec: str) -> None:
        """Make the array of the raw pixels of one frame geometry, without slots (driver only)."""
        if not self.has(f"raw/{name}/pixels"):
            make_group(self.root, f"raw/{name}")
            write_node(self.place(f"raw/{name}/pixels"), raw_node(shape, dtype, codec, n_slots=0))

    def geometries(self) -> list[str]:
        """Names of the frame geometries."""
        return self.names("raw")

    def names(self, path: str) -> list[str]:
        """Names of the groups and arrays in a group, sorted; none where it does not exist."""
        folder = self.place(path)
        return [name for name in folder.names()[0] if (folder / name / NODE).exists()]

    def reserve(self, geometry: str, n_slots: int) -> None:
        """Let the array hold `n_slots` subs (driver only)."""
        folder = self.place(f"raw/{geometry}/pixels")
        node = read_array_node(folder)
        if node["shape"][0] < n_slots:
            node["shape"][0] = n_slots
            write_node(folder, node)

    def write_raw(self, geometry: str, slot: int, data: np.ndarray) -> int:
        """Write the shard of one sub, (y, x) of the geometry's shape and dtype; bytes written."""
        reader = self.raw(geometry)
        if data.shape != reader.shape or data.dtype.newbyteorder("<") != reader.dtype:
            raise ValueError(f"{data.dtype} {data.shape} does not fit into {geometry}")
        reader.forget(slot)
        size = reader.shard(slot).put(shard_parts(data, chunk=reader.chunk, codec=reader.codec))
        reader.trust(slot)
        return size

    def raw(self, geometry: str) -> RawReader:
        """Reader of the raw pixels of a geometry."""
        if geometry not in self._raw:
            self._raw[geometry] = RawReader(self.place(f"raw/{geometry}/pixels"))
        return self._raw[geometry]

    def write_frame(self, geometry: str, slot: int, record: Mapping[str, Any]) -> None:
        """Write what is known of one sub: scale, zero, header cards."""
        self.write_json(f"raw/{geometry}/frames/{int(slot)}.json", record)

    def frame(self, geometry: str, slot: int) -> dict[str, Any]:
        """What `write_frame` wrote."""
        return self.read_json(f"raw/{geometry}/frames/{int(slot)}.json")

    def has_sub(self, geometry: str, slot: int) -> bool:
        """Whether the pixels of a sub are there, and what is known of it."""
        record = self.place(f"raw/{geometry}/frames/{int(slot)}.json")
        return self.has(f"raw/{geometry}/pixels") and record.exists() and self.raw(geometry).has(slot)

    def measures(self, geometry: str, key: str) -> MeasureStore:
        """Measurements of the subs of a geometry, made under one key."""
        if (geometry, key) not in self._measures:
            self.place(f"measures/{geometry}/{key}")
            self._measures[geometry, key] = MeasureStore(self.root, geometry, key)
        return self._measures[geometry, key]

    # ------------------------------------------------------------------------------------------------- whole arrays

    def has(self, path: str) -> bool:
        """Whether an array (or group) is there."""
        return (self.place(path) / NODE).exists()

    def create_array(
        self,
        path: str,
        *,
        shape: Sequence[int],
        dtype: str,
        chunks: Sequence[int],
        dims: Sequence[str],
        unit: str = "",
        meaning: str = "",
    ) -> None:
        """Make an array that tasks fill chunk by chunk (driver only); floats are NaN until then."""
        make_group(self.root, path.rpartition("/")[0])
        node = array_node(
            path, shape=shape, dtype=np.dtype(dtype), chunks=chunks, dims=dims, unit=unit, meaning=meaning
        )
        write_node(self.place(path), node)

    def write_array(
        self,
        path: str,
        array: np.ndarray,
        *,
        dims: Sequence[str],
        unit: str = "",
        meaning: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> int:
        """Write a whole array as one chunk, at once or not at all; names and words of the layout's table go first.

        Returns
        -------
        size : bytes of its chunk
        """
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        node = array_node(
            path,
            shape=array.shape,
            dtype=data.dtype,
            chunks=array.shape,
            dims=dims,
            unit=unit,
            meaning=meaning,
            attributes=attributes,
        )
        place = self.place(path)
        make_group(self.root, path.rpartition("/")[0])
        chunks = {_whole(array.ndim): chunk_parts(data, packed=packing_of(path))} if data.size else {}
        described = pack_node(node)
        return place.storage.put_together(place.path, {**chunks, NODE: described}) - len(described)

    def write_band(self, path: str, band: int, data: np.ndarray) -> int:
        """Write a chunk of an array (channel, y, x) that `create_array` cut into bands of rows; bytes written."""
        node = read_array_node(self.place(path))
        full = np.full(node["chunk_grid"]["configuration"]["chunk_shape"], np.nan, data.dtype.newbyteorder("<"))
        full[:, : data.shape[1]] = data
        return self._band(path, band).put(chunk_parts(full, packed=packing_of(path)))

    def has_band(self, path: str, band: int) -> bool:
        """Whether a band was written."""
        return self._band(path, band).exists()

    def _band(self, path: str, band: int) -> Place:
        return self.place(f"{path}/c/0/{int(band)}/0")

    def write_part(self, path: str, at: Sequence[int], data: np.ndarray) -> int:
        """Write one chunk of an array that `create_array` made; what is cut off at the array's end is padded; bytes written.

        Parameters
        ----------
        at : index of the chunk along each axis
        """
        node = read_array_node(self.place(path))
        shape, dtype = node["chunk_grid"]["configuration"]["chunk_shape"], np.dtype(node["data_type"]).newbyteorder("<")
        full = np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)
        full[tuple(slice(n) for n in data.shape)] = data
        return self._part(path, at).put(chunk_parts(full, packed=packing_of(path)))

    def read_part(self, path: str, at: Sequence[int]) -> np.ndarray:
        """One whole chunk of an array, padded at the array's end.

        Raises
        ------
        DamagedError
            when it is missing or damaged.
        """
        node = read_array_node(self.place(path))
        shape, dtype = node["chunk_grid"]["configuration"]["chunk_shape"], np.dtype(node["data_type"]).newbyteorder("<")
        return checked_chunk(self._part(path, at), tuple(shape), dtype, packed=bool(packing_of(path)))

    def has_part(self, path: str, at: Sequence[int]) -> bool:
        """Whether a chunk was written."""
        return self._part(path, at).exists()

    def _part(self, path: str, at: Sequence[int]) -> Place:
        return self.place("/".join([path, "c", *(str(int(i)) for i in at)]))

    def open_array(self, path: str, mode: str = "r") -> zarr.Array:
        """An array as zarr sees it; chunks equal to the fill value are written as well.

        Raises
        ------
        StoreError
            when it is not there.
        """
        import zarr

        if not self.has(path):
            raise StoreError(f"the store {self.url} has no {path}")
        place = self.place(path)
        return zarr.open_array(place.storage.for_zarr(place.path), mode=mode, config={"write_empty_chunks": True})  # type: ignore[arg-type]

    def read_array(self, path: str) -> np.ndarray:
        """A whole array.

        Raises
        ------
        DamagedError
            when it is not there or damaged.
        """
        folder = self.place(path)
        try:
            node = read_array_node(folder)
            shape, chunks = node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"]
            codecs = [codec["name"] for codec in node["codecs"]]
            dtype = np.dtype(node["data_type"]).newbyteorder("<")
        except (ValueError, KeyError, TypeError) as error:
            raise damaged_part(folder) from error
        ours = codecs in (["bytes", "crc32c"], ["bytes", "blosc", "crc32c"])
        if 0 in shape:
            return np.empty(shape, dtype)
        if ours:
            return self._read_chunks(path, tuple(shape), tuple(chunks), dtype, packed="blosc" in codecs)
        try:
            return np.asarray(self.open_array(path)[...])
        except ValueError as error:
            raise damaged_part(folder) from error

    def _read_chunks(
        self, path: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: np.dtype, *, packed: bool
    ) -> np.ndarray:
        """An array of our own chunks; of several, one that was not written holds what zarr fills it with."""
        grid = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
        if math.prod(grid) == 1:
            chunk = checked_chunk(self._part(path, [0] * len(shape)), chunks, dtype, packed=packed)
            return chunk[tuple(slice(n) for n in shape)]
        out = np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)
        for at in np.ndindex(*grid):
            if self.has_part(path, at):
                chunk = checked_chunk(self._part(path, at), chunks, dtype, packed=packed)
                area = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(at, chunks, shape, strict=True))
                out[area] = chunk[tuple(slice(a.stop - a.start) for a in area)]
        return out

    def attributes(self, path: str) -> dict[str, Any]:
        """Attributes of an array."""
        return read_array_node(self.place(path))["attributes"]

    def delete(self, path: str) -> None:
        """Remove an array, a group or a document; a removal that was interrupted leaves nothing that looks whole."""
        place = self.place(path)
        place.storage.delete(place.path)

    def has_json(self, path: str) -> bool:
        """Whether plain values were written."""
        return self.place(path).exists()

    def size(self, path: str) -> int | None:
        """Bytes of a document; None where there is none."""
        return self.root.storage.size(self.place(path).path)

    def bytes_below(self, path: str) -> int:
        """Bytes of an object, or of all in a folder."""
        return self.root.storage.bytes_below(self.place(path).path)

    def write_json(self, path: str, value: Any) -> None:
        """Write plain values, at once or not at all."""
        write_document(self.place(path), value)

    def keep_json(self, path: str, value: Any) -> bool:
        """Write plain values unless they are there to the byte; whether they were written."""
        data, place = pack(value), self.place(path)
        if place.storage.size(place.path) == len(data) and place.get() == data:
            return False
        place.put(data)
        return True

    def read_json(self, path: str) -> Any:
        """What `write_json` wrote.

        Raises
        ------
        DamagedError
            when it is missing or damaged, or holds something else than lerar writes there.
        """
        return read_document(self.place(path), DOCUMENTS.get(path.partition("/")[0], object))

    # ------------------------------------------------------------------------------------------------------ masters

    def create_master(self, key: str, n_channels: int, shape: tuple[int, int]) -> None:
        """Make the array of a master (driver only)."""
        if not self.has(f"master/{key}/image"):
            self.create_array(
                f"master/{key}/image",
                shape=(n_channels, len(PLANES), *shape),
                dtype="float32",
                chunks=(n_channels, len(PLANES), *CHUNK_SHAPE),
                dims=("channel", "plane", "y", "x"),
            )

    def write_chunk(self, key: str, cy: int, cx: int, data: np.ndarray) -> int:
        """Write one chunk of a master, (channel, plane, h, w); bytes written."""
        full = np.full((*data.shape[:2], *CHUNK_SHAPE), np.nan, "<f4")
        full[:, :, : data.shape[2], : data.shape[3]] = data
        return self._chunk(key, cy, cx).put(chunk_parts(full, packed=packing_of(f"master/{key}/image")))

    def read_chunk(self, key: str, cy: int, cx: int) -> np.ndarray:
        """One whole chunk of a master, (channel, plane, *CHUNK_SHAPE); NaN beyond the canvas and where no sub reaches.

        Raises
        ------
        StoreError
            when it is damaged.
        """
        if not self.has_chunk(key, cy, cx):
            n_channels = self.master(key).shape[0]
            return np.full((n_channels, len(PLANES), *CHUNK_SHAPE), np.nan, np.float32)
        packed = bool(packing_of(f"master/{key}/image"))
        return checked_chunk(self._chunk(key, cy, cx), (-1, len(PLANES), *CHUNK_SHAPE), np.dtype("<f4"), packed=packed)

    def has_chunk(self, key: str, cy: int, cx: int) -> bool:
        """Whether a chunk of a master was written."""
        return self._chunk(key, cy, cx).exists()

    def master(self, key: str) -> zarr.Array:
        """The master as zarr sees it."""
        return self.open_array(f"master/{key}/image")

    def _chunk(self, key: str, cy: int, cx: int) -> Place:
        return self.place(f"master/{key}/image/c/0/0/{int(cy)}/{int(cx)}")


def _whole(ndim: int) -> str:
    """Key of the only chunk of an array."""
    return "/".join(["c", *["0"] * ndim])


@lru_cache(maxsize=16)
def open_store(url: str) -> Store:
    """The store at a URL, opened once per process."""
    return Store.open(url)
