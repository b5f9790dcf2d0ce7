"""Tasks on threads of this process.

Kernels release the GIL; BLAS and numba stay on one thread each, since tasks are the parallelism. Steps have no edges
inside, so that a pool of threads is all they need; `Run.graph` and lazy arrays are dask's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice

from threadpoolctl import threadpool_limits

from lerar_dask.errors import SpaceError
from lerar_dask.runtime.guard import guarded
from lerar_dask.runtime.memory import give_back, tree_bytes
from lerar_dask.tasks import CORES, Record, Task

__all__ = ["Threads"]

_AHEAD = 2
"""Tasks that wait per thread, so that none is idle while the driver writes a record."""
_SWITCH_S = 2e-4


class Threads:
    """Executor on threads of this process."""

    dashboard = ""

    def __init__(self, slots: int, budget_bytes: int) -> None:
        self.slots, self.budget_bytes = slots, budget_bytes

    def held_bytes(self) -> int:
        """Memory of this process and its children, after what is free was given back."""
        give_back()
        return tree_bytes()

    def run(self, tasks: Iterator[Task], slots: int) -> Iterator[Record | SpaceError]:
        """Run tasks; records in the order of completion."""
        with _quick_switches(), threadpool_limits(1), ThreadPoolExecutor(slots, thread_name_prefix="lerar") as pool:
            first = list(islice(tasks, (1 + _AHEAD) * slots))
            cores = max(
                1, min(slots, 2 * slots // max(len(first), 1))
            )  # half of few tasks are short ones beside a step
            running = {pool.submit(_guarded, task, cores) for task in first}
            try:
                while running:
                    done: set[Future[Record | SpaceError]]
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    running |= {pool.submit(_guarded, task, cores) for task in islice(tasks, len(done))}
                    yield from (future.result() for future in done)
            finally:
                # Where the driver leaves early (full disk, Ctrl-C), tasks that have not begun must not begin any more.
                pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Nothing to leave behind."""


def _guarded(task: Task, cores: int) -> Record | SpaceError:
    """Run a task on this thread, and on so many cores if it has parts."""
    CORES.set(cores)
    return guarded(task)


@contextmanager
def _quick_switches() -> Iterator[None]:
    """A kernel that comes back waits for whoever runs Python, 5 ms unless told otherwise: longer than many kernels."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
