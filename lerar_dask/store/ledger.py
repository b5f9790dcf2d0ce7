"""The ledger: what was done with which inputs, as append-only segments of JSON lines.

One segment per writer; a line is written after what it tells of has its final name. The last record of a key wins,
ordered by sequence number, never by a clock. A torn last line is skipped. Under the lock all segments are compacted
into one when there are many.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lerar_dask.store.shard import write_atomically

__all__ = ["Ledger"]

_COMPACT_FROM = 8


class Ledger:
    """Segments in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> dict[str, dict[str, Any]]:
        """Last record of each key."""
        latest: dict[str, dict[str, Any]] = {}
        for segment in self._segments():
            for line in segment.read_bytes().split(b"\n"):
                try:
                    record = json.loads(line)
                    if not isinstance(record["seq"], int):
                        continue
                    known = latest.get(record["key"])
                    if known is None or record["seq"] >= known["seq"]:
                        latest[record["key"]] = record
                except (ValueError, KeyError, TypeError):
                    continue
        return latest

    def compact(self) -> None:
        """Write all segments into one (only under the store's lock)."""
        segments = self._segments()
        if len(segments) < _COMPACT_FROM:
            return
        text = "".join(json.dumps(record) + "\n" for record in self.load().values())
        write_atomically(self.folder / f"compact-{uuid.uuid4().hex[:12]}.jsonl", text.encode())
        for segment in segments:
            segment.unlink()

    @contextmanager
    def writer(self, name: str) -> Iterator[LedgerWriter]:
        """Open a segment of one's own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        start = 1 + max((record["seq"] for record in self.load().values()), default=0)
        path = self.folder / f"{name}-{uuid.uuid4().hex[:12]}.jsonl"
        writer = LedgerWriter(path, start)
        try:
            yield writer
        finally:
            writer.close()

    def _segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []


class LedgerWriter:
    """Appends records to one segment; the file is made with the first record."""

    def __init__(self, path: Path, sequence: int) -> None:
        self._path, self._sequence = path, sequence
        self._descriptor = -1

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record (JSON types) in one write."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        line = (json.dumps({**record, "seq": self._sequence}) + "\n").encode()
        self._sequence += 1
        if os.write(self._descriptor, line) < len(line):  # a disk that is nearly full takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def close(self) -> None:
        """Close the segment."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
