"""Files that the driver itself writes: made again whenever what they tell has changed, and only then.

A file is noted in the ledger, with what it was made of and its size, after it has its final name. So it is written again
after a kill between two files, when frames changed without a task to run, and when it was deleted or cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lerar_dask.identity import digest
from lerar_dask.pipeline.session import Session
from lerar_dask.tasks import Step, step_to_plain

__all__ = ["as_files", "is_kept", "keep_file", "keep_steps", "told_of"]


def is_kept(session: Session, path: Path, made_of: str) -> bool:
    """Whether a file is there that was made of just this."""
    return _is_known(session, path.name, made_of, _size(path))


def keep_file(
    session: Session, path: Path, made_of: str, write: Callable[[], object], told: Mapping[str, Any] | None = None
) -> bool:
    """Write a file unless it is there and was made of the same; whether it was written.

    Parameters
    ----------
    made_of : digest of all that goes into it
    write : writes it, whole or not at all
    told : what else is to be remembered of it (JSON types)
    """
    if is_kept(session, path, made_of):
        return False
    write()
    session.note(_key(path.name), made_of, result={"written_bytes": path.stat().st_size, **(told or {})})
    return True


def keep_steps(session: Session) -> bool:
    """Write what `lerar_dask.run.Run.graph` needs; whether it was written."""
    store, name = session.store, "steps.json"
    made_of = digest("steps", [(step.name, [(t.key, t.digest) for t in step.tasks]) for step in session.steps])
    if _is_known(session, name, made_of, store.size(name)):
        return False
    store.write_json(name, [step_to_plain(step) for step in session.steps])
    session.note(_key(name), made_of, result={"written_bytes": store.size(name)})
    return True


def as_files(session: Session, step: Step) -> Step:
    """A step whose tasks write files into OUT: done while each still lies there, as long as it was."""
    return dataclasses.replace(
        step, is_there=lambda _, task: _is_as_long(session.known[task.key], _size(Path(task.arguments["path"])))
    )


def told_of(session: Session, path: Path) -> Mapping[str, Any]:
    """What is remembered of a file; nothing where it was never written."""
    record = session.known.get(_key(path.name))
    return record["result"] if record else {}


def _key(name: str) -> str:
    return f"file/{name}"


def _is_known(session: Session, name: str, made_of: str, size: int | None) -> bool:
    """Whether the ledger knows a file as made of just this, and as long as it is."""
    record = session.known.get(_key(name))
    return record is not None and record["digest"] == made_of and _is_as_long(record, size)


def _is_as_long(record: Mapping[str, Any], size: int | None) -> bool:
    return size is not None and size == record["result"].get("written_bytes")


def _size(path: Path) -> int | None:
    """Bytes of a plain file; None where there is none, as a symbolic link."""
    return path.stat().st_size if path.is_file() and not path.is_symlink() else None
