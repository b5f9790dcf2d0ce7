"""Reach: files that may lie on a share which is away for a moment, or does not answer at all.

A server that is gone lets every call to the system hang, for hours. Opening a file and reading its first byte is therefore
left to a thread that nobody waits for beyond `TIMEOUT_S`, unless the same file has answered a moment ago; errors that may pass
are tried again.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lerar_dask.errors import UnreachableError

__all__ = ["TIMEOUT_S", "reached"]

TIMEOUT_S = 60.0
"""A file that has not answered by then is set aside; the next call tries it again."""
_PAUSES_S = (0.5, 3.0)
_FRESH_S = 5.0
"""A file that has answered since then is taken to answer still."""
_MOST = 4096
_answered: dict[Path, float] = {}
_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EAGAIN)


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


def _opened_by_thread(path: Path) -> int:
    descriptor = _Opening(path).result()
    if len(_answered) >= _MOST:
        _answered.clear()
    _answered[path] = time.monotonic()
    return descriptor


class _Opening:
    """One try, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, -1
        self._error: OSError | None = None
        self._given_up = False
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._open, daemon=True, name="open")
        self._thread.start()

    def result(self) -> int:
        """The descriptor."""
        self._thread.join(TIMEOUT_S)
        with self._guard:
            self._given_up = self._thread.is_alive() and self._descriptor < 0 and self._error is None
        if self._given_up:
            raise UnreachableError(
                f"it does not answer for {TIMEOUT_S:.0f} s: the disk or share that it lies on is away"
            )
        if self._error is not None:
            raise self._error
        return self._descriptor

    def _open(self) -> None:
        descriptor = -1
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            os.pread(descriptor, 1, 0)
        except OSError as error:
            self._error = error
            if descriptor >= 0:
                os.close(descriptor)
            return
        with self._guard:
            if not self._given_up:
                self._descriptor = descriptor
                return
        with suppress(OSError):
            os.close(descriptor)
