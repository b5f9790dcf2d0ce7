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
    record = session.known.get(_key(path))
    return record is not None and record["digest"] == made_of and _lies_there(path, record)


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
    session.note(_key(path), made_of, result={"written_bytes": path.stat().st_size, **(told or {})})
    return True


def keep_steps(session: Session) -> bool:
    """Write what `lerar_dask.run.Run.graph` needs; whether it was written."""
    store = session.store
    made_of = digest("steps", [(step.name, [(t.key, t.digest) for t in step.tasks]) for step in session.steps])

    def write() -> None:
        store.write_json("steps.json", [step_to_plain(step) for step in session.steps])

    return keep_file(session, store.path / "steps.json", made_of, write)


def as_files(session: Session, step: Step) -> Step:
    """A step whose tasks write files into OUT: done while each still lies there, as long as it was."""
    return dataclasses.replace(
        step, is_there=lambda _, task: _lies_there(Path(task.arguments["path"]), session.known[task.key])
    )


def told_of(session: Session, path: Path) -> Mapping[str, Any]:
    """What is remembered of a file; nothing where it was never written."""
    record = session.known.get(_key(path))
    return record["result"] if record else {}


def _key(path: Path) -> str:
    return f"file/{path.name}"


def _lies_there(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether a plain file, as long as the ledger says, lies at a path; a symbolic link is none."""
    plain = path.is_file() and not path.is_symlink()
    return plain and path.stat().st_size == record["result"].get("written_bytes")
