"""Objects of a store in a bucket of S3, or of a server that speaks its language.

Credentials, endpoint and region come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
AWS_ENDPOINT_URL, AWS_REGION, as every tool reads them) and stand nowhere else: a store pickles by its URL.

A PUT is whole or not at all by the server's promise, and one on condition is for one writer only; the lock is an object that
is renewed while its holder lives (store/bucket_lock.py). Objects are read by ranges; size and version of one are asked for
once, and every answer tells its version, so that one that was replaced is noticed without a question before each read.
"""

from __future__ import annotations

import errno
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from lerar_dask.errors import StoreError, UsageError
from lerar_dask.store.document import NODE
from lerar_dask.store.storage import CREDENTIALS, Buffers, ReplacedError

__all__ = ["BucketStorage"]

_RETRY_S = 60
_TIMEOUT_S = 60
_PART_BYTES = 64 << 10
"""Records that grow in one object: it is put again with every record."""
_AT_ONCE = 16
_MOST_DELETED = 1000
_KNOWN = 200_000
"""Objects of which version and size are kept in memory."""


class BucketStorage:
    """A prefix of a bucket; see `Storage` for what its methods promise.

    Writers of one folder at the same time (`put_together`) are expected to write the same, as tasks of a run do.
    """

    in_vain_bytes = 1 << 20

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._bucket = _bucket_of(self.url)
        self._known: dict[str, tuple[str, int]] = {}
        self._guard = threading.Lock()
        self._takes_lists = True
        """Whether the server removes lists of objects."""
        self.lost = ""
        """Why nothing may be written any more; empty: all is well."""

    def shown(self, path: str) -> str:
        """URL of the object."""
        return f"{self.url}/{path}" if path else self.url

    # -------------------------------------------------------------------------------------------------------- reads

    def get(self, path: str) -> bytes:
        """All bytes of an object."""
        import obstore

        with _as_os_error(self.shown(path)):
            return bytes(obstore.get(self._bucket, path).bytes())

    def get_array(self, path: str) -> np.ndarray:
        """All bytes of an object in an array of its own."""
        return np.frombuffer(bytearray(self.get(path)), np.uint8)

    def open_ranges(self, path: str) -> BucketRanges:
        """Open an object for reads of its parts."""
        return BucketRanges(self, path, *self._version(path))

    def identity(self, path: str) -> str:
        """The server's tag of this version of the object, asked anew."""
        return self._asked(path)[0]

    def changed(self, path: str) -> datetime:
        """When an object was put, by the server's clock."""
        import obstore

        with _as_os_error(self.shown(path)):
            return obstore.head(self._bucket, path)["last_modified"]

    def size(self, path: str) -> int | None:
        """Bytes of an object."""
        try:
            return self._asked(path)[1]
        except FileNotFoundError:
            return None

    def bytes_below(self, path: str) -> int:
        """Bytes of an object, or of all below it."""
        own = self.size(path) if path else None
        return sum(size for _, size in self._below(path)) if own is None else own

    def has(self, path: str) -> bool:
        """Whether an object is there, or one below that name."""
        if path and self.size(path) is not None:
            return True
        folders, objects = self.names(path)
        return bool(folders or objects)

    def names(self, folder: str) -> tuple[list[str], list[str]]:
        """Folders and objects in a folder."""
        import obstore

        prefix = f"{folder}/" if folder else ""
        with _as_os_error(self.shown(folder)):
            found = obstore.list_with_delimiter(self._bucket, prefix=folder or None)
        folders = {str(name).rstrip("/").rpartition("/")[2] for name in found["common_prefixes"]}
        objects = [str(meta["path"]) for meta in found["objects"]]
        return sorted(folders), sorted(name[len(prefix) :] for name in objects if name != folder)

    def read_range(self, path: str, tag: str, offset: int, length: int) -> bytes:
        """Bytes of one version of an object.

        Raises
        ------
        ReplacedError
            when the object is another by now.
        """
        import obstore

        try:
            with _as_os_error(self.shown(path)):
                got = obstore.get(self._bucket, path, options={"range": (offset, offset + length)})
                data = bytes(got.bytes())
        except FileNotFoundError as error:
            self._forget([path])
            raise ReplacedError(f"{self.shown(path)} is gone") from error
        if got.meta["e_tag"] != tag:
            self._forget([path])
            raise ReplacedError(f"{self.shown(path)} was replaced")
        return data

    def _version(self, path: str) -> tuple[str, int]:
        with self._guard:
            known = self._known.get(path)
        return known or self._asked(path)

    def _asked(self, path: str) -> tuple[str, int]:
        import obstore

        with _as_os_error(self.shown(path)):
            meta = obstore.head(self._bucket, path)
        return self._keep(path, str(meta["e_tag"]), int(meta["size"]))

    def _forget(self, paths: Iterable[str]) -> None:
        with self._guard:
            for path in paths:
                self._known.pop(path, None)

    def _keep(self, path: str, tag: str, size: int) -> tuple[str, int]:
        with self._guard:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[path] = tag, size
        return tag, size

    def entries(self) -> dict[str, tuple[int, int]]:
        """Bytes and time of change (ns) of all objects, by path; what only marks a folder is none."""
        import obstore

        with _as_os_error(self.url):
            pages = list(obstore.list(self._bucket))
        return {
            str(meta["path"]): (int(meta["size"]), round(meta["last_modified"].timestamp() * 1e6) * 1000)
            for page in pages
            for meta in page
            if meta["size"]
        }

    def parts(self, path: str) -> Iterator[bytes]:
        """An object, piece by piece."""
        import obstore

        with _as_os_error(self.shown(path)):
            for part in obstore.get(self._bucket, path).stream(min_chunk_size=4 << 20):
                yield bytes(part)

    # ------------------------------------------------------------------------------------------------------- writes

    def put(self, path: str, data: Buffers) -> int:
        """Keep an object; large ones go up in parts and appear with the last."""
        import obstore

        self.check_held()
        whole = _joined(data)
        with _as_os_error(self.shown(path)):
            done = obstore.put(self._bucket, path, whole)
        self._keep(path, str(done["e_tag"]), len(whole))
        return len(whole)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Keep an object unless one is there: the server decides."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        self.check_held()
        with _as_os_error(self.shown(path)), suppress(AlreadyExistsError, PreconditionError):
            obstore.put(self._bucket, path, data, mode="create")
            return True
        return False

    def put_together(self, folder: str, objects: Mapping[str, Buffers]) -> int:
        """Keep the objects one after the other, what describes them last; what else is in the folder goes."""
        total = 0
        there = [path for path, _ in self._below(folder)]
        if f"{folder}/{NODE}" in there:
            self._remove([f"{folder}/{NODE}"])
        for name, data in sorted(objects.items(), key=lambda item: item[0] == NODE):
            total += self.put(f"{folder}/{name}", data)
        self._remove([path for path in there if path.removeprefix(f"{folder}/") not in objects])
        return total

    @contextmanager
    def append(self, path: str) -> Iterator[BucketAppender]:
        """Objects that hold some records each, the last of which is put again with every record."""
        yield BucketAppender(self, path)

    def delete(self, path: str) -> None:
        """Remove what describes a folder first, then the rest."""
        self.check_held()
        below = [name for name, _ in self._below(path)]
        self._remove([name for name in below if name.endswith(f"/{NODE}")])
        self._remove([path, *(name for name in below if not name.endswith(f"/{NODE}"))])

    def sweep(self) -> int:
        """Nothing: what was not put whole is not there."""
        return 0

    def check_held(self) -> None:
        """Refuse to write after the lock was lost.

        Raises
        ------
        StoreError
            when another run holds it.
        """
        if self.lost:
            raise StoreError(self.lost, "nothing more is written; what was done is kept")

    def _below(self, folder: str) -> list[tuple[str, int]]:
        """Objects in a folder and below it, and their bytes."""
        import obstore

        with _as_os_error(self.shown(folder)):
            pages = list(obstore.list(self._bucket, prefix=folder or None))
        return [(str(meta["path"]), int(meta["size"])) for page in pages for meta in page]

    def _remove(self, paths: list[str]) -> None:
        import obstore
        from obstore.exceptions import NotFoundError

        self._forget(paths)
        for first in range(0, len(paths), _MOST_DELETED):
            some = paths[first : first + _MOST_DELETED]
            if self._takes_lists:
                try:
                    with _as_os_error(self.url), suppress(NotFoundError):
                        obstore.delete(self._bucket, some)
                    continue
                except OSError as error:
                    if "501" not in str(error):
                        raise
                    self._takes_lists = False
            # One by one, by requests that the client signs.
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._remove_one, some))

    def _remove_one(self, path: str) -> None:
        import urllib.request

        import obstore

        with _as_os_error(self.shown(path)):
            url = obstore.sign(self._bucket, "DELETE", path, timedelta(minutes=10))
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=_TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise

    # --------------------------------------------------------------------------------------------------------- others

    @contextmanager
    def lock(self, path: str, *, shared: bool = False) -> Iterator[None]:
        """A lock that is renewed while this process lives."""
        from lerar_dask.store.bucket_lock import held

        probe(self)
        with held(self, path, shared=shared):
            yield

    def for_zarr(self, path: str) -> Any:
        """A store of zarr's over the same client."""
        from zarr.storage import ObjectStore

        return ObjectStore(_bucket_of(self.shown(path)))


class BucketRanges:
    """One version of an object."""

    __slots__ = ("_path", "_storage", "identity", "size")

    def __init__(self, storage: BucketStorage, path: str, tag: str, size: int) -> None:
        self._storage, self._path, self.identity, self.size = storage, path, tag, size

    def read_into(self, buffer: np.ndarray, offset: int) -> int:
        """Fill bytes (uint8) from an offset; how many there were."""
        length = min(len(buffer), self.size - offset)
        if length <= 0:
            return 0
        data = self._storage.read_range(self._path, self.identity, offset, length)
        buffer[: len(data)] = np.frombuffer(data, np.uint8)
        return len(data)

    def close(self) -> None:
        """Nothing is open."""


class BucketAppender:
    """Records in objects of `_PART_BYTES`, named after the first."""

    def __init__(self, storage: BucketStorage, path: str) -> None:
        self._storage, self._path = storage, path
        self._part, self._records = 0, b""

    def append(self, record: bytes) -> None:
        """Add a record: the object it is in is put again."""
        if self._records and len(self._records) + len(record) > _PART_BYTES:
            self._part, self._records = self._part + 1, b""
        self._records += record
        self._storage.put(self._name(), self._records)

    def close(self) -> None:
        """Nothing is open."""

    def _name(self) -> str:
        stem, dot, ending = self._path.rpartition(".")
        if not self._part or not dot:
            return self._path if not self._part else f"{self._path}-{self._part}"
        return f"{stem}-{self._part:05d}.{ending}"


def probe(storage: BucketStorage) -> None:
    """Find out before anything is done whether a server does what a store needs.

    Raises
    ------
    StoreError
        when it cannot be reached or written, or answers ranges and conditions as no store can use.
    """
    path, data = f"probe-{uuid.uuid4().hex}", bytes(range(256)) * 4
    try:
        storage.put(path, data)
        try:
            ranges = storage.open_ranges(path)
            tail = np.zeros(16, np.uint8)
            ranges.read_into(tail, len(data) - 16)
            wrong = "ranges of objects" if tail.tobytes() != data[-16:] else ""
            wrong = wrong or ("writes on condition" if storage.put_if_absent(path, b"x") else "")
        finally:
            storage.delete(path)
    except OSError as error:
        raise StoreError(f"{storage.url} cannot be used ({error.strerror})", CREDENTIALS) from error
    if wrong:
        raise StoreError(f"the server of {storage.url} does not do {wrong} as S3 does", "a store cannot be kept there")


@lru_cache(maxsize=64)
def _bucket_of(url: str) -> Any:
    """The client of a bucket and prefix."""
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise UsageError(f"{url}: stores in buckets need obstore", "pip install 'lerar-dask[s3]'") from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    options: Any = {"timeout": timedelta(seconds=_TIMEOUT_S), "allow_http": endpoint.startswith("http://")}
    retry: Any = {"max_retries": 8, "retry_timeout": timedelta(seconds=_RETRY_S)}
    more: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    more["region"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        return S3Store.from_url(url, client_options=options, retry_config=retry, **more)
    except Exception as error:  # obstore's errors have no common kind for what is configured wrongly
        raise UsageError(
            f"{url} is no bucket ({str(error).splitlines()[0]})", "write it as s3://bucket/folder"
        ) from error


@contextmanager
def _as_os_error(what: str) -> Iterator[None]:
    """Errors of the client as those of files."""
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        NotFoundError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )

    try:
        yield
    except NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "it is not there", what) from error
    except (AlreadyExistsError, PreconditionError):
        raise
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, f"the server refuses: {_short(error)}", what) from error
    except BaseError as error:
        raise OSError(errno.EHOSTUNREACH, _short(error), what) from error


def _short(error: BaseException) -> str:
    """The first sentence of an error of the client, without what it repeats below."""
    return str(error).strip().splitlines()[0][:300]


def _joined(data: Buffers) -> bytes:
    if isinstance(data, bytes):
        return data
    parts: Iterable = [data] if isinstance(data, bytearray | memoryview | np.ndarray) else data
    return b"".join(bytes(memoryview(part).cast("B")) for part in parts)
