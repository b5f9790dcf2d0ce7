"""The ledger: what was done with which inputs, as append-only segments of JSON lines.

One segment per writer; a line is written after what it tells of has its final name, and carries a checksum
(store/document.py). The last record of a key wins, ordered by sequence number, never by a clock. A torn last line is
skipped; other lines that are damaged are counted, and what they told is done again. Under the lock all segments are
compacted into one when there are many, or when lines are damaged.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lerar_dask.errors import unreadable_part
from lerar_dask.store.document import has_sum, pack, unpack
from lerar_dask.store.fields import fits, is_record
from lerar_dask.store.storage import Appender, Place

__all__ = ["Ledger"]

_COMPACT_FROM = 8


class Ledger:
    """Segments in one folder."""

    def __init__(self, folder: Place) -> None:
        self.folder = folder

    def load(self) -> dict[str, dict[str, Any]]:
        """Last record of each key."""
        return self._read()[0]

    def take(self) -> tuple[dict[str, dict[str, Any]], int]:
        """Last record of each key and the number of damaged lines (only under the store's lock).

        All segments are written into one where that pays; the damaged lines are gone then.
        """
        segments = self._segments()
        latest, damaged = self._read()
        if len(segments) >= _COMPACT_FROM or damaged:
            text = b"".join(pack(record) + b"\n" for record in latest.values())
            (self.folder / f"compact-{uuid.uuid4().hex[:12]}.jsonl").put(text)
            for segment in segments:
                segment.storage.delete(segment.path)
        return latest, damaged

    def damaged(self) -> int:
        """Number of lines that are not as they were written."""
        return self._read()[1]

    def _read(self) -> tuple[dict[str, dict[str, Any]], int]:
        latest: dict[str, dict[str, Any]] = {}
        damaged = 0
        for segment in self._segments():
            *lines, _torn = _bytes_of(segment).split(b"\n")
            for line in lines:
                record = _record_of(line)
                if record is None:
                    damaged += 1
                    continue
                known = latest.get(record["key"])
                if known is None or record["seq"] >= known["seq"]:
                    latest[record["key"]] = record
        return latest, damaged

    @contextmanager
    def writer(self, name: str, known: Mapping[str, Mapping[str, Any]]) -> Iterator[LedgerWriter]:
        """Open a segment of one's own, whose records come after all that are known."""
        start = 1 + max((record["seq"] for record in known.values()), default=0)
        segment = self.folder / f"{name}-{uuid.uuid4().hex[:12]}.jsonl"
        with segment.storage.append(segment.path) as appender:
            yield LedgerWriter(appender, start)

    def _segments(self) -> list[Place]:
        return [self.folder / name for name in self.folder.names()[1] if name.endswith(".jsonl")]


def _bytes_of(segment: Place) -> bytes:
    try:
        return segment.get()
    except OSError as error:
        raise unreadable_part(segment, error) from error


def _record_of(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where it is damaged."""
    try:
        record = unpack(line)
        told = fits(record, {"key": str, "seq": int})
    except (ValueError, RecursionError):
        return None
    return dict(record) if told and (is_record(record) or not has_sum(line)) else None


class LedgerWriter:
    """Appends records to one segment."""

    def __init__(self, appender: Appender, sequence: int) -> None:
        self._appender, self._sequence = appender, sequence

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record (JSON types)."""
        self._appender.append(pack({**record, "seq": self._sequence}) + b"\n")
        self._sequence += 1
