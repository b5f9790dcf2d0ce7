"""Damaged parts of the store, made again: what is broken is taken away, and the run goes over its stages once more.

Everything that is whole is in the ledger and is not done again; the subs' pixels come from their files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from lerar_dask.errors import DamagedError, StoreError
from lerar_dask.pipeline.session import Session
from lerar_dask.runtime.events import Note
from lerar_dask.store.document import NODE
from lerar_dask.store.repair import damaged_nodes, remove_part

__all__ = ["mend_nodes", "until_whole"]

Result = TypeVar("Result")

_MOST = 2
"""Times that one part is made again in a run: a disk that loses it thrice is broken."""
_WORDS = {
    "calibration": "a calibration master",
    "registration": "a registration",
    "normalization": "a normalization",
    "stack": "a stack table",
    "master": "a part of a master",
    "picture": "a part of a picture",
}
_OF_SUBS = {"raw": "the raw pixels of", "measures": "the measurements of"}
_OF_A_SUB = re.compile(r"(?:raw|measures)/([^/]+)/(?:pixels/c|frames|[^/]+/summary|[^/]+/[^/]+/c)/(\d+)")


def until_whole(session: Session, work: Callable[[], Result]) -> Result:
    """Do the work; where it meets damaged parts of the store, take them away and do it again.

    Raises
    ------
    StoreError
        when a part is damaged again and again.
    """
    tries: Counter[str] = Counter()
    while True:
        session.begin()
        try:
            return work()
        except DamagedError as error:
            tries.update(error.parts)
            again = [part for part in error.parts if tries[part] > _MOST]
            if again or not error.parts:
                hint = "the disk does not keep what is written: check it, or give --store on another"
                raise StoreError(f"{error.message} (made again {_MOST} times)", hint) from error
            _mend(session, error.parts)


def mend_nodes(session: Session) -> None:
    """Tell of lines of the ledger, and mend descriptions of arrays, before the work begins."""
    if lines := session.n_damaged_lines:
        _tell(session, f"{lines} line{'s' * (lines > 1)} of the store's ledger damaged: what they told is done again")
    if parts := damaged_nodes(session.store):
        _mend(session, parts)


def _mend(session: Session, parts: tuple[str, ...] | list[str]) -> None:
    """Take parts away, and say which."""
    for part in sorted(set(parts)):
        remove_part(session.store, part)
    files = _files(session)
    for words, count in sorted(Counter(_words(part, files) for part in set(parts)).items()):
        more = f" ({count} parts)" if count > 1 else ""
        _tell(session, f"damaged in the store: {words}{more}; made again")


def _words(part: str, files: Mapping[tuple[str, str], str]) -> str:
    """What a part is to a user: of a sub by the name of its file, else its path where words would say less."""
    kind = part.partition("/")[0]
    if of_a_sub := _OF_A_SUB.match(part):
        name = files.get((of_a_sub[1], of_a_sub[2]))
        return f"{_OF_SUBS[kind]} {name}" if name else part
    return part if part.endswith(f"/{NODE}") else _WORDS.get(kind, part)


def _files(session: Session) -> dict[tuple[str, str], str]:
    """Name of the file of each sub in the store, by geometry and slot, as far as the ledger tells it."""
    results = ((r["key"], r.get("result") or {}) for r in session.known.values() if r["key"].startswith("ingest/"))
    return {(r["geometry"], str(r["slot"])): key.rpartition("/")[2] for key, r in results if "slot" in r}


def _tell(session: Session, text: str) -> None:
    session.healed.append(text)
    session.bus.emit(Note(text=text, level="warning"))
