"""Task, Step, Plan, Record: plain values that pickle, print and count.

A *task* is one unit of work: a module-level function and small picklable arguments (a store URL, names, numbers,
settings; never pixels). It opens the store itself, writes only what it owns, may run twice with the same result, and
returns a small dict. A *step* is a list of tasks without an order among themselves; a *plan* is a list of steps, each a
barrier for the next. A *record* is what is remembered of a task that ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Plan", "Record", "Step", "Task"]

State = Literal["done", "aside", "failed"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One unit of work."""

    key: str
    """What is made: `ingest/<path>`, `integrate/M31_L/3.4`; unique within a run."""
    digest: str
    """Hash of everything the result depends on: inputs, settings, the stage's code version."""
    function: Callable[..., Mapping[str, Any]]
    """Module-level function, called with `arguments`; returns a small dict (JSON types)."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Small picklable values."""
    pixels: int = 0
    """Samples that the task goes through: the unit of progress."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Tasks that may run in any order and at the same time."""

    name: str
    """Stage, and round where a stage has several: `ingest`, `register: match`."""
    tasks: Sequence[Task]
    task_bytes: int = 0
    """Memory that one running task needs at most, beyond what the process has."""

    @property
    def pixels(self) -> int:
        """Samples in all tasks."""
        return sum(task.pixels for task in self.tasks)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps in their order."""

    steps: Sequence[Step]

    @property
    def n_tasks(self) -> int:
        """Tasks in all steps."""
        return sum(len(step.tasks) for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is remembered of a task that ran."""

    key: str
    digest: str
    state: State
    """done; aside: its data cannot be used, for the reason given; failed: a fault of ours or of the machine."""
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    """What the task returned."""
    seconds: float = 0.0
    peak_bytes: int = 0
    host: str = ""
