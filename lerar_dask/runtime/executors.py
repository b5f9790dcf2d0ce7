"""The executor that the settings ask for."""

from __future__ import annotations

from lerar_dask.errors import UsageError
from lerar_dask.runtime.local import Threads
from lerar_dask.runtime.memory import budget_bytes, cpu_count
from lerar_dask.runtime.run import Executor
from lerar_dask.settings import Run

__all__ = ["make_executor"]


def make_executor(settings: Run) -> Executor:
    """Threads of this process, processes of this machine, or the workers of a dask scheduler.

    Raises
    ------
    UsageError
        when the scheduler's name means nothing.
    """
    slots = settings.threads or cpu_count()
    budget = budget_bytes(settings.memory)
    name = settings.scheduler
    if name == "threads":
        return Threads(slots, budget)
    if name == "processes" or "://" in name:
        from lerar_dask.runtime.cluster import Cluster

        return Cluster(None if name == "processes" else name, slots, budget)
    raise UsageError(f"no scheduler is called {name!r}", "threads, processes, or an address as tcp://host:port")
