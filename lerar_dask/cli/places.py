"""Places that the command line names."""

from __future__ import annotations

from pathlib import Path

from lerar_dask.errors import UsageError

__all__ = ["needs_folder"]


def needs_folder(path: Path) -> None:
    """Refuse a path that is no folder.

    Raises
    ------
    UsageError
        saying whether something else is there, or nothing.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: " + ("not a folder" if path.exists() else "no such folder"))
