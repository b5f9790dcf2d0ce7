"""Files of a test as places of a storage."""

from __future__ import annotations

from pathlib import Path

from lerar_dask.store.storage import Place, open_storage


def local(path: Path) -> Place:
    return Place(open_storage(path.parent), path.name)
