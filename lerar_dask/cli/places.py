"""Places that the command line names."""

from __future__ import annotations

from pathlib import Path

from lerar_dask.errors import UsageError

__all__ = ["needs_folder", "needs_night"]


def needs_night(path: Path) -> None:
    """Refuse what is neither a folder nor written as a bucket.

    Raises
    ------
    UsageError
        saying whether something else is there, or nothing.
    """
    from lerar_dask.store.storage import bucket_of

    if not bucket_of(path):
        needs_folder(path)


def needs_folder(path: Path) -> None:
    """Refuse a path that is no folder.

    Raises
    ------
    UsageError
        saying whether something else is there, or nothing.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: " + ("not a folder" if path.exists() else "no such folder"))
