"""OUT/lerar.toml: the settings in force, written again only when they say something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lerar_dask.errors import UsageError
from lerar_dask.products.hdus import atomic_path
from lerar_dask.settings import Settings
from lerar_dask.settings_toml import from_toml, places_from_toml, to_toml

__all__ = ["keep_settings"]


def keep_settings(out: Path, change: Callable[[Settings], Settings], *, nights: Sequence[Path] = ()) -> bool:
    """Write what a function makes of the settings that are kept; whether the file is another now.

    Parameters
    ----------
    nights : folders of raw frames; none: those that are kept
    """
    path = out / "lerar.toml"
    kept, known = _kept(path)
    data = to_toml(change(kept), nights=nights or known, out=out).encode("utf-8", "surrogateescape")
    if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
        return False
    with atomic_path(path) as partial:
        partial.write_bytes(data)
    return True


def _kept(path: Path) -> tuple[Settings, list[Path]]:
    """Settings and folders of the file; those of no file where it cannot be used."""
    try:
        return from_toml(path), places_from_toml(path)[0]
    except UsageError:
        return Settings(), []
