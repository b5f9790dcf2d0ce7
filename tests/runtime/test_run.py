"""Whatever happens to a task comes back as a record; a full disk ends the run at once."""

from __future__ import annotations

import errno
import threading

import pytest

from lerar_dask.errors import FrameError, MemoryBudgetError, SpaceError, StoreError, UsageError, space_error
from lerar_dask.runtime.events import Bus, StepFinished, StepStarted, TaskFinished
from lerar_dask.runtime.executors import make_executor
from lerar_dask.runtime.local import Threads
from lerar_dask.runtime.memory import RESERVED_BYTES
from lerar_dask.runtime.run import check_memory, run_step
from lerar_dask.settings import Run, Slurm
from lerar_dask.tasks import Step, Task

ROOM = RESERVED_BYTES + (100 << 20)
_running, _most = [], []
_guard = threading.Lock()


def double(value):
    return {"twice": 2 * value}


def fail(error):
    raise error


def count_running(wait):
    with _guard:
        _running.append(1)
        _most.append(len(_running))
    wait.wait(0.02)
    with _guard:
        _running.pop()
    return {}


def task(key, function=double, pixels=3, **arguments):
    return Task(key=key, digest=f"d{key}", function=function, arguments=arguments, pixels=pixels)


def run(tasks, threads=2, task_bytes=0):
    seen = []
    bus = Bus([seen.append])
    records = list(run_step(Step(name="s", tasks=tasks, task_bytes=task_bytes), Threads(threads, ROOM), bus))
    return {r.key: r for r in records}, seen


def test_records_and_events():
    records, seen = run([task(str(i), value=i) for i in range(20)])
    assert {k: r.result["twice"] for k, r in records.items()} == {str(i): 2 * i for i in range(20)}
    assert all(r.state == "done" and r.digest == f"d{k}" for k, r in records.items())
    assert seen[0] == StepStarted(step="s", n_tasks=20, pixels=60)
    assert [type(e) for e in seen[1:-1]] == [TaskFinished] * 20
    assert isinstance(seen[-1], StepFinished)
    assert seen[-1].n_done == 20


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (FrameError("it is blurred"), "aside", "it is blurred"),
        (StoreError("a shard is damaged"), "failed", "a shard is damaged"),
        (OSError(errno.EIO, "bad disk"), "failed", "bad disk"),
        (PermissionError(errno.EACCES, "Permission denied", "light.fits"), "failed", "light.fits"),
        (ZeroDivisionError("zero"), "failed", "ZeroDivisionError: zero"),
        (MemoryError("much"), "failed", "MemoryError: much"),
    ],
)
def test_a_task_that_fails_harms_no_other(error, state, reason):
    records, seen = run([task("bad", fail, error=error), task("good", value=1)])
    assert (records["bad"].state, records["good"].state) == (state, "done")
    assert reason in records["bad"].reason
    assert seen[-1].n_aside + seen[-1].n_failed == 1


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (SpaceError("full", "sweep"), "sweep"),
        (OSError(errno.ENOSPC, "No space"), "make room"),
        (OSError(errno.EDQUOT, "Quota"), "make room"),
        (OSError(errno.EFBIG, "File too large"), "files so large"),
        (OSError(errno.EROFS, "ro"), "can be written"),
    ],
)
def test_a_full_disk_ends_the_step(error, hint):
    with pytest.raises(SpaceError) as caught:
        run([task("bad", fail, error=error), *(task(str(i), value=i) for i in range(50))], threads=1)
    assert hint in caught.value.hint


def test_missing_permission_is_the_disks_only_when_writing():
    error = PermissionError(errno.EACCES, "Permission denied", "here")
    assert space_error(error) is None
    told = space_error(error, writing=True)
    assert told is not None
    assert "here" in told.message
    assert space_error(OSError("no number"), writing=True) is None


def test_no_more_at_once_than_fit():
    _most.clear()
    wait = threading.Event()
    run([task(str(i), count_running, wait=wait) for i in range(12)], threads=4, task_bytes=45 << 20)
    assert len(_most) == 12
    assert max(_most) <= 2


def test_what_never_fits_is_told_before_anything_runs():
    step = Step(name="integrate", tasks=[], task_bytes=200 << 20)
    with pytest.raises(MemoryBudgetError, match=r"integrate needs 620.0 MiB, 520.0 MiB are given") as caught:
        check_memory(step, Threads(2, ROOM))
    assert "--memory" in caught.value.hint


@pytest.mark.parametrize(("task_mib", "slots"), [(0, 4), (10, 4), (30, 3), (100, 1)])
def test_slots(task_mib, slots):
    assert check_memory(Step(name="s", tasks=[], task_bytes=task_mib << 20), Threads(4, ROOM)) == slots


def test_step_without_tasks():
    records, seen = run([])
    assert records == {}
    assert seen[-1].n_done == 0


def test_executor_of_the_settings(tmp_path):
    made = make_executor(Run(threads=3, memory="600MiB"), Slurm(), tmp_path, [])
    assert isinstance(made, Threads)
    assert made.slots == 3
    with pytest.raises(UsageError, match="sheduler"):
        make_executor(Run(scheduler="sheduler"), Slurm(), tmp_path, [])
