"""Tasks on dask's threaded scheduler in this process.

A window of tasks becomes a plain dict graph for `dask.threaded.get`; a dask callback hands each record to the driver the
moment it is there. Kernels release the GIL; BLAS and numba stay on one thread each, since tasks are the parallelism.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from dask.callbacks import Callback
from dask.threaded import get
from threadpoolctl import threadpool_limits

from lerar_dask.errors import SpaceError
from lerar_dask.runtime.guard import guarded
from lerar_dask.tasks import Record, Task

__all__ = ["Threads"]

_WINDOW = 20_000
_SWITCH_S = 2e-4


class Threads:
    """Executor on threads of this process."""

    def __init__(self, slots: int, budget_bytes: int) -> None:
        self.slots, self.budget_bytes = slots, budget_bytes
        self._stop = threading.Event()

    def run(self, tasks: Iterator[Task], slots: int) -> Iterator[Record | SpaceError]:
        """Run tasks; records in the order of completion."""
        before = sys.getswitchinterval()
        # A kernel that comes back waits for whoever runs Python, 5 ms unless told otherwise: longer than many kernels.
        sys.setswitchinterval(_SWITCH_S)
        try:
            yield from self._run_windows(tasks, slots)
        finally:
            sys.setswitchinterval(before)

    def _run_windows(self, tasks: Iterator[Task], slots: int) -> Iterator[Record | SpaceError]:
        with ThreadPoolExecutor(slots, thread_name_prefix="lerar") as pool, threadpool_limits(1):
            while window := list(islice(tasks, _WINDOW)):
                yield from self._run_window(window, pool)

    def close(self) -> None:
        """Nothing to leave behind."""
        self._stop.set()

    def _run_window(self, window: list[Task], pool: ThreadPoolExecutor) -> Iterator[Record | SpaceError]:
        """Run one dict graph in a driver thread of its own; yield what its callback hands over."""
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        graph = {task.key: (self._guarded, task) for task in window}

        def posttask(_key: str, record: Any, *_: Any) -> None:
            results.put(record)

        def drive() -> None:
            try:
                with Callback(posttask=posttask):
                    get(graph, list(graph), pool=pool)
                results.put(None)
            except BaseException as error:
                results.put(error)

        threading.Thread(target=drive, daemon=True, name="dask").start()
        finished = False
        try:
            while (item := results.get()) is not None:
                if isinstance(item, BaseException) and not isinstance(item, SpaceError):
                    raise item
                yield item
            finished = True
        finally:
            if not finished:
                # The driver left early (full disk, Ctrl-C): tasks that have not begun must not begin any more.
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, task: Task) -> Record | SpaceError:
        if self._stop.is_set():
            return Record(key=task.key, digest=task.digest, state="failed", reason="stopped", host="stopped")
        return guarded(task)
