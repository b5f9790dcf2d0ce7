"""The executor that the settings ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lerar_dask.errors import UsageError
from lerar_dask.runtime.local import Threads
from lerar_dask.runtime.memory import budget_bytes, cpu_count, parse_bytes
from lerar_dask.runtime.run import Executor
from lerar_dask.settings import Run, Slurm

if TYPE_CHECKING:
    from lerar_dask.runtime.cluster import Cluster

__all__ = ["make_executor", "rank_bytes"]


def make_executor(settings: Run, slurm: Slurm, out: Path, shared: Sequence[Path]) -> Executor:
    """Threads of this process, processes of this machine, jobs of Slurm, or the workers of a dask scheduler.

    Parameters
    ----------
    out : folder of the results, which workers elsewhere must see
    shared : other paths that they must see

    Raises
    ------
    UsageError
        when the scheduler's name means nothing.
    """
    slots = settings.threads or cpu_count()
    budget = budget_bytes(settings.memory)
    name = settings.scheduler
    if name == "threads":
        if settings.dashboard or settings.performance_report:
            raise UsageError("threads have no dashboard and no performance report", "--scheduler processes has both")
        return Threads(slots, budget)
    cluster = _cluster(settings, slurm, slots, budget, out, shared)
    try:
        cluster.watch(dashboard=settings.dashboard, report=settings.performance_report)
    except BaseException:
        cluster.close()
        raise
    return cluster


def _cluster(settings: Run, slurm: Slurm, slots: int, budget: int, out: Path, shared: Sequence[Path]) -> Cluster:
    """What works by dask."""
    name = settings.scheduler
    if name == "processes":
        from lerar_dask.runtime.cluster import Cluster

        return Cluster(None, slots, budget, dashboard=settings.dashboard)
    if "://" in name:
        from lerar_dask.runtime.cluster import Cluster

        # Elsewhere, --memory is what one worker may take, and --threads at most how many tasks run at once.
        worker = parse_bytes(settings.memory) if settings.memory else 0
        return Cluster(name, settings.threads, budget, worker, shared=[out, *shared])
    if name == "slurm":
        from lerar_dask.runtime.slurm import SlurmCluster

        return SlurmCluster(slurm, out, [out, *shared], dashboard=settings.dashboard)
    if name == "srun":
        from lerar_dask.runtime.ranks import SrunCluster

        return SrunCluster(slurm, out, [out, *shared], rank_bytes(settings), dashboard=settings.dashboard)
    raise UsageError(f"no scheduler is called {name!r}", "threads, processes, slurm, srun, or tcp://host:port")


def rank_bytes(settings: Run) -> int:
    """Memory of a rank of `srun`: as asked for, else its share of what the node gives."""
    if settings.memory:
        return parse_bytes(settings.memory)
    on_node = int(os.environ.get("SLURM_TASKS_PER_NODE", "1").partition("(")[0].partition(",")[0] or 1)
    return budget_bytes("") // on_node
