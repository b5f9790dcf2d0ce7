"""The same tasks on dask.distributed: processes of this machine, or a scheduler at an address.

Tasks go out through a window and their futures are released the moment the record is here, so that a lost worker costs
only what it was doing. Workers hold no results; memory is planned by us, not spilled by them. An address is greeted
before a client is made: what is wrong there (nobody answers, certificates, no workers) is one line within seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lerar_dask.errors import LerarError, SpaceError
from lerar_dask.runtime.address import check_reachable, check_shared, client_of, workers_of
from lerar_dask.runtime.guard import guarded
from lerar_dask.runtime.memory import RESERVED_BYTES
from lerar_dask.runtime.watching import Watching
from lerar_dask.tasks import Record, Task

__all__ = [
    "ENVIRONMENT",
    "Cluster",
    "configure",
    "loop_without_interrupts",
    "scheduler_words",
    "shares_of_processes",
    "shares_of_workers",
]

ENVIRONMENT = {
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
_TRACKER = "ignore:resource_tracker"
"""Handed on to Python's own helper process, which has a word to say about semaphores when a run is stopped."""
_TRIES, _BACK_S = 3, 5.0
"""Times that a task is submitted again after the connection broke, and how long a scheduler may take to answer again."""
_USED_OF_LIMIT = 0.9
"""Share of a worker's own limit that we plan with: its nanny ends it a little above."""


class Cluster:
    """Executor on dask workers.

    Parameters
    ----------
    address : of a scheduler that runs already; None starts processes of this machine
    slots : tasks at the same time; 0 takes what the workers of an address have
    budget_bytes : memory of all processes of this machine, or of an address's workers that have no limit of their own
    worker_bytes : memory of one worker of an address at most, 0 for what it says itself
    shared : folder of the results and other paths, which the workers of an address must see as this process does
    dashboard : processes of this machine have one
    """

    _watching: Watching | None = None
    dashboard = ""
    """Address of the dashboard, where it is to be told."""

    def __init__(
        self,
        address: str | None,
        slots: int,
        budget_bytes: int,
        worker_bytes: int = 0,
        shared: Sequence[Path] = (),
        *,
        dashboard: bool = False,
    ) -> None:
        configure()
        self._cluster: Any = None
        self._loop: Any = None
        self._scratch: TemporaryDirectory[str] | None = None
        self._where = f"at {address}" if address else "of this machine"
        if address is None:
            self._loop = loop_without_interrupts()
            self._scratch = _private_folder()
            self._cluster, self.slots, self.budget_bytes = _processes(
                slots, budget_bytes, self._loop.loop, self._scratch.name, dashboard
            )
        else:
            check_reachable(address)
        self._client = client_of(self._cluster or address, self._where)
        if address is not None:
            try:
                workers = workers_of(self._client, address)
                if shared:
                    check_shared(self._client, shared[0], shared[1:])
                have, self.budget_bytes = shares_of_workers(workers, budget_bytes, worker_bytes)
            except BaseException:
                self.close()
                raise
            self.slots = min(slots, have) if slots else have

    def watch(self, *, dashboard: bool, report: Path | None) -> None:
        """Let a user look on; see `Watching`."""
        self._watching = Watching(self._client, dashboard=dashboard, report=report)
        self.dashboard = self._watching.link

    def held_bytes(self) -> int:
        """Tasks run in other processes."""
        return 0

    def run(self, tasks: Iterator[Task], slots: int) -> Iterator[Record | SpaceError]:
        """Run tasks through a window; records in the order of completion."""
        # A second task waits behind each running one, unless memory allows fewer tasks than there are threads.
        suspects: list[Task] = []
        for task, outcome in self._window(tasks, slots if slots < self.slots else 2 * slots):
            if outcome is None:
                suspects.append(task)
            else:
                yield outcome
        # A task that ends its worker takes its neighbors with it; alone, it shows which of them it was.
        for suspect in suspects:
            for task, outcome in self._window(iter([suspect]), 1, mark="alone"):
                yield outcome or _lost(task)

    def _window(
        self, tasks: Iterator[Task], width: int, *, mark: str = ""
    ) -> Iterator[tuple[Task, Record | SpaceError | None]]:
        """Keep so many tasks under way; each with its outcome, or None when its workers were lost again and again."""
        from distributed import as_completed

        live: dict[str, tuple[Task, int]] = {}
        completed = as_completed(loop=self._client.loop)

        def submit(task: Task, tries: int = 0) -> None:
            # The task travels as one value: dask must not look into it.
            key = f"{task.key}#{task.digest[:8]}{mark}{'~' * tries}"
            future = self._client.submit(_call, [task], key=key, pure=False)
            live[str(future.key)] = task, tries
            completed.add(future)

        for task in islice(tasks, width):
            submit(task)
        if not live:
            return
        for future in completed:
            task, tries = live.pop(str(future.key))
            if future.status not in ("finished", "error") and tries < _TRIES and self._is_back():
                # Whoever loses the connection for a moment takes all that is under way for lost.
                future.release()
                submit(task, tries + 1)
                continue
            outcome = self._outcome(future, task)
            future.release()
            yield task, outcome
            for following in islice(tasks, 1):
                submit(following)

    def _is_back(self) -> bool:
        """Whether the scheduler answers again within a moment."""
        until = time.monotonic() + _BACK_S
        while self._client.status not in ("running", "closed") and time.monotonic() < until:
            time.sleep(0.05)
        return bool(self._client.status == "running")

    def close(self) -> None:
        """Let go of the workers; end those that are ours."""
        if self._watching is not None:
            self._watching.close()
        self._client.close(timeout=2)
        if self._cluster is not None:
            self._cluster.close(timeout=5)
            self._loop.stop()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _outcome(self, future: Any, task: Task) -> Record | SpaceError | None:
        """What became of a task; raises when the scheduler is gone."""
        from distributed import KilledWorker

        try:
            if future.status == "finished":
                return future.result()
            if future.status != "error":
                raise CancelledError
            error = future.exception()
        except (OSError, CancelledError, asyncio.CancelledError) as lost:
            raise LerarError(
                f"the dask scheduler {self._where} is gone", "start it and call again: what is done stays"
            ) from lost
        if isinstance(error, KilledWorker):
            return None
        reason = f"it cannot run on a worker ({type(error).__name__}: {error})"
        return Record(key=task.key, digest=task.digest, state="failed", reason=reason)


def _lost(task: Task) -> Record:
    reason = "every worker that took it was lost, perhaps for want of memory"
    return Record(key=task.key, digest=task.digest, state="failed", reason=reason)


# --------------------------------------------------------------------------------------------------------- what there is


def shares_of_processes(slots: int, budget_bytes: int) -> tuple[int, int, int]:
    """How a budget is shared by processes of this machine.

    Each process holds what a process needs before it has any pixel, so that a small budget has room for few of them.

    Returns
    -------
    processes, bytes that are planned with (one process and all tasks), limit of one process

    Examples
    --------
    >>> shares_of_processes(4, 3 * RESERVED_BYTES)[0]
    2
    """
    n = max(1, min(slots, (budget_bytes - RESERVED_BYTES // 2) // RESERVED_BYTES))
    planned = budget_bytes - (n - 1) * RESERVED_BYTES
    return n, planned, max(planned, RESERVED_BYTES)


def shares_of_workers(
    workers: Mapping[str, Mapping[str, Any]], budget_bytes: int, worker_bytes: int
) -> tuple[int, int]:
    """Threads of all workers, and the memory to plan with: that of the narrowest one's thread, times threads.

    Parameters
    ----------
    workers : as the scheduler tells of them: nthreads, memory_limit (0: none)
    budget_bytes : for all workers together, where they have no limit
    worker_bytes : for one worker at most, or 0
    """
    threads = sum(w["nthreads"] for w in workers.values())
    rooms = []
    for worker in workers.values():
        limit = int(_USED_OF_LIMIT * worker.get("memory_limit", 0)) or budget_bytes // len(workers)
        limit = min(limit, worker_bytes) if worker_bytes else limit
        rooms.append(max(0, limit - RESERVED_BYTES) // worker["nthreads"])
    return threads, RESERVED_BYTES + threads * min(rooms)


def configure() -> None:
    """Settings of dask that hold for every cluster of ours."""
    import dask
    import distributed  # noqa: F401  its defaults first

    for name in ("distributed", "distributed.worker", "distributed.scheduler", "distributed.nanny"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it has to say, we say in one line
    dask.config.set(
        {
            "distributed.scheduler.allowed-failures": 3,
            "distributed.scheduler.worker-ttl": "20 minutes",
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            "distributed.worker.memory.terminate": 0.98,
        }
    )


def scheduler_words(dashboard: bool) -> dict[str, Any]:
    """How our schedulers serve what is to be looked at: on this machine alone. Their health is there in any case."""
    return {"dashboard_address": "127.0.0.1:0", "dashboard": dashboard}


def _private_folder() -> TemporaryDirectory[str]:
    """Where the processes keep their things: a name nobody can guess, and open to nobody else.

    Workers import from their folder; one that another user can make first would have them run that user's modules.
    """
    return TemporaryDirectory(
        prefix="lerar-", dir=os.environ.get("DASK_TEMPORARY_DIRECTORY"), ignore_cleanup_errors=True
    )


def _processes(slots: int, budget_bytes: int, loop: Any, scratch: str, dashboard: bool) -> tuple[Any, int, int]:
    """Processes of this machine, how many, and the memory to plan with.

    They speak TLS with certificates that are made for this run and never leave memory: whoever can reach the port of a
    scheduler without can have it run anything.
    """
    from distributed import LocalCluster, Security

    n, planned, limit = shares_of_processes(slots, budget_bytes)
    cluster = LocalCluster(
        loop=loop,
        n_workers=n,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        protocol="tls://",
        security=Security.temporary(),
        memory_limit=limit,
        dashboard_address=None,
        scheduler_kwargs=scheduler_words(dashboard),
        env=ENVIRONMENT,
        preload=[__name__],
        local_directory=scratch,
    )
    return cluster, n, planned


def loop_without_interrupts() -> Any:
    """An event loop in a thread that blocks Ctrl-C, as do the processes it starts: a terminal sends it to all of them.

    Stopping them is the driver's business; they would each print a traceback.
    """
    from multiprocessing import resource_tracker

    from distributed.utils import LoopRunner

    if _TRACKER not in sys.warnoptions:
        sys.warnoptions.append(_TRACKER)
    resource_tracker.ensure_running()  # else it is started later, and unblocks signals
    runner = LoopRunner()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return runner


# -------------------------------------------------------------------------------------------------------------- on workers


def dask_setup(_worker: Any) -> None:
    """Called by dask in each process of ours as it starts: what dask has to say while it stops is no news."""
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _call(box: list[Task]) -> Record | SpaceError:
    _one_thread_each()
    return guarded(box[0])


@lru_cache(maxsize=1)
def _one_thread_each() -> None:
    """Libraries of this worker stay on one thread: tasks are the parallelism, and the bits must not depend on it."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
