"""What can go wrong for a user, as a tree, with the exit code of each.

::

    LerarError                    exit 1: the run cannot go on
    ├── UsageError                exit 2: the command or a setting is wrong
    ├── FrameError                one file cannot be used: it is set aside, the night goes on
    │   └── UnreachableError      it cannot be read now; the next call tries again
    ├── StoreError                the store is not ours, too new, damaged or locked
    │   ├── LockedError           another run holds the store
    │   └── DamagedError          parts of the store are damaged or missing; `lerar stack` makes them again
    ├── MemoryBudgetError         does not fit into the memory given; says what would
    └── SpaceError                the disk is full or read-only

Every class survives pickling (tasks raise them on workers), carries a message that says what happened and to which
file, and an optional `hint` that says what to do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

__all__ = [
    "DamagedError",
    "FrameError",
    "LerarError",
    "LockedError",
    "MemoryBudgetError",
    "SpaceError",
    "StoreError",
    "UnreachableError",
    "UsageError",
    "WaitingError",
    "damaged_part",
    "space_error",
    "unreadable_part",
]

_GO_ON = "make room and call again: it goes on where it stopped"
_SPACE_HINTS = {
    errno.ENOSPC: _GO_ON,
    errno.EDQUOT: _GO_ON,
    errno.EFBIG: "give a folder on a disk that takes files so large",
    errno.EROFS: "give a folder that can be written",
}


class LerarError(Exception):
    """Base of all errors that are meant for the user."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(LerarError):
    """The command line, a settings file or an argument is wrong."""

    exit_code = 2


class FrameError(LerarError):
    """A file cannot be used as a frame; the message is the reason, without the path."""


class UnreachableError(FrameError):
    """A file cannot be read now: the disk or share that it lies on fails or does not answer."""


class StoreError(LerarError):
    """A store cannot be used: foreign, newer than this program, or damaged."""


class LockedError(StoreError):
    """Another run is working in this store."""


class DamagedError(StoreError):
    """Parts of a store are damaged or missing.

    Parameters
    ----------
    parts : their paths in the store
    """

    def __init__(self, message: str, parts: Sequence[str] = ()) -> None:
        super().__init__(message, "lerar stack makes it again")
        self.parts = tuple(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.parts)


class MemoryBudgetError(LerarError):
    """The work does not fit into the memory given."""


class WaitingError(LerarError):
    """Tasks lie ready for other jobs, and what follows waits for them."""


class SpaceError(LerarError):
    """A disk is full or cannot be written."""


def damaged_part(place: object, what: str = "is damaged") -> DamagedError:
    """A part of a store that is not as it was written: its place, which has a path in the store and a name to show."""
    return DamagedError(f"a part of the store {what}: {place}", [getattr(place, "path", str(place))])


def unreadable_part(place: object, error: OSError) -> StoreError:
    """What a part of a store that cannot be read means: lost where it is not there or its disk fails, else barred."""
    what = "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
    lost = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ELOOP)
    return damaged_part(place, what) if lost else StoreError(f"a part of the store {what}: {place}")


def space_error(error: OSError, name: object = None, *, writing: bool = False) -> SpaceError | None:
    """What an error of the system means when a disk is full or read-only; None when it is something else.

    Parameters
    ----------
    name : what was being written, where the error does not say it
    writing : it was about writing alone, so that missing permission is our disk's and no frame's
    """
    barred = writing and isinstance(error, PermissionError)
    if error.errno not in _SPACE_HINTS and not barred:
        return None
    hint = _SPACE_HINTS[errno.EROFS if barred or error.errno is None else error.errno]
    return SpaceError(f"{os.strerror(error.errno or 0)}: {name or error.filename}", hint)
