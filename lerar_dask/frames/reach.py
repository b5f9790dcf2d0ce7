"""Reach: files that may lie on a share which is away for a moment, or does not answer at all.

A server that is gone lets every call to the system hang, for hours. Opening a file and reading its first byte is therefore
left to a thread that nobody waits for beyond `TIMEOUT_S`, unless the same file has answered a moment ago; on a share so is
every read. Errors that may pass are tried again.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from lerar_dask.errors import UnreachableError

__all__ = ["TIMEOUT_S", "may_hang", "patiently", "reached", "read_into"]

TIMEOUT_S = 60.0
"""A file that has not answered by then is set aside; the next call tries it again."""
_PAUSES_S = (0.5, 3.0)
_FRESH_S = 5.0
"""A file that has answered since then is taken to answer still."""
_MOST = 4096
_PIECE = 8 << 20
"""Bytes that are read at once from a share."""
_SLOWEST = 1 << 20
"""Bytes per second that a share is given time for, where a whole file is read in one call."""
_answered: dict[Path, float] = {}
_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EAGAIN)
_SHARES = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "glusterfs",
    "panfs",
}
_MOUNTS = Path("/proc/self/mountinfo")
_T = TypeVar("_T")


@contextmanager
def reached(path: Path) -> Iterator[int]:
    """Descriptor of a file that is there and answers, open for reading while the block runs.

    Raises
    ------
    UnreachableError
        when it cannot be opened or read, in the block too.
    """
    descriptor = -1
    try:
        descriptor = _opened(path)
        yield descriptor
    except OSError as error:
        raise UnreachableError(f"it can no longer be read ({error.strerror})") from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def read_into(descriptor: int, view: memoryview, at: int) -> int:
    """Fill bytes from a place in a file, as many as come; how many (0: its end).

    What a share sends late must not land in memory that serves another file by then: it goes through bytes of its own.
    """
    if not may_hang(os.fstat(descriptor).st_dev):
        return os.preadv(descriptor, [view], at)
    data = _Call(lambda: os.pread(descriptor, min(len(view), _PIECE), at)).result(TIMEOUT_S)
    view[: len(data)] = data
    return len(data)


def patiently(function: Callable[[], _T], status: os.stat_result) -> _T:
    """What a function returns that reads a file as a whole; given up when the file lies on a share that does not answer.

    Parameters
    ----------
    status : of the file

    Raises
    ------
    UnreachableError
    """
    if not may_hang(status.st_dev):
        return function()
    return _Call(function).result(TIMEOUT_S + status.st_size / _SLOWEST)


@lru_cache(maxsize=64)
def may_hang(device: int) -> bool:
    """Whether a device (`st_dev`) is a share of another machine, or a program's file system."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in _MOUNTS.read_text(errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            kind = after.split(" ", 1)[0]
            if before.split()[2:3] == [number] and (kind in _SHARES or kind.startswith("fuse.")):
                return True
    return False


def _opened(path: Path) -> int:
    """Open it; what may pass is tried again after a pause."""
    for pause in (*_PAUSES_S, None):
        try:
            fresh = time.monotonic() - _answered.get(path, -_FRESH_S) < _FRESH_S
            return _open_at_once(path) if fresh else _opened_by_thread(path)
        except OSError as error:
            if pause is None or error.errno not in _PASSING:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def _open_at_once(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _open_and_read(path: Path) -> int:
    descriptor = _open_at_once(path)
    try:
        os.pread(descriptor, 1, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _opened_by_thread(path: Path) -> int:
    descriptor = _Call(lambda: _open_and_read(path), late=os.close).result(TIMEOUT_S)
    if len(_answered) >= _MOST:
        _answered.clear()
    _answered[path] = time.monotonic()
    return descriptor


class _Call(Generic[_T]):
    """One call in a thread of its own, that can be given up; `late` gets what comes after that."""

    def __init__(self, function: Callable[[], _T], late: Callable[[_T], object] | None = None) -> None:
        self._function, self._late = function, late
        self._results: list[_T] = []
        self._error: BaseException | None = None
        self._given_up = False
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name="reach")
        self._thread.start()

    def result(self, seconds: float) -> _T:
        """What the function returned or raised."""
        self._thread.join(seconds)
        with self._guard:
            self._given_up = not self._results and self._error is None
        if self._given_up:
            raise UnreachableError(f"it does not answer for {seconds:.0f} s: the disk or share that it lies on is away")
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            result = self._function()
        except BaseException as error:
            with self._guard:
                self._error = error
            return
        with self._guard:
            if not self._given_up:
                self._results.append(result)
                return
        if self._late is not None:
            with suppress(OSError):
                self._late(result)
