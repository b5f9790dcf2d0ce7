"""Checked opening of a store and typed handles on what is in it.

`Store.create(url)` / `open_store(url)`; a store pickles by its URL. Whoever makes arrays is the driver; tasks only write
shards, chunks and files of their own.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from google_crc32c import value as crc32c
from zarr.codecs import BloscCodec, Crc32cCodec

from lerar_dask.errors import StoreError
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.store.layout import FORMAT, FORMAT_VERSION, PLANES
from lerar_dask.store.ledger import Ledger
from lerar_dask.store.lock import locked
from lerar_dask.store.measures import MeasureStore
from lerar_dask.store.raw import RawReader
from lerar_dask.store.shard import INNER_CHUNK, shard_parts, write_atomically

__all__ = ["Store", "open_store"]

_ALWAYS_WRITE: Any = {"write_empty_chunks": True}


class Store:
    """A store.zarr folder."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = Path(url)
        self.ledger = Ledger(self.path / "ledger")
        self._raw: dict[str, RawReader] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.url,)

    # ------------------------------------------------------------------------------------------------------- opening

    @classmethod
    def create(cls, url: str | Path) -> Store:
        """Make an empty store, or open the one that is there."""
        path = Path(url)
        if (path / "zarr.json").exists():
            return cls.open(url)
        if path.exists() and any(path.iterdir()):
            raise StoreError(f"{path} holds something else than a lerar store", "give another folder")
        from importlib.metadata import version

        about = {"format": FORMAT, "format_version": FORMAT_VERSION, "created_by": f"lerar {version('lerar-dask')}"}
        path.mkdir(parents=True, exist_ok=True)
        node = {"zarr_format": 3, "node_type": "group", "attributes": about}
        write_atomically(path / "zarr.json", json.dumps(node, indent=2).encode())
        return cls(str(path))

    @classmethod
    def open(cls, url: str | Path) -> Store:
        """Open a store.

        Raises
        ------
        StoreError
            when there is none, or it is foreign or newer than this program.
        """
        path = Path(url)
        try:
            about = json.loads((path / "zarr.json").read_text())["attributes"]
            name, number = about["format"], int(about["format_version"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"no lerar store at {path}") from error
        if name != FORMAT:
            raise StoreError(f"{path} is not a lerar store")
        if number > FORMAT_VERSION:
            raise StoreError(
                f"{path} has format {number}; this program knows formats up to {FORMAT_VERSION}",
                "install a newer lerar",
            )
        return cls(str(path))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one run."""
        with locked(self.path / "lock"):
            yield

    def sweep(self) -> int:
        """Remove what killed writers left behind (only under the lock); number of files removed."""
        stale = list(self.path.rglob("*.partial"))
        for path in stale:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.ledger.compact()
        return len(stale)

    # ---------------------------------------------------------------------------------------------------------- raw

    def add_geometry(self, name: str, shape: tuple[int, int], dtype: str, codec: str) -> None:
        """Make the array of the raw pixels of one frame geometry, without slots (driver only)."""
        if self.has(f"raw/{name}/pixels"):
            return
        side = INNER_CHUNK[codec]
        padded = tuple(-(-n // side) * side for n in shape)
        packing: list[Any] = [Crc32cCodec()]
        if codec == "lz4":
            packing.insert(0, BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"))
        self._group(f"raw/{name}").create_array(
            "pixels",
            shape=(0, *shape),
            dtype=dtype,
            chunks=(1, side, side),
            shards=(1, *padded),
            compressors=packing,
            dimension_names=("slot", "y", "x"),
            attributes={"unit": "adu", "meaning": "raw pixels of each sub, as its file holds them", "codec": codec},
            config=_ALWAYS_WRITE,
        )

    def geometries(self) -> list[str]:
        """Names of the frame geometries."""
        folder = self.path / "raw"
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def reserve(self, geometry: str, n_slots: int) -> None:
        """Let the array hold `n_slots` subs (driver only)."""
        array = self.open_array(f"raw/{geometry}/pixels", mode="r+")
        if array.shape[0] < n_slots:
            array.resize((n_slots, *array.shape[1:]))

    def write_raw(self, geometry: str, slot: int, data: np.ndarray) -> int:
        """Write the shard of one sub; bytes written."""
        reader = self.raw(geometry)
        reader.forget(slot)
        return write_atomically(reader.shard_path(slot), shard_parts(data, codec=reader.codec))

    def raw(self, geometry: str) -> RawReader:
        """Reader of the raw pixels of a geometry."""
        if geometry not in self._raw:
            self._raw[geometry] = RawReader(self.path / "raw" / geometry / "pixels")
        return self._raw[geometry]

    def write_frame(self, geometry: str, slot: int, record: Mapping[str, Any]) -> None:
        """Write what is known of one sub: scale, zero, header cards."""
        self.write_json(f"raw/{geometry}/frames/{slot}.json", record)

    def frame(self, geometry: str, slot: int) -> dict[str, Any]:
        """What `write_frame` wrote."""
        return self.read_json(f"raw/{geometry}/frames/{slot}.json")

    def measures(self, geometry: str, key: str) -> MeasureStore:
        """Measurements of the subs of a geometry, made under one key."""
        return MeasureStore(self.path / "measures" / geometry / key)

    # ------------------------------------------------------------------------------------------------- whole arrays

    def has(self, path: str) -> bool:
        """Whether an array (or group) is there."""
        return (self.path / path / "zarr.json").exists()

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
    ) -> zarr.Array:
        """Make an array that tasks fill chunk by chunk (driver only); floats are NaN until then."""
        parent, _, name = path.rpartition("/")
        return self._group(parent).create_array(
            name,
            shape=tuple(shape),
            dtype=dtype,
            chunks=tuple(chunks),
            compressors=[Crc32cCodec()],
            fill_value=np.nan if np.dtype(dtype).kind == "f" else 0,
            dimension_names=tuple(dims),
            attributes={"unit": unit, "meaning": meaning},
            config=_ALWAYS_WRITE,
        )

    def write_array(
        self,
        path: str,
        array: np.ndarray,
        *,
        dims: Sequence[str],
        unit: str = "",
        meaning: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a whole array, at once or not at all."""
        data = np.ascontiguousarray(array)
        final = self.path / path
        self._group(path.rpartition("/")[0])
        partial = final.with_name(f"{final.name}.{uuid.uuid4().hex}.partial")
        target = zarr.create_array(
            store=str(partial),
            shape=data.shape,
            dtype=data.dtype,
            chunks=tuple(max(n, 1) for n in data.shape),
            compressors=[Crc32cCodec()],
            fill_value=np.nan if data.dtype.kind == "f" else 0,
            dimension_names=tuple(dims),
            attributes={"unit": unit, "meaning": meaning, **(attributes or {})},
            config=_ALWAYS_WRITE,
        )
        if data.size:
            separator = "/".join(["c", *["0"] * data.ndim])
            raw = data.astype(data.dtype.newbyteorder("<"), copy=False)
            body = raw.reshape(-1).data.cast("B")
            write_atomically(partial / separator, [body, crc32c(bytes(body)).to_bytes(4, "little")])
        del target
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)

    def open_array(self, path: str, mode: str = "r") -> zarr.Array:
        """An array as zarr sees it.

        Raises
        ------
        StoreError
            when it is not there.
        """
        if not self.has(path):
            raise StoreError(f"the store {self.path} has no {path}")
        return zarr.open_array(str(self.path / path), mode=mode, config=_ALWAYS_WRITE)  # type: ignore[arg-type]

    def read_array(self, path: str) -> np.ndarray:
        """A whole array."""
        try:
            return np.asarray(self.open_array(path)[...])
        except ValueError as error:
            raise StoreError(f"an array of the store is damaged: {self.path / path}") from error

    def attributes(self, path: str) -> dict[str, Any]:
        """Attributes of an array."""
        return json.loads((self.path / path / "zarr.json").read_text())["attributes"]

    def delete(self, path: str) -> None:
        """Remove an array or a group."""
        shutil.rmtree(self.path / path, ignore_errors=True)

    def write_json(self, path: str, value: Any) -> None:
        """Write plain values, at once or not at all."""
        write_atomically(self.path / path, json.dumps(value, default=str).encode())

    def read_json(self, path: str) -> Any:
        """What `write_json` wrote."""
        try:
            return json.loads((self.path / path).read_text())
        except (OSError, ValueError) as error:
            raise StoreError(f"the store {self.path} has no readable {path}") from error

    def _group(self, path: str) -> zarr.Group:
        """The group at a path, made with its parents where missing."""
        at = self.path
        for part in path.split("/") if path else []:
            at = at / part
            if not (at / "zarr.json").exists():
                node = {"zarr_format": 3, "node_type": "group", "attributes": {}}
                write_atomically(at / "zarr.json", json.dumps(node).encode())
        return zarr.open_group(str(at), mode="r+", use_consolidated=False)

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
                unit="adu",
                meaning=f"planes {', '.join(PLANES)}",
            )

    def write_chunk(self, key: str, cy: int, cx: int, data: np.ndarray) -> int:
        """Write one chunk of a master, (channel, plane, h, w); bytes written."""
        full = np.full((*data.shape[:2], *CHUNK_SHAPE), np.nan, "<f4")
        full[:, :, : data.shape[2], : data.shape[3]] = data
        body = full.reshape(-1).data.cast("B")
        return write_atomically(self._chunk(key, cy, cx), [body, crc32c(bytes(body)).to_bytes(4, "little")])

    def read_chunk(self, key: str, cy: int, cx: int) -> np.ndarray:
        """One whole chunk of a master, (channel, plane, *CHUNK_SHAPE); NaN beyond the canvas."""
        path = self._chunk(key, cy, cx)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"a chunk of the master is missing: {path}") from error
        if crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise StoreError(f"a chunk of the master is damaged: {path}")
        return np.frombuffer(data[:-4], "<f4").reshape(-1, len(PLANES), *CHUNK_SHAPE)

    def has_chunk(self, key: str, cy: int, cx: int) -> bool:
        """Whether a chunk of a master was written."""
        return self._chunk(key, cy, cx).exists()

    def master(self, key: str) -> zarr.Array:
        """The master as zarr sees it."""
        return self.open_array(f"master/{key}/image")

    def _chunk(self, key: str, cy: int, cx: int) -> Path:
        return self.path / "master" / key / "image" / "c" / "0" / "0" / str(cy) / str(cx)


@lru_cache(maxsize=16)
def open_store(url: str) -> Store:
    """The store at a URL, opened once per process."""
    return Store.open(url)
