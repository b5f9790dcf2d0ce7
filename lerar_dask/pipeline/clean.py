"""What a store holds beyond the run it serves, and freeing it: all of it can be made again.

Solutions, tables and masters of earlier settings or earlier frames; on demand the raw pixels too, of subs whose files are
there and have not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
        found = {kind: tuple(_stale(store, state, kind)) for kind in _WORDS if kind != "raw"}
        if raw:
            found["raw"] = tuple(_raw_of_files(store, state))
        spare = [
            Spare(kind=kind, paths=paths, n_bytes=sum(store.bytes_below(path) for path in paths))
            for kind, paths in found.items()
            if paths
        ]
        if not dry_run:
            for item in spare:
                for path in item.paths:
                    store.delete(path)
    return sorted(spare, key=lambda item: -item.n_bytes)


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
        for geometry in store.geometries():  # of subs: images given by --ln-reference are measured apart
            keys = store.names(f"measures/{geometry}")
            yield from (f"measures/{geometry}/{key}" for key in keys if (geometry, key) not in kept)
        return
    yield from (f"{kind}/{key}" for key in store.names(kind) if key not in used[kind])


def _raw_of_files(store: Store, state: RunState) -> Iterator[str]:
    """Raw pixels of subs that could be read again as they were."""
    known = store.ledger.load()
    for sub in (s for t in state.targets.values() for s in t.subs):
        record = known.get(f"ingest/{sub.path}")
        frame = probe(Path(sub.path))
        if record and not frame.problem and record["result"].get("raw") == raw_digest(frame):
            path = f"raw/{sub.geometry}/pixels/c/{sub.slot}"
            if store.place(path).exists():
                yield path
