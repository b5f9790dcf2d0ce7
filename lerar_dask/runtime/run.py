"""Run the tasks of a step on an executor and tell the bus; records come in the order of completion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from lerar_dask.errors import MemoryBudgetError, SpaceError
from lerar_dask.runtime.events import Bus, StepFinished, StepStarted, TaskFinished
from lerar_dask.runtime.memory import RESERVED_BYTES, format_bytes
from lerar_dask.tasks import Record, Step, Task

__all__ = ["Executor", "check_memory", "run_step"]


class Executor(Protocol):
    """Something that runs tasks: threads of this process, or a dask cluster."""

    slots: int
    """Tasks at the same time."""
    budget_bytes: int
    """Memory for all of them."""

    dashboard: str
    """Address of a page to look on; empty: there is none."""

    def held_bytes(self) -> int:
        """Memory of the budget that the process which tasks run in holds already; 0 where they run in others."""
        ...

    def run(self, tasks: Iterator[Task], slots: int) -> Iterator[Record | SpaceError]:
        """Run tasks, at most `slots` at a time; results as they come."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


def run_step(step: Step, executor: Executor, bus: Bus) -> Iterator[Record]:
    """Run a step.

    Raises
    ------
    SpaceError
        at once, when a disk is full or read-only.
    MemoryBudgetError
        before anything runs, when not even one task fits.
    """
    slots = check_memory(step, executor)
    start = time.monotonic()
    counts = {"done": 0, "aside": 0, "failed": 0}
    pixels = {task.key: task.pixels for task in step.tasks}
    bus.emit(StepStarted(step=step.name, n_tasks=len(step.tasks), pixels=step.pixels))
    for record in executor.run(iter(step.tasks), slots):
        if isinstance(record, SpaceError):
            raise record
        counts[record.state] += 1
        yield record
        bus.emit(TaskFinished(step=step.name, record=record, pixels=pixels[record.key]))
    seconds = time.monotonic() - start
    bus.emit(
        StepFinished(
            step=step.name, seconds=seconds, n_done=counts["done"], n_aside=counts["aside"], n_failed=counts["failed"]
        )
    )


def check_memory(step: Step, executor: Executor) -> int:
    """Tasks of a step that may run at the same time within the budget."""
    room = executor.budget_bytes - RESERVED_BYTES
    if step.task_bytes > room:
        raise MemoryBudgetError(
            f"{step.name} needs {format_bytes(RESERVED_BYTES + step.task_bytes)}, "
            f"{format_bytes(executor.budget_bytes)} are given",
            f"give --memory {format_bytes(1.02 * (RESERVED_BYTES + step.task_bytes)).replace(' ', '')} or more",
        )
    return max(1, min(executor.slots, room // step.task_bytes if step.task_bytes else executor.slots))
