"""Raw frames in a bucket: each is fetched once into a folder of OUT, where every node sees it, and stacked from there.

A frame is fetched again when the bucket has another version of it: size and time of change are those of the object.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lerar_dask.errors import LerarError, StoreError, space_error
from lerar_dask.runtime import events
from lerar_dask.runtime.memory import format_bytes
from lerar_dask.store.bucket_storage import BucketStorage
from lerar_dask.store.storage import CREDENTIALS, bucket_of

__all__ = ["FRAMES", "near_nights"]

FRAMES = "frames"
"""Folder of OUT that they lie in."""
_AT_ONCE = 8


def near_nights(nights: Sequence[Path], out: Path, bus: events.Bus) -> list[Path]:
    """Nights as folders: those in buckets are fetched, as far as they are not here.

    Raises
    ------
    StoreError
        when a bucket cannot be read.
    LerarError
        when there is nothing in it.
    SpaceError
        when the disk is full.
    """
    return [_fetched(url, out, bus) if (url := bucket_of(n)) else Path(n).absolute() for n in nights]


def _fetched(url: str, out: Path, bus: events.Bus) -> Path:
    folder = out / FRAMES / url.removeprefix("s3://")
    bucket = BucketStorage(url)
    try:
        there = bucket.entries()
        if not there:
            raise LerarError(f"{url}: no such folder, or nothing in it")
        missing = {path: entry for path, entry in there.items() if not _is_here(folder / path, *entry)}
        if missing:
            n_bytes = sum(size for size, _ in missing.values())
            bus.emit(events.Note(text=f"fetching {len(missing)} frames ({format_bytes(n_bytes)}) of {url} to {folder}"))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda item: _fetch(bucket, folder, item[0], item[1][1]), sorted(missing.items())))
    except OSError as error:
        if str(error.filename or "").startswith(url):
            raise StoreError(f"{url} cannot be read ({error.strerror})", CREDENTIALS) from error
        if full := space_error(error, error.filename or folder, writing=True):
            raise full from error
        raise
    return folder


def _is_here(file: Path, size: int, changed_ns: int) -> bool:
    """Whether a file is the version of its object that the bucket has."""
    try:
        status = file.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (size, changed_ns)


def _fetch(bucket: BucketStorage, folder: Path, path: str, changed_ns: int) -> None:
    """One frame, whole or not at all."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    try:
        with open(partial, "wb") as target:
            for part in bucket.parts(path):
                target.write(part)
        os.utime(partial, ns=(changed_ns, changed_ns))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
