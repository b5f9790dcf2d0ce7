"""What a store holds beyond the run it serves, and freeing it: all of it can be made again.

Solutions, tables and masters of earlier settings or earlier frames; on demand the raw pixels too, of subs whose files are
there and have not changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lerar_dask.errors import StoreError
from lerar_dask.frames.scan import probe
from lerar_dask.run import Run, RunState, store_of
from lerar_dask.stages.ingest import raw_digest
from lerar_dask.store.access import Store

__all__ = ["Spare", "clean"]

_WORDS = {
    "registration": "registrations of earlier frames or settings",
    "normalization": "normalizations of earlier frames or settings",
    "stack": "stack tables of earlier frames or settings",
    "master": "masters of earlier frames or settings",
    "picture": "steps of the pictures",
    "measures": "measurements with earlier calibrations or settings",
    "raw": "raw pixels of subs whose files are there",
}


@dataclass(frozen=True, kw_only=True)
class Spare:
    """Something that can be freed."""

    kind: str
    """First folder of its path in the store."""
    paths: tuple[str, ...]
    n_bytes: int

    @property
    def words(self) -> str:
        """What it is."""
        return _WORDS[self.kind]


def clean(out: Path, *, raw: bool = False, dry_run: bool = False) -> list[Spare]:
    """Free what can be made again; what it was, largest first.

    Parameters
    ----------
    raw : raw pixels, too: the next run that needs them reads the files again
    dry_run : free nothing

    Raises
    ------
    StoreError
        when there is no run, or it has not come to its end.
    """
    store = Store.open(store_of(out))
    with store.lock():
        state = Run.open(out).state
        spare = [item for kind in _WORDS if (item := _spare(store, state, kind, raw=raw)).paths]
        for item in () if dry_run else spare:
            for path in item.paths:
                store.delete(path)
        if not dry_run:
            store.sweep()
    return sorted(spare, key=lambda item: -item.n_bytes)


def _spare(store: Store, state: RunState, kind: str, *, raw: bool) -> Spare:
    paths = (
        tuple(_raw_of_files(store, state) if kind == "raw" else _stale(store, state, kind))
        if raw or kind != "raw"
        else ()
    )
    return Spare(kind=kind, paths=paths, n_bytes=sum(_bytes(store, path) for path in paths))


def _stale(store: Store, state: RunState, kind: str) -> Iterator[str]:
    """Paths of one kind that no group of the run uses."""
    groups, subs = state.groups.values(), [s for t in state.targets.values() for s in t.subs]
    used = {
        "registration": {t.registration for t in state.targets.values()},
        "normalization": {g.normalization for g in groups},
        "stack": {key for g in groups for key in (g.table, g.lnref_table)},
        "master": {key for g in groups for key in (g.master, g.drizzled, g.lnref)},
        "picture": set(),
    }
    if kind == "measures":
        kept = {(s.geometry, s.measure) for s in subs}
        for geometry in store.names("measures"):
            yield from (
                f"measures/{geometry}/{k}" for k in store.names(f"measures/{geometry}") if (geometry, k) not in kept
            )
        return
    yield from (f"{kind}/{key}" for key in store.names(kind) if key not in used[kind])


def _raw_of_files(store: Store, state: RunState) -> Iterator[str]:
    """Raw pixels of subs that could be read again as they were."""
    known = store.ledger.load()
    for sub in (s for t in state.targets.values() for s in t.subs):
        record = known.get(f"ingest/{sub.path}")
        frame = probe(Path(sub.path))
        if record and not frame.problem and record["result"].get("raw") == raw_digest(frame):
            yield f"raw/{sub.geometry}/pixels/c/{sub.slot}"


def _bytes(store: Store, path: str) -> int:
    place = Path(store.url) / path
    if "://" in store.url:
        raise StoreError(f"{store.url} is no folder", "lerar clean works on stores on a disk")
    if place.is_file():
        return place.stat().st_size
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(place) for name in names)
