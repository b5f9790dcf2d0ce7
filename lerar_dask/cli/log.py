"""OUT/lerar.log: what happened, with tracebacks, for whoever looks into a fault.

Records are kept in memory until the run has made its folder, so that a run that is refused leaves no file behind.
"""

from __future__ import annotations

import logging
import os
import tempfile
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from lerar_dask.cli.text import clean

__all__ = ["NOTES", "log_event", "log_to", "open_log", "write_fault"]

NOTES = "lerar_dask.note"
"""Logger of the notes; the display shows them as well, from the events."""
_KEPT_RECORDS = 1000
_handlers: list[_LateFile] = []


def log_to(path: Path) -> None:
    """Send the package's log, and the warnings of dask, to `path` from the moment on that `open_log` is called."""
    handler = _LateFile(path)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    _handlers[:] = [handler]
    for name, level in (("lerar_dask", logging.DEBUG), ("distributed", logging.INFO), ("dask", logging.INFO)):
        logger = logging.getLogger(name)
        logger.handlers = [h for h in logger.handlers if not isinstance(h, _LateFile)] + [handler]
        logger.setLevel(level)


class _Lines(logging.Formatter):
    """Lines that can be shown on a terminal, whatever names and headers put into them."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(clean, super().format(record).split("\n")))


def open_log() -> None:
    """The run's folder exists: write what was kept, and go on writing."""
    for handler in _handlers:
        handler.open()


def write_fault(error: Exception) -> Path:
    """Write an error with its traceback to the run's log, or to a temporary file when there is none; returns where."""
    for handler in _handlers:
        if handler.path.parent.is_dir():
            handler.open()
        if handler.is_open:
            what = (type(error), error, error.__traceback__)
            handler.emit(logging.LogRecord("lerar_dask", logging.CRITICAL, __file__, 0, "unexpected error", (), what))
            return handler.path
    with tempfile.NamedTemporaryFile("w", prefix="lerar-fault-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return Path(file.name)


def log_event(event: Any) -> None:
    """Consumer of the runtime's events that writes them into the log, the first of them opening the file."""
    open_log()
    _take_over("distributed")
    logger = logging.getLogger("lerar_dask.run")
    match type(event).__name__:
        case "RunStarted":
            logger.info("run in %s, %d threads, %d bytes of memory", event.out, event.threads, event.budget_bytes)
        case "StepStarted":
            logger.info("%s: %d tasks", event.step, event.n_tasks)
        case "TaskFinished" if event.record.state != "done":
            logger.info("%s: %s, %s", event.record.key, event.record.state, event.record.reason)
        case "StepFinished":
            counts = event.n_done, event.n_aside, event.n_failed
            logger.info("%s: %d done, %d aside, %d failed in %.2f s", event.step, *counts, event.seconds)
        case "Note":
            logging.getLogger(NOTES).log(logging.getLevelNamesMapping()[event.level.upper()], "%s", event.text)
        case "RunFinished":
            logger.info("run ended after %.2f s, exit code %d", event.seconds, event.exit_code)


def _take_over(name: str) -> None:
    """A library's messages go to our file only; distributed adds its own stream to stderr when it is imported."""
    logger = logging.getLogger(name)
    if _handlers and logger.handlers != _handlers:
        logger.handlers = list(_handlers)
        logger.propagate = False


class _LateFile(logging.Handler):
    """A file handler that keeps its records until it is opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._kept: list[logging.LogRecord] = []
        self._file: logging.FileHandler | None = None

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def open(self) -> None:
        if self._file is not None:
            return
        try:
            self._file = _File(self.path, encoding="utf-8")
        except OSError:
            return
        self._file.setFormatter(self.formatter)
        for record in self._kept:
            self._file.emit(record)
        self._kept.clear()

    def emit(self, record: logging.LogRecord) -> None:
        if self._file is not None:
            self._file.emit(record)
        elif len(self._kept) < _KEPT_RECORDS:
            self._kept.append(record)


class _File(logging.FileHandler):
    """A log on a full disk loses lines: the run itself tells of the disk, without a traceback for each line.

    A symbolic link in its place is not followed: what others left in the folder does not choose what is written to.
    """

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return open(os.open(self.baseFilename, flags, 0o644), "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        return
