"""What can go wrong for a user, as a tree, with the exit code of each.

::

    LerarError                    exit 1: the run cannot go on
    ├── UsageError                exit 2: the command or a setting is wrong
    ├── FrameError                one file cannot be used: it is set aside, the night goes on
    ├── StoreError                the store is not ours, too new, damaged or locked
    │   └── LockedError           another run holds the store
    ├── MemoryBudgetError         does not fit into the memory given; says what would
    └── SpaceError                the disk is full or read-only

Every class survives pickling (tasks raise them on workers), carries a message that says what happened and to which
file, and an optional `hint` that says what to do.
"""

from __future__ import annotations

__all__ = [
    "FrameError",
    "LerarError",
    "LockedError",
    "MemoryBudgetError",
    "SpaceError",
    "StoreError",
    "UsageError",
]


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


class StoreError(LerarError):
    """A store cannot be used: foreign, newer than this program, or damaged."""


class LockedError(StoreError):
    """Another run is working in this store."""


class MemoryBudgetError(LerarError):
    """The work does not fit into the memory given."""


class SpaceError(LerarError):
    """A disk is full or cannot be written."""
