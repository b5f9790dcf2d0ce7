"""Whether a run stands as it was left: the same frames, settings and program, and every file of the run untouched.

Told by names, sizes and times alone, before anything of the pipeline is loaded: what is finished answers at once. Whatever
differs, if only a time, is left to the pipeline, which knows what it means.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerar_dask.identity import digest
from lerar_dask.settings import Settings
from lerar_dask.summary import GroupSummary, Summary

__all__ = ["Seen", "keep_standing", "see", "standing_summary"]

_NAME = ".standing.json"
"""File beside the products."""
_PASSING = {_NAME, "lerar.log", "lock", "ledger"}
"""What of a run changes without a change of the run: the ledger is put in order at times."""
_PROGRAM = Path(__file__).parent
_Row = tuple[str, int, int]


@dataclass(frozen=True)
class Seen:
    """What a run depends on, as it was before the run looked at it."""

    out: Path
    store: Path
    digest: str
    """Of frames, settings, files that settings name, and program."""


def see(nights: Sequence[Path], out: Path, settings: Settings) -> Seen | None:
    """Look at all that a run depends on; None where frames or store lie in a bucket, or links make it unsure.

    To be called before the frames are scanned: what comes during the run must not count as seen by it.
    """
    from lerar_dask.store.storage import bucket_of  # takes numpy, which the command's help must not wait for

    out, url = Path(out).absolute(), settings.run.store or str(Path(out).absolute() / "store.zarr")
    if bucket_of(url) or any(bucket_of(night) for night in nights):
        return None
    store = Path(url).absolute()
    values = {stage.name: dataclasses.asdict(getattr(settings, stage.name)) for stage in dataclasses.fields(settings)}
    places = [str(Path(night).absolute()) for night in nights]
    with suppress(OSError, _UnsureError):
        rows = [
            *_files(_PROGRAM, skip=("__pycache__",)),
            *(row for night in places for row in _files(Path(night), without=(out, store))),
            *_named(values),
        ]
        return Seen(out, store, digest("seen", places, str(out), str(store), values, rows))
    return None


def standing_summary(nights: Sequence[Path], out: Path, settings: Settings) -> Summary | None:
    """What is to be told of a finished run; None where it does not stand as it was left, or that cannot be told."""
    kept = _kept(Path(out).absolute())
    if not kept or (seen := see(nights, out, settings)) is None:
        return None
    with suppress(OSError, _UnsureError, KeyError, TypeError):
        if kept["made_of"] == _made_of(seen):
            return _from_plain(kept["summary"])
    return None


def keep_standing(seen: Seen, summary: Summary) -> None:
    """Remember how a run that is done was left."""
    with suppress(OSError, _UnsureError):
        kept = seen.out / _NAME
        made_of = _made_of(seen)
        if _kept(seen.out).get("made_of") != made_of:
            partial = kept.with_name(f"{_NAME}.{os.getpid()}")
            text = json.dumps({"made_of": made_of, "summary": dataclasses.asdict(summary)}, default=str)
            partial.write_text(text)
            partial.replace(kept)


def _kept(out: Path) -> dict[str, Any]:
    """What was remembered; nothing where that cannot be read."""
    with suppress(OSError, ValueError):
        kept = json.loads((out / _NAME).read_text())
        return kept if isinstance(kept, dict) else {}
    return {}


def _made_of(seen: Seen) -> str:
    """What a run depends on, and all files that it left."""
    left = [*_files(seen.out, skip=_PASSING, without=(seen.store,)), *_files(seen.store, skip=_PASSING)]
    return digest("standing", seen.digest, left)


class _UnsureError(Exception):
    """A folder that is a link to another one."""


def _files(folder: Path, *, skip: Sequence[str] | set[str] = (), without: Sequence[Path] = ()) -> Iterator[_Row]:
    """Path, size and time of all files below a folder, in order."""
    apart, todo = {str(path) for path in without}, [str(folder)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.name in skip or entry.path in apart:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                    continue
                if entry.is_symlink() and entry.is_dir():
                    raise _UnsureError
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns


def _named(value: Any) -> Iterator[_Row]:
    """Files that settings name."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _named(one)
    elif isinstance(value, str | Path) and os.path.isfile(value):
        status = os.stat(value)
        yield str(value), status.st_size, status.st_mtime_ns


def _from_plain(plain: dict[str, Any]) -> Summary:
    """The summary that was kept, of a run that has nothing to do now."""

    def path(value: str | None) -> Path | None:
        return None if value is None else Path(value)

    files = ("master", "preview", "drizzled", "lnref")
    groups = [GroupSummary(**{**group, **{name: path(group[name]) for name in files}}) for group in plain["groups"]]
    own = {
        "out": Path(plain["out"]),
        "groups": groups,
        "aside": [(one, reason) for one, reason in plain["aside"]],
        "report": path(plain["report"]),
        "did_nothing": True,
        "seconds": 0.0,
        "peak_bytes": 0,
        "read_bytes": 0,
        "written_bytes": 0,
    }
    return Summary(**{**plain, **own})
