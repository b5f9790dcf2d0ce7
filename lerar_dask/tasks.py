"""Task, Step, Plan, Record: plain values that pickle, print and count.

A *task* is one unit of work: a module-level function and small picklable arguments (a store URL, names, numbers,
settings; never pixels). It opens the store itself, writes only what it owns, may run twice with the same result, and
returns a small dict. A *step* is a list of tasks without an order among themselves; a *plan* is a list of steps, each a
barrier for the next. A *record* is what is remembered of a task that ran.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

__all__ = ["CORES", "Plan", "Record", "Step", "Task", "name_of", "step_from_plain", "step_to_plain"]

CORES: ContextVar[int] = ContextVar("cores", default=1)
"""Cores that the task which runs may use: of a step with few tasks more than one."""
AGAIN = "again"
"""Result of a task whose data could not be reached: the next call does it again."""
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
    group: str = ""
    """Group whose master alone it leads to; empty: several may need it."""
    task_bytes: int = 0
    """Memory that one running task needs at most, beyond what the process has."""
    is_there: Callable[[Any, Task], bool] = lambda _store, _task: True
    """Says of a task that the ledger calls done whether what it made still lies in the store; one that ended in a frame
    set aside has made nothing, and is not asked."""

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


def step_to_plain(step: Step) -> dict[str, Any]:
    """A step as JSON types: functions and dataclasses by name, arrays as lists."""
    seen: dict[int, Any] = {}  # the step holds the values, so that no other gets the number of one

    def plain(value: Any) -> Any:
        if id(value) not in seen:
            seen[id(value)] = _plain(value)
        return seen[id(value)]

    tasks = [
        {
            "key": t.key,
            "digest": t.digest,
            "function": name_of(t.function),
            "arguments": {k: plain(v) for k, v in t.arguments.items()},
            "pixels": t.pixels,
        }
        for t in step.tasks
    ]
    return {"name": step.name, "group": step.group, "task_bytes": step.task_bytes, "tasks": tasks}


def step_from_plain(plain: Mapping[str, Any], *, known: Mapping[str, Any], bound: Mapping[str, Any]) -> Step:
    """The step that `step_to_plain` wrote; what is read is data, and calls nothing that it names itself.

    Parameters
    ----------
    known : functions and dataclasses that may be named, by `name_of`
    bound : arguments with the values they get whatever is written; a task whose function takes one must have it

    Raises
    ------
    ValueError
        for another name.
    KeyError, TypeError
        when the form is another.
    """
    tasks = []
    for t in plain["tasks"]:
        arguments = {k: _value(v, known) for k, v in t["arguments"].items()}
        function = _known(t["function"], known)
        if isinstance(function, type):
            raise ValueError(f"{t['function']} is no task")
        own = {k: v for k, v in bound.items() if k in inspect.signature(function).parameters}
        if missing := set(own) - set(arguments):
            raise ValueError(f"a task without {', '.join(sorted(missing))}")
        pixels = int(t["pixels"])
        tasks.append(
            Task(
                key=str(t["key"]),
                digest=str(t["digest"]),
                function=function,
                arguments={**arguments, **own},
                pixels=pixels,
            )
        )
    group = str(plain.get("group", ""))
    return Step(name=str(plain["name"]), group=group, tasks=tasks, task_bytes=int(plain["task_bytes"]))


def name_of(thing: Any) -> str:
    """Module and name of a function or class."""
    return f"{thing.__module__}:{thing.__qualname__}"


def _known(name: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{str(name)[:80]!r} is no task or value of lerar")
    return known[name]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields_ = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"is": name_of(type(value)), "fields": fields_}
    if isinstance(value, np.ndarray):
        return {"is": "array", "dtype": value.dtype.str, "data": value.tolist()}
    if isinstance(value, Path):
        return {"is": "path", "path": str(value)}
    if isinstance(value, tuple):
        return {"is": "tuple", "items": [_plain(v) for v in value]}
    if isinstance(value, Mapping):
        return {"is": "dict", "items": [[k, _plain(v)] for k, v in value.items()]}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


def _value(plain: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(plain, list):
        return [_value(v, known) for v in plain]
    if not isinstance(plain, dict):
        return plain
    what = plain["is"]
    if what == "array":
        return _array(plain)
    if what == "path":
        return Path(plain["path"])
    if what == "tuple":
        return tuple(_value(v, known) for v in plain["items"])
    if what == "dict":
        return {k: _value(v, known) for k, v in plain["items"]}
    kind = _known(what, known)
    if not isinstance(kind, type):
        raise ValueError(f"{what!r} is no value")
    return kind(**{k: _value(v, known) for k, v in plain["fields"].items()})


def _array(plain: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(plain["dtype"])
    if dtype.kind not in "biufU":
        raise ValueError(f"an array of {dtype}")
    return np.array(plain["data"], dtype=dtype)
