"""What is shown while a run goes on, and at its end.

Progress goes to stderr: bars on a terminal, plain lines elsewhere; with --json, one JSON object per line on stdout for
other programs. Results go to stdout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lerar_dask.cli.log import NOTES
from lerar_dask.cli.text import clean, say
from lerar_dask.products.quantities import duration

__all__ = ["Display", "print_aside", "print_json", "print_pairs", "print_table", "progress", "rate"]

_LINE_EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Display:
    """How much is said, and to whom."""

    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="", show_default=False)] = False
    """Say more: every note of the log."""
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", show_default=False)] = False
    """Say nothing but errors."""
    json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False
    """One JSON object per line on stdout, for other programs."""

    def log_to_screen(self) -> None:
        """Warnings of the package on stderr; with --verbose everything, with --quiet errors only."""
        handler = logging.StreamHandler()
        handler.setLevel(logging.ERROR if self.quiet else logging.DEBUG if self.verbose else logging.WARNING)
        handler.setFormatter(_OneLine())
        handler.addFilter(lambda record: record.name != NOTES)  # `progress` shows them
        logger = logging.getLogger("lerar_dask")
        logger.handlers = [h for h in logger.handlers if type(h) is not logging.StreamHandler] + [handler]


class _OneLine(logging.Formatter):
    """First lines only: tracebacks are for the log file."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(f"lerar: {record.getMessage().partition(chr(10))[0]}")


@contextlib.contextmanager
def progress(display: Display) -> Iterator[Callable[[Any], None]]:
    """Consumer of the runtime's events that suits where the output goes; the terminal is left in order at the end."""
    if display.json:
        yield _json_event
    elif display.quiet:
        yield lambda event: None
    elif not sys.stderr.isatty():
        yield _Lines()
    else:
        bars = _Bars()
        try:
            yield bars
        finally:
            bars.close()


def print_json(kind: str, **values: Any) -> None:
    """One object on one line of stdout."""
    print(json.dumps({"event": kind, **values}, default=_plain), flush=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Table on stdout; columns of numbers are set to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    body = [["" if v is None else clean(v) if isinstance(v, str) else _number(v) for v in row] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    source = list(zip(*body, strict=True)) or [()] * len(headings)
    for heading, column in zip(headings, source, strict=True):
        numeric = bool(column) and all(not c or c[0].isdigit() or c[0] in "+-." for c in column) and any(column)
        table.add_column(Text(heading, style="dim"), justify="right" if numeric else "left", overflow="fold")
    for row in body:
        table.add_row(*map(Text, row))
    if sys.stdout.isatty():
        Console(highlight=False).print(table)
        return
    # Lines of a pipe or file are not cut to the width of a terminal that is not there.
    console = Console(width=10_000, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())


def print_aside(aside: Iterable[tuple[str, str]]) -> None:
    """Frames set aside, by reason; a reason that many share names the first few."""
    reasons: dict[str, list[str]] = {}
    for path, reason in aside:
        reasons.setdefault(reason, []).append(path)
    if reasons:
        say()
        say("set aside")
    for reason, paths in reasons.items():
        names = ", ".join(Path(p).name for p in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        say(f"  {names}: {reason}")


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """Names and values on stdout, aligned."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        say(f"{name:<{width}}  {value}")


def rate(done: float, seconds: float, *, pixels: bool) -> str:
    """`82 Mpx/s` or `12 tasks/s`; empty before anything is known."""
    if done <= 0 or seconds <= 0:
        return ""
    per_second = done / seconds
    return f"{per_second / 1e6:.3g} Mpx/s" if pixels else f"{per_second:.3g}/s"


class _Step:
    """Progress of one step, in pixels where the step counts them, else in tasks."""

    def __init__(self, name: str, n_tasks: int, pixels: int) -> None:
        self.name, self.n_tasks, self.pixels = name, n_tasks, pixels
        self.n_done, self.pixels_done, self.n_aside, self.n_failed = 0, 0, 0, 0
        self.started = self.last_line = time.monotonic()

    def add(self, event: Any) -> None:
        self.n_done += 1
        self.pixels_done += event.pixels
        self.n_aside += event.record.state == "aside"
        self.n_failed += event.record.state == "failed"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def share(self) -> float:
        if self.pixels:
            return self.pixels_done / self.pixels
        return self.n_done / self.n_tasks if self.n_tasks else 1.0

    @property
    def speed(self) -> str:
        return rate(self.pixels_done or self.n_done, self.seconds, pixels=bool(self.pixels_done))

    @property
    def left(self) -> str:
        share = self.share
        return f"{duration(self.seconds * (1 - share) / share)} left" if 0 < share < 1 and self.n_done > 1 else ""

    @property
    def troubles(self) -> str:
        counts = {"set aside": self.n_aside, "failed": self.n_failed}
        return ", ".join(f"{n} {word}" for word, n in counts.items() if n)


class _Lines:
    """Plain lines for logs of batch jobs: one when a step is done, and one every ten seconds."""

    def __init__(self) -> None:
        self._step: _Step | None = None

    def __call__(self, event: Any) -> None:
        kind = type(event).__name__
        if kind == "Note":
            say(f"lerar: {event.text}", file=sys.stderr)
        elif kind == "StepStarted":
            self._step = _Step(event.step, event.n_tasks, event.pixels)
        elif self._step is None:
            return
        elif kind == "TaskFinished":
            step = self._step
            step.add(event)
            if step.n_done < step.n_tasks and time.monotonic() - step.last_line > _LINE_EVERY_S:
                step.last_line = time.monotonic()
                self._say(f"{step.n_done} of {step.n_tasks}", step.speed, step.left, step.troubles)
        elif kind == "StepFinished":
            step = self._step
            self._say(f"{step.n_done} done in {duration(step.seconds)}", step.speed, step.troubles)
            self._step = None

    def _say(self, *parts: str) -> None:
        assert self._step is not None
        say(f"{self._step.name}: {', '.join(filter(None, parts))}", file=sys.stderr)


class _Bars:
    """A bar per step on a terminal; what is done stays as a line above."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._step: _Step | None = None
        self._progress: Any = None
        self._bar: Any = None

    def __call__(self, event: Any) -> None:
        kind = type(event).__name__
        if kind == "Note":
            self._console.print(clean(f"lerar: {event.text}"), markup=False)
        elif kind == "StepStarted":
            self._start(event)
        elif self._step is None:
            return
        elif kind == "TaskFinished":
            self._step.add(event)
            self._show(self._step.left)
        elif kind == "StepFinished":
            self._show(duration(self._step.seconds))
            self._progress.update(self._bar, completed=1.0)
            self.close()

    def close(self) -> None:
        """Stop drawing; the cursor comes back."""
        if self._step is not None:
            self._progress.stop()
            self._step = None

    def _start(self, event: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._step = _Step(event.step, event.n_tasks, event.pixels)
        self._progress = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(28, complete_style="default", finished_style="dim"),
            TextColumn("{task.fields[count]:>14}"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=self._console,
        )
        self._bar = self._progress.add_task(event.step, total=1.0, count=f"0 of {event.n_tasks}", note="")
        self._progress.start()

    def _show(self, timing: str) -> None:
        step = self._step
        assert step is not None
        note = ", ".join(filter(None, (timing, step.speed, step.troubles)))
        self._progress.update(self._bar, completed=step.share, count=f"{step.n_done} of {step.n_tasks}", note=note)


def _json_event(event: Any) -> None:
    print_json(type(event).__name__, **dataclasses.asdict(event))


def _plain(value: Any) -> Any:
    """JSON form of what json does not know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else str(value)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
