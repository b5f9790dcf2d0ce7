"""The ledger: what was done with which inputs, as append-only segments of JSON lines.

One segment per writer; a line is written after what it tells of has its final name, and carries a checksum
(store/document.py). The last record of a key wins, ordered by sequence number, never by a clock. A torn last line is
skipped; other lines that are damaged are counted, and what they told is done again. Under the lock all segments are
compacted into one when there are many, or when lines are damaged.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lerar_dask.errors import unreadable_part
from lerar_dask.store.document import has_sum, pack, unpack
from lerar_dask.store.fields import fits, is_record
from lerar_dask.store.shard import write_atomically

__all__ = ["Ledger"]

_COMPACT_FROM = 8


class Ledger:
    """Segments in one folder."""

    def __init__(self, folder: Path) -> None:
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
            write_atomically(self.folder / f"compact-{uuid.uuid4().hex[:12]}.jsonl", text)
            for segment in segments:
                segment.unlink()
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
        self.folder.mkdir(parents=True, exist_ok=True)
        start = 1 + max((record["seq"] for record in known.values()), default=0)
        path = self.folder / f"{name}-{uuid.uuid4().hex[:12]}.jsonl"
        writer = LedgerWriter(path, start)
        try:
            yield writer
        finally:
            writer.close()

    def _segments(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*.jsonl") if p.is_file()) if self.folder.is_dir() else []


def _bytes_of(segment: Path) -> bytes:
    try:
        return segment.read_bytes()
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
    """Appends records to one segment; the file is made with the first record."""

    def __init__(self, path: Path, sequence: int) -> None:
        self._path, self._sequence = path, sequence
        self._descriptor = -1

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record (JSON types) in one write."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        line = pack({**record, "seq": self._sequence}) + b"\n"
        self._sequence += 1
        if os.write(self._descriptor, line) < len(line):  # a disk that is nearly full takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def close(self) -> None:
        """Close the segment."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
