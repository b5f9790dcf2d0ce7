"""Pictures of a run that its report shows: read without what makes them, so that `lerar stack` need not load it."""

from __future__ import annotations

from lerar_dask.errors import StoreError
from lerar_dask.products.report import PictureReport
from lerar_dask.run import RunState
from lerar_dask.store.access import Store

__all__ = ["PICTURES", "pictures_of"]

PICTURES = "pictures.json"
"""Key of the finished picture of each target."""


def pictures_of(store: Store, state: RunState) -> list[PictureReport]:
    """Pictures that were made of the masters that the run has now."""
    if not store.has_json(PICTURES):
        return []
    masters = {group.master for group in state.groups.values()}
    found = []
    for target, key in sorted(store.read_json(PICTURES).items()):
        try:
            kept = store.read_json(f"picture/{key}/report.json")
        except StoreError:
            continue  # the arrays of the picture were cleared away
        if set(kept["masters"]) <= masters:
            steps = [(label, f"data:image/jpeg;base64,{data}") for label, data in kept["steps"]]
            found.append(PictureReport(name=target, key=key, facts=kept["facts"], steps=steps))
    return found
