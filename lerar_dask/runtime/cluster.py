"""The same tasks on dask.distributed: processes of this machine, or a scheduler at an address.

Tasks go out through a window and their futures are released the moment the record is here, so that a lost worker costs
only what it was doing. Workers hold no results; memory is planned by us, not spilled by them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

from lerar_dask.errors import LerarError, SpaceError
from lerar_dask.runtime.guard import guarded
from lerar_dask.runtime.memory import RESERVED_BYTES
from lerar_dask.tasks import Record, Task

__all__ = ["Cluster"]

_ENVIRONMENT = {
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


class Cluster:
    """Executor on dask workers."""

    def __init__(self, address: str | None, slots: int, budget_bytes: int) -> None:
        import dask
        from distributed import Client, LocalCluster

        for name in ("distributed", "distributed.worker", "distributed.scheduler", "distributed.nanny"):
            logging.getLogger(name).setLevel(logging.ERROR)
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 10,
                "distributed.scheduler.worker-ttl": "20 minutes",
                "distributed.worker.memory.target": False,
                "distributed.worker.memory.spill": False,
                "distributed.worker.memory.pause": False,
                "distributed.worker.memory.terminate": 0.98,
            }
        )
        self._cluster: Any = None
        if address is None:
            # Each process holds what a process needs before it has any pixel: the budget is shared.
            self._cluster = LocalCluster(
                n_workers=slots,
                threads_per_worker=1,
                processes=True,
                memory_limit=max(budget_bytes // slots, RESERVED_BYTES),
                dashboard_address=None,
                env=_ENVIRONMENT,
                local_directory=os.environ.get("DASK_TEMPORARY_DIRECTORY"),
            )
            budget_bytes -= (slots - 1) * RESERVED_BYTES
        try:
            self._client = Client(self._cluster or address, timeout="20s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise LerarError(
                f"no dask scheduler answers at {address}", "is it running, and is the address right?"
            ) from error
        if address is not None:
            self._client.wait_for_workers(1, timeout=60)
            slots = sum(w["nthreads"] for w in self._client.scheduler_info(n_workers=-1)["workers"].values())
        self.slots, self.budget_bytes = slots, budget_bytes

    def run(self, tasks: Iterator[Task], slots: int) -> Iterator[Record | SpaceError]:
        """Run tasks through a window; records in the order of completion."""
        from distributed import as_completed

        live: dict[str, Task] = {}
        completed = as_completed(loop=self._client.loop)

        def submit(task: Task) -> None:
            # The task travels as one value: dask must not look into it.
            future = self._client.submit(_call, [task], key=f"{task.key}#{task.digest[:8]}", pure=False)
            live[str(future.key)] = task
            completed.add(future)

        for task in islice(tasks, 2 * slots):
            submit(task)
        if not live:
            return
        for future in completed:
            task = live.pop(str(future.key))
            if future.status == "finished":
                yield future.result()
            else:
                reason = f"its worker was lost ({type(future.exception()).__name__})"
                yield Record(key=task.key, digest=task.digest, state="failed", reason=reason)
            future.release()
            for following in islice(tasks, 1):
                submit(following)

    def close(self) -> None:
        """Let go of the workers; end those that are ours."""
        self._client.close(timeout=2)
        if self._cluster is not None:
            self._cluster.close(timeout=5)


def _call(box: list[Task]) -> Record | SpaceError:
    return guarded(box[0])
