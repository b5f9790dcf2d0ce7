"""Tasks on dask workers: shares of memory, outcomes, and what is said when a scheduler cannot be used."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from distributed import LocalCluster

from lerar_dask.errors import FrameError, LerarError, SpaceError, UsageError
from lerar_dask.runtime import address
from lerar_dask.runtime.cluster import Cluster, shares_of_processes, shares_of_workers
from lerar_dask.runtime.executors import make_executor
from lerar_dask.runtime.memory import RESERVED_BYTES
from lerar_dask.settings import Run, Slurm
from lerar_dask.tasks import Task

MIB = 1 << 20
RESERVED = RESERVED_BYTES
_running, _most = [], []
_guard = threading.Lock()


def double(value):
    return {"twice": 2 * value}


def fail(error):
    raise error


def end_the_process():
    os._exit(9)


def count_running():
    with _guard:
        _running.append(1)
        _most.append(len(_running))
    time.sleep(0.03)
    with _guard:
        _running.pop()
    return {}


def task(key, function=double, **arguments):
    return Task(key=key, digest=f"digest-{key}", function=function, arguments=arguments)


@pytest.fixture(scope="module")
def scheduler():
    """A scheduler with two workers of two threads each, behind a real socket, in this process."""
    with LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=":0"
    ) as made:
        yield made


@pytest.fixture
def executor(scheduler):
    made = Cluster(scheduler.scheduler_address, 0, 4 << 30)
    yield made
    made.close()


def test_a_connection_that_breaks_for_a_moment(executor):
    """What was under way is submitted again: each task has its one record."""
    client, records = executor._client, []
    for record in executor.run((task(f"t{i}", lambda: time.sleep(0.05) or {}) for i in range(24)), executor.slots):
        records.append(record)
        if len(records) in (3, 9):
            client.loop.add_callback(client.scheduler_comm.comm.abort)
            time.sleep(0.3)
    assert sorted(record.key for record in records) == sorted(f"t{i}" for i in range(24))
    assert {record.state for record in records} == {"done"}


# ---------------------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize(
    ("slots", "budget", "n"),
    [(4, 16 * RESERVED, 4), (4, 2.6 * RESERVED, 2), (4, 1.2 * RESERVED, 1), (1, 9 * RESERVED, 1), (3, 0, 1)],
)
def test_processes_of_a_small_budget_are_few(slots, budget, n):
    made, planned, limit = shares_of_processes(slots, int(budget))
    assert made == n
    assert planned + (n - 1) * RESERVED == int(budget)
    assert limit >= RESERVED
    assert limit >= planned


@pytest.mark.parametrize(
    ("workers", "budget", "worker", "expected"),
    [
        ([(2, 0)], 1000 * MIB + RESERVED, 0, (2, 1000 * MIB + RESERVED)),
        ([(1, 0), (1, 0)], 2 * (300 * MIB + RESERVED), 0, (2, 600 * MIB + RESERVED)),
        ([(4, 0)], 8 << 30, 400 * MIB + RESERVED, (4, 400 * MIB + RESERVED)),
        ([(2, 10 << 40)], 1, 200 * MIB + RESERVED, (2, 200 * MIB + RESERVED)),
        ([(1, 100 * MIB)], 8 << 30, 0, (1, RESERVED)),
    ],
)
def test_shares_of_workers(workers, budget, worker, expected):
    told = {str(i): {"nthreads": n, "memory_limit": limit} for i, (n, limit) in enumerate(workers)}
    assert shares_of_workers(told, budget, worker) == expected


def test_the_narrowest_worker_counts():
    told = {"a": {"nthreads": 1, "memory_limit": 64 << 30}, "b": {"nthreads": 3, "memory_limit": 2 << 30}}
    threads, planned = shares_of_workers(told, 1, 0)
    assert threads == 4
    per_task = (planned - RESERVED) // threads
    assert 3 * per_task + RESERVED <= 0.9 * (2 << 30)


# -------------------------------------------------------------------------------------------------------------- outcomes


def test_records_of_tasks(executor):
    assert executor.slots == 4
    records = {r.key: r for r in executor.run((task(str(i), value=i) for i in range(30)), executor.slots)}
    assert {k: r.result["twice"] for k, r in records.items()} == {str(i): 2 * i for i in range(30)}
    assert all(r.state == "done" and r.digest == f"digest-{k}" for k, r in records.items())


def test_errors_of_tasks(executor):
    errors = {"aside": FrameError("blurred"), "failed": ZeroDivisionError("zero")}
    records = {r.key: r for r in executor.run((task(k, fail, error=e) for k, e in errors.items()), 4)}
    assert {k: r.state for k, r in records.items()} == {"aside": "aside", "failed": "failed"}
    assert "blurred" in records["aside"].reason
    full = list(executor.run(iter([task("full", fail, error=OSError(errno.ENOSPC, "No space left"))]), 4))
    assert isinstance(full[0], SpaceError)


def test_no_tasks(executor):
    assert list(executor.run(iter([]), 4)) == []


@pytest.mark.parametrize(("slots", "most"), [(1, 1), (2, 2), (4, 4)])
def test_no_more_at_once_than_memory_allows(executor, slots, most):
    _most.clear()
    assert len(list(executor.run((task(str(i), count_running) for i in range(24)), slots))) == 24
    assert len(_most) == 24
    assert max(_most) <= most


def test_threads_of_the_settings_bound_an_address(scheduler, tmp_path):
    made = make_executor(Run(scheduler=scheduler.scheduler_address, threads=1, memory="700MiB"), Slurm(), tmp_path, [])
    try:
        assert made.slots == 1
        assert made.budget_bytes == RESERVED + 4 * ((700 * MIB - RESERVED) // 2)
    finally:
        made.close()


def test_a_task_that_ends_its_worker_is_told_and_harms_no_other():
    made = Cluster(None, 1, 2 << 30)
    try:
        made._cluster.scheduler.allowed_failures = 0
        records = {r.key: r for r in made.run(iter([task("bad", end_the_process), task("good", value=3)]), 1)}
    finally:
        made.close()
    assert records["bad"].state == "failed"
    assert "lost" in records["bad"].reason
    assert records["good"].result == {"twice": 6}


# ----------------------------------------------------------------------------------------------- what cannot be reached


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(address, "CONNECT_S", 2.0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(LerarError, match=f"no dask scheduler answers at tcp://127.0.0.1:{port}"):
        Cluster(f"tcp://127.0.0.1:{port}", 0, 1 << 30)
    assert time.monotonic() - start < 5


def test_something_else_answers(monkeypatch):
    monkeypatch.setattr(address, "CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_talk_nonsense, args=(server,), daemon=True).start()
        with pytest.raises(LerarError, match="no dask scheduler answers"):
            Cluster(f"tcp://127.0.0.1:{server.getsockname()[1]}", 0, 1 << 30)


def _talk_nonsense(server):
    while True:
        try:
            taken, _ = server.accept()
        except OSError:
            return
        taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)


def test_a_worker_is_no_scheduler(scheduler):
    worker = next(iter(scheduler.workers.values()))
    with pytest.raises(LerarError, match="is no dask scheduler"):
        Cluster(worker.address, 0, 1 << 30)


@pytest.mark.parametrize("address", ["ftp://127.0.0.1:8786", "tcp:/127.0.0.1"])
def test_wrong_words(address, tmp_path):
    with pytest.raises(UsageError, match="scheduler"):
        make_executor(Run(scheduler=address), Slurm(), tmp_path, [])


def test_a_scheduler_without_workers(monkeypatch):
    monkeypatch.setattr(address, "WORKERS_S", 0.3)
    with (
        LocalCluster(n_workers=0, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=":0") as bare,
        pytest.raises(LerarError, match="has no workers") as caught,
    ):
        Cluster(bare.scheduler_address, 0, 1 << 30)
    assert "dask worker tcp://" in caught.value.hint


def test_another_version_on_a_worker(scheduler, monkeypatch):
    versions = iter(["0.0.1"])  # the first that asks is the driver
    monkeypatch.setattr(address.metadata, "version", lambda _: next(versions, "0.0.2"))
    with pytest.raises(LerarError, match=r"has lerar 0\.0\.2, here is 0\.0\.1"):
        Cluster(scheduler.scheduler_address, 0, 1 << 30)


@pytest.mark.parametrize("files", [{}, {"ca-file": "/nowhere/ca.pem", "client.cert": "/nowhere/cert.pem"}])
def test_certificates_that_are_not_there(files):
    import dask

    settings = {f"distributed.comm.tls.{word}": path for word, path in files.items()}
    with dask.config.set(settings), pytest.raises(LerarError, match="certificates") as caught:
        Cluster("tls://127.0.0.1:9", 0, 1 << 30)
    assert "ca-file" in caught.value.hint


@pytest.fixture(scope="module")
def own_processes():
    executor = Cluster(None, 1, 2 * RESERVED_BYTES)
    yield executor
    executor.close()


def test_processes_answer_nobody_without_the_runs_certificates(own_processes):
    from distributed import Client, Security

    address = own_processes._cluster.scheduler_address
    assert address.startswith("tls://127.0.0.1:")
    workers = list(own_processes._cluster.scheduler_info["workers"])
    assert workers
    for place in (address, *workers):
        for security, scheme in ((None, "tcp"), (Security.temporary(), "tls")):
            with pytest.raises((OSError, TimeoutError, ValueError)):
                Client(f"{scheme}://{place.partition('://')[2]}", security=security, timeout=2, set_as_default=False)


def test_the_scratch_of_processes_is_private_and_goes_with_them():
    executor = Cluster(None, 1, 2 * RESERVED_BYTES)
    folder = Path(executor._scratch.name)
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert any(folder.iterdir())
        used = [w["local_directory"] for w in executor._cluster.scheduler_info["workers"].values()]
        assert all(Path(place).is_relative_to(folder) for place in used)
    finally:
        executor.close()
    assert not folder.exists()
