"""One run at a time: an advisory lock on the store that a killed process cannot leave behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lerar_dask.errors import LockedError, StoreError

__all__ = ["locked"]


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file while the block runs.

    Parameters
    ----------
    shared : others may hold it so at the same time, and nobody alone

    Raises
    ------
    LockedError
        when another process holds it; names host, process and start.
    StoreError
        when the lock file is a symbolic link.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(f"{path} is a symbolic link: it is not written through", "remove it") from error
        raise
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            raise LockedError(
                f"another run works in {path.parent}{_holder(path)}", "wait until it is done, or stop it"
            ) from error
        if shared:
            yield
            return
        os.ftruncate(descriptor, 0)
        holder = {"host": platform.node(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.write(descriptor, json.dumps(holder).encode())
        yield
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f" (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return ""
