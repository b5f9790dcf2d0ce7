"""Modules of this program that run in processes of their own beside a run, which goes on the same without them.

In   the name of a module that can be run, and at most one question: values that pickle
Out  its answer, or None
"""

from __future__ import annotations

import logging
import pickle
import subprocess
from contextlib import suppress
from typing import Any

from lerar_dask.runtime.memory import RESERVED_BYTES
from lerar_dask.runtime.own_program import environment, python_words
from lerar_dask.runtime.run import Executor
from lerar_dask.tasks import Step

__all__ = ["SideProcess"]

_LOGGER = logging.getLogger(__name__)


class SideProcess:
    """A process beside the run; it sees none of the terminal's signals, and ends when this one does.

    Parameters
    ----------
    module : what it runs; it reads its standard input, and ends where that ends
    most_bytes : memory that it takes
    """

    def __init__(self, module: str, most_bytes: int) -> None:
        self.command = python_words(module)
        self.most_bytes = most_bytes
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, executor: Executor) -> None:
        """Begin, if the memory of the run has room for it."""
        if executor.budget_bytes < RESERVED_BYTES + self.most_bytes:
            return
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(
                self.command, stdin=pipe, stdout=pipe, stderr=nothing, start_new_session=True, env=environment()
            )
        except OSError as error:
            _LOGGER.info("%s does not run beside the tasks: %s", self.command[-1], error)

    def ask(self, question: Any) -> None:
        """Give the process the one thing to do that it waits for."""
        if self.process is None or self.process.stdin is None:
            return
        with suppress(BrokenPipeError), self.process.stdin as pipe:  # what has ended is seen by who wants the answer
            pickle.dump(question, pipe)
        self.process.stdin = None

    def answer(self) -> Any:
        """What came of the question, once the process has ended; None where there is nothing."""
        if self.process is None:
            return None
        told, _ = self.process.communicate()
        code = self.process.returncode
        self.process = None
        if code == 0:
            return pickle.loads(told)
        _LOGGER.info("%s beside the tasks ended with code %d", self.command[-1], code)
        return None

    def make_room(self, step: Step, executor: Executor) -> None:
        """Stop before a step that can use the memory which the process takes."""
        free = executor.budget_bytes - RESERVED_BYTES - self.most_bytes
        if self.process and step.task_bytes * min(executor.slots, len(step.tasks)) > free:
            self.stop()

    def stop(self) -> None:
        """End the process at once; half of its work is no loss."""
        process, self.process = self.process, None
        if process is None:
            return
        if code := process.poll():
            _LOGGER.info("%s beside the tasks ended with code %d", self.command[-1], code)
        process.kill()
        process.communicate()
