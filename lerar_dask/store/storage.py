"""The byte contract: what a store asks of whatever keeps its bytes, a folder on a disk or a bucket.

A `Storage` keeps named objects, each put whole or not at all. A `Place` is a name in it, written as a path. Nothing else
under `store/` knows files: another kind of storage is one module with a class of these methods, and a line in `open_storage`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lerar_dask.errors import UsageError

__all__ = [
    "CREDENTIALS",
    "Appender",
    "Buffers",
    "Place",
    "Ranges",
    "ReplacedError",
    "Storage",
    "bucket_of",
    "open_storage",
]

Buffers = bytes | bytearray | memoryview | np.ndarray | Iterable
"""One buffer, or buffers one after the other (an iterator may use its buffer again)."""


CREDENTIALS = "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY tell where and who"
"""What to look at when a bucket cannot be used."""


class ReplacedError(OSError):
    """An object was replaced while it was open."""


class Ranges(Protocol):
    """An object that is open for reads of parts of it."""

    @property
    def identity(self) -> Hashable:
        """Another one when the object was replaced."""

    @property
    def size(self) -> int:
        """Bytes of the object."""

    def read_into(self, buffer: np.ndarray, offset: int) -> int:
        """Fill bytes (uint8) from an offset; how many there were. ReplacedError: it is another object by now."""

    def close(self) -> None:
        """End."""


class Appender(Protocol):
    """An object that grows record by record."""

    def append(self, record: bytes) -> None:
        """Add a record; it is kept when this returns."""

    def close(self) -> None:
        """End."""


class Storage(Protocol):
    """Keeps objects by path: parts joined by `/`, none of them `..`.

    What is not there raises FileNotFoundError; what cannot be read, another OSError; what finds no room, SpaceError.
    """

    url: str
    in_vain_bytes: int
    """Bytes that are rather read in vain than asked for apart; 0: a read costs next to nothing."""

    def shown(self, path: str) -> str:
        """The name of an object in messages."""

    def get(self, path: str) -> bytes:
        """All bytes of an object."""

    def get_array(self, path: str) -> np.ndarray:
        """The same, (n,) uint8 in memory of its own."""

    def open_ranges(self, path: str) -> Ranges:
        """Open an object for reads of its parts."""

    def identity(self, path: str) -> Hashable:
        """Another value when the object was replaced."""

    def size(self, path: str) -> int | None:
        """Bytes of an object; None where there is none."""

    def bytes_below(self, path: str) -> int:
        """Bytes of an object, or of all in a folder and below it; 0 where nothing is there."""

    def has(self, path: str) -> bool:
        """Whether something is there by this name, object or folder."""

    def put(self, path: str, data: Buffers) -> int:
        """Keep an object whole or not at all, in place of one that is there; its size."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Keep an object unless one is there by this name; whether it was kept. Of several writers one wins."""

    def put_together(self, folder: str, objects: Mapping[str, Buffers]) -> int:
        """Keep a folder's objects, in place of the folder that is there; bytes. Whoever sees its zarr.json sees all."""

    def append(self, path: str) -> AbstractContextManager[Appender]:
        """A new object that grows while the block runs; it is made with its first record."""

    def names(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the objects in a folder, sorted; none where there is no such folder."""

    def delete(self, path: str) -> None:
        """Remove an object, or a folder with all in it, if it is there; interrupted, it leaves nothing that looks whole."""

    def sweep(self) -> int:
        """Remove what killed writers left behind; number of things removed."""

    def lock(self, path: str, *, shared: bool = False) -> AbstractContextManager[None]:
        """Hold a lock while the block runs, which a killed process cannot leave behind; LockedError names who holds it."""

    def for_zarr(self, path: str) -> Any:
        """What zarr-python opens an array at a path with."""


@dataclass(frozen=True, slots=True)
class Place:
    """An object or folder of a storage, there or not."""

    storage: Storage
    path: str = ""

    def __truediv__(self, more: str) -> Place:
        return Place(self.storage, f"{self.path}/{more}" if self.path else more)

    def __str__(self) -> str:
        return self.storage.shown(self.path)

    def get(self) -> bytes:
        """All its bytes."""
        return self.storage.get(self.path)

    def put(self, data: Buffers) -> int:
        """Write it, whole or not at all; its size."""
        return self.storage.put(self.path, data)

    def exists(self) -> bool:
        """Whether it is there."""
        return self.storage.has(self.path)

    def names(self) -> tuple[list[str], list[str]]:
        """Folders and objects in it."""
        return self.storage.names(self.path)

    def walk(self, skip: frozenset[str] = frozenset()) -> Iterator[Place]:
        """All objects in it and below, folder by folder, but for folders of some names."""
        folders, objects = self.names()
        yield from (self / name for name in objects)
        for name in folders:
            if name not in skip:
                yield from (self / name).walk(skip)


def bucket_of(path: str | Path) -> str:
    """URL of a place in a bucket; empty for one on a disk. A path has lost one of the slashes.

    >>> bucket_of(Path("s3://bucket/night"))
    's3://bucket/night'
    """
    text = str(path)
    return f"s3://{text.removeprefix('s3:').strip('/')}" if text.startswith("s3:/") else ""


def open_storage(url: str | Path) -> Storage:
    """The storage at a URL; a path is a folder on a disk.

    Raises
    ------
    UsageError
        for a kind of storage that lerar does not know.
    """
    from lerar_dask.store.local_storage import LocalStorage

    kind, mark, _ = str(url).partition("://")
    if mark and kind == "s3":
        from lerar_dask.store.bucket_storage import BucketStorage

        return BucketStorage(str(url))
    if mark:
        raise UsageError(f"{url}: no store is kept at {kind}://", "give a path without ://, or s3://bucket/folder")
    return LocalStorage(Path(url))
