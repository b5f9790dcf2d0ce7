"""A scheduler of dask in this process, for workers on other machines that prove by certificates that they are ours.

The certificates are made for this run and lie, 0600 in a folder 0700 in OUT, until it ends; what killed runs have left is
swept at the start of the next.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from lerar_dask.errors import UsageError
from lerar_dask.runtime import cluster
from lerar_dask.runtime.address import client_of
from lerar_dask.runtime.memory import RESERVED_BYTES
from lerar_dask.runtime.own_program import python_words

__all__ = ["FOLDER", "OwnScheduler", "sweep_folders", "worker_words"]

FOLDER = ".cluster-"
"""Begin of the names of what such a run keeps in OUT."""
_STALE_S = 600.0
"""Addresses older than this wait for nobody."""


class OwnScheduler(cluster.Cluster):
    """Executor on workers of this run's own scheduler, which come from other machines.

    Parameters
    ----------
    out : folder that all nodes see: certificates go into a private folder in it, for as long as this runs
    interface : network interface by which the nodes reach this machine
    n, threads, worker_bytes : workers that are expected, threads and memory of each
    """

    def __init__(
        self, out: Path, interface: str, n: int, threads: int, worker_bytes: int, *, dashboard: bool = False
    ) -> None:
        if worker_bytes <= RESERVED_BYTES:
            raise UsageError(f"{worker_bytes >> 20} MiB are too little for a worker", "give it more memory")
        host = _address_of(interface)
        cluster.configure()
        self._where = "of this run"
        self._scratch = None
        self._loop = cluster.loop_without_interrupts()
        out.mkdir(parents=True, exist_ok=True)
        sweep_folders(out)
        self.folder = Path(mkdtemp(prefix=FOLDER, dir=out))
        try:
            (self.folder / "driver").write_text(f"{socket.gethostname()} {os.getpid()}")
            self._cluster, self.files = _scheduler(host, self._loop.loop, self.folder, dashboard)
            self._client = client_of(self._cluster, self._where)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        expected = {str(k): {"nthreads": threads, "memory_limit": worker_bytes} for k in range(n)}
        self.slots, self.budget_bytes = cluster.shares_of_workers(expected, 0, 0)

    def close(self) -> None:
        """End the workers and remove what was written for them."""
        super().close()
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep_folders(out: Path) -> None:
    """Remove certificates, logs and addresses of runs of this machine that were killed."""
    for meeting in out.glob(f"{FOLDER}*.json"):
        if time.time() - meeting.stat().st_mtime > _STALE_S:
            meeting.unlink(missing_ok=True)
    for folder in out.glob(f"{FOLDER}*"):
        try:
            host, pid = (folder / "driver").read_text().split()
        except (OSError, ValueError):
            continue
        if host == socket.gethostname() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def worker_words(address: str, files: Mapping[str, Path], threads: int, worker_bytes: int) -> list[str]:
    """Command of a worker that ends when its scheduler is gone."""
    words = [
        *(*python_words("distributed.cli.dask_worker"), address, "--nanny", "--no-dashboard"),
        *("--tls-ca-file", files["ca"], "--tls-cert", files["cert"], "--tls-key", files["key"]),
        *("--nthreads", threads, "--memory-limit", worker_bytes, "--death-timeout", 60),
        *("--preload", "lerar_dask.runtime.cluster"),
    ]
    return [str(word) for word in words]


def _scheduler(host: str, loop: Any, folder: Path, dashboard: bool) -> tuple[Any, dict[str, Path]]:
    """A scheduler in this process, and the files by which workers prove that they are ours."""
    from distributed import LocalCluster, Security

    security = Security.temporary()
    files = {}
    for name, attribute in (("ca", "tls_ca_file"), ("cert", "tls_worker_cert"), ("key", "tls_worker_key")):
        files[name] = folder / f"{name}.pem"
        descriptor = os.open(files[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(getattr(security, attribute))
    made = LocalCluster(
        loop=loop,
        n_workers=0,
        processes=False,
        host=host,
        protocol="tls://",
        security=security,
        dashboard_address=None,
        scheduler_kwargs=cluster.scheduler_words(dashboard),
    )
    return made, files


def _address_of(interface: str) -> str:
    """Address of this machine that jobs reach."""
    if not interface:
        own = socket.gethostbyname(socket.gethostname())
        return _outward() if own.startswith("127.") else own
    import psutil

    there = psutil.net_if_addrs()
    if interface not in there:
        raise UsageError(f"there is no network interface {interface!r}", ", ".join(sorted(there)))
    for address in there[interface]:
        if address.family == socket.AF_INET:
            return str(address.address)
    raise UsageError(f"the network interface {interface!r} has no IPv4 address")


def _outward() -> str:
    """Address that this machine would send from; nothing is sent. Names of login nodes often mean loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of no machine (RFC 5737)
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
