"""A session: one store under its lock, its ledger, and the way steps are run in it.

`Session.run(step)` runs what the ledger does not know as done with today's digest, appends every record the moment it
comes, and returns the records of all tasks of the step, old and new.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lerar_dask.errors import DamagedError, LerarError, WaitingError
from lerar_dask.pipeline.preload import Beside
from lerar_dask.replay import LEFT
from lerar_dask.runtime import events, memory
from lerar_dask.runtime.run import run_step
from lerar_dask.settings import Settings
from lerar_dask.store.access import Store
from lerar_dask.tasks import AGAIN, Record, Step, Task, step_to_plain

__all__ = ["Session", "is_done", "stop_on_failure"]

_RECORD_BYTES = 16 << 10
"""What this process keeps for each thing that the ledger knows: records, frames and their headers, indices of shards."""
_GROWTH_BYTES = 64 << 20
"""What it keeps of one step more, beside its tables: records, kernels that it loads."""
_SHORT = 2
"""Tasks beside a step for each core that it leaves idle: they are short."""


class Session:
    """What the stages of one run share."""

    def __init__(
        self,
        store: Store,
        out: Path,
        settings: Settings,
        bus: events.Bus,
        executor: Any,
        beside: Beside | None = None,
        apart: Collection[str] = (),
    ) -> None:
        self.store = store
        self.out = out
        """Folder of the products."""
        self.settings = settings
        self.bus = bus
        self.executor = executor
        self.beside = beside
        """Processes that work ahead."""
        self.apart = apart
        """Names of steps whose tasks are left to other jobs."""
        self.left: list[Step] = []
        """What is left to them, not done yet."""
        self.steps: list[Step] = []
        """Every step on the way to the masters, done before or now."""
        self.healed: list[str] = []
        """Sentences on damaged parts of the store that were made again."""
        self.n_run = 0
        self.n_failed = 0
        self.seconds: dict[str, float] = {}
        """Seconds in tasks by stage, of this run."""
        self.pixels: dict[str, int] = {}
        self.walls: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.read_bytes = 0
        self.written_bytes = 0
        self.known: dict[str, dict[str, Any]] = {}
        self.n_damaged_lines = 0
        """Of the ledger."""
        self._writer: Any = None
        self._waiting: list[tuple[Step, Task]] = []

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Read the ledger and open a segment of it for this driver."""
        self.known, self.n_damaged_lines = self.store.ledger.take()
        with self.store.ledger.writer("driver", self.known) as writer:
            self._writer = writer
            yield self

    def begin(self) -> None:
        """Start over with the stages; what is known stays known."""
        self.steps, self.left, self._waiting = [], [], []

    def is_done(self, task: Task) -> bool:
        """Whether the ledger has a result of exactly this task."""
        return is_done(self.known, task)

    def _is_aside(self, task: Task) -> bool:
        return bool(self.known[task.key]["state"] == "aside")

    def run(self, step: Step) -> dict[str, Mapping[str, Any]]:
        """Run the tasks of a step that are not done; records of all its tasks by key.

        Raises
        ------
        DamagedError
            after the step, when tasks met damaged parts of the store.
        WaitingError
            when the step is left to other jobs and not done.
        """
        if step.tasks:
            self.steps.append(step)
        todo = self._todo(step)
        if todo and step.name in self.apart:
            self.left.append(dataclasses.replace(step, tasks=todo))
            raise WaitingError(f"{step.name}: {len(todo)} tasks are not done", f"lerar stage {step.name} does them")
        if todo:
            in_background = self._waiting[: _SHORT * max(0, self.executor.slots - len(todo))]
            self._waiting = self._waiting[len(in_background) :]
            self._run_tasks(dataclasses.replace(step, tasks=todo), in_background)
        return {t.key: self.known[t.key] for t in step.tasks if t.key in self.known}

    def in_background(self, step: Step) -> None:
        """Tasks that no step waits for: they run beside steps that leave cores idle, at the latest in `run_waiting`."""
        self._waiting += [(step, task) for task in self._todo(step)]

    def run_waiting(self) -> None:
        """Run what is left of the tasks that were to run beside others."""
        for step in {id(step): step for step, _ in self._waiting}.values():
            self._run_tasks(dataclasses.replace(step, tasks=[t for s, t in self._waiting if s is step]), [])
        self._waiting = []

    def _todo(self, step: Step) -> list[Task]:
        return [t for t in step.tasks if not (self.is_done(t) and (self._is_aside(t) or step.is_there(self.store, t)))]

    def _run_tasks(self, step: Step, in_background: Sequence[tuple[Step, Task]]) -> None:
        start = time.monotonic()
        stage_of = {task.key: step.name for task in step.tasks} | {
            task.key: other.name for other, task in in_background
        }
        together = dataclasses.replace(
            step,
            tasks=[*step.tasks, *(task for _, task in in_background)],
            task_bytes=max([step.task_bytes, *(other.task_bytes for other, _ in in_background)]),
        )
        if self.beside:
            self.beside.make_room(together, self.executor)
        damaged: list[str] = []
        for record in run_step(together, self.executor, self.bus):
            plain = dict(vars(record))
            lost = record.result.get("damaged", ()) if record.state == "failed" else ()
            damaged += lost
            self._writer.append(plain)
            self.known[record.key] = plain
            self.n_run += 1
            self.n_failed += record.state == "failed" and not lost
            stage = stage_of[record.key]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + record.seconds
            self.counts[stage] = self.counts.get(stage, 0) + 1
            self.read_bytes += record.result.get("read_bytes", 0)
            self.written_bytes += record.result.get("written_bytes", 0)
        for name, wall, pixels in [
            (step.name, time.monotonic() - start, step.pixels),
            *((other.name, 0.0, task.pixels) for other, task in in_background),
        ]:
            self.walls[name] = self.walls.get(name, 0.0) + wall
            self.pixels[name] = self.pixels.get(name, 0) + pixels
        if damaged:
            parts = sorted(set(damaged))
            raise DamagedError(f"{len(parts)} part{'s' * (len(parts) > 1)} of the store damaged: {parts[0]}", parts)

    def resident_bytes(self, tables: int) -> int:
        """Memory that is not free for tasks: libraries and kernels, and what the process keeps for all tasks.

        As it is foretold; where tasks run in this process, what it holds already counts if that is more.
        """
        foretold = memory.RESERVED_BYTES + tables + _RECORD_BYTES * len(self.known)
        return max(foretold, self.executor.held_bytes() + tables + _GROWTH_BYTES)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is to be tried again by the next call."""
        return not any((record.get("result") or {}).get(AGAIN) for record in self.known.values())

    def keep_left(self) -> None:
        """Write the tasks that are left to other jobs into the store."""
        self.store.write_json(LEFT, [step_to_plain(step) for step in self.left])

    def note(self, key: str, digest: str, reason: str = "", result: Mapping[str, Any] | None = None) -> None:
        """Remember something that the driver itself has done."""
        plain = dict(vars(Record(key=key, digest=digest, state="done", reason=reason, result=result or {})))
        self._writer.append(plain)
        self.known[key] = plain


def is_done(known: Mapping[str, Mapping[str, Any]], task: Task) -> bool:
    """Whether records of a ledger, by key, have a result of exactly this task."""
    record = known.get(task.key)
    if record is None or record["digest"] != task.digest or (record.get("result") or {}).get(AGAIN):
        return False
    return record["state"] in ("done", "aside")


def stop_on_failure(records: Mapping[str, Mapping[str, Any]]) -> None:
    """A failed task of these stages leaves its group without a master."""
    for record in records.values():
        if record["state"] != "done":
            raise LerarError(f"{record['key']}: {record['reason']}")
