"""What happens during a run, as typed values; whoever shows or keeps them subscribes to the bus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lerar_dask.tasks import Record

__all__ = [
    "Bus",
    "Event",
    "Note",
    "RunFinished",
    "RunStarted",
    "StepFinished",
    "StepStarted",
    "TaskFinished",
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A run begins."""

    out: str
    threads: int
    budget_bytes: int


@dataclass(frozen=True, kw_only=True)
class StepStarted(Event):
    """A step's tasks begin."""

    step: str
    n_tasks: int
    pixels: int


@dataclass(frozen=True, kw_only=True)
class TaskFinished(Event):
    """A task has ended, well or not."""

    step: str
    record: Record
    pixels: int


@dataclass(frozen=True, kw_only=True)
class StepFinished(Event):
    """All tasks of a step have ended."""

    step: str
    seconds: float
    n_done: int
    n_aside: int
    n_failed: int


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """A sentence for the user."""

    text: str
    level: str = "info"
    """info, warning."""


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run has ended."""

    seconds: float
    exit_code: int


@dataclass
class Bus:
    """Hands every event to every subscriber, in the driver's thread."""

    subscribers: list[Callable[[Event], None]] = field(default_factory=list)

    def subscribe(self, consumer: Callable[[Event], None]) -> None:
        """Add a consumer."""
        self.subscribers.append(consumer)

    def emit(self, event: Event) -> None:
        """Tell all consumers."""
        for consumer in self.subscribers:
            consumer(event)
