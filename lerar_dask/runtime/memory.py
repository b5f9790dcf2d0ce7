"""How much memory and how many cores this run may use, and what it does use.

Limits come from the whole chain of cgroups above this process (versions 1 and 2), Slurm, the address-space limit and
what the machine has available; the smallest counts.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from lerar_dask.errors import MemoryBudgetError, UsageError

__all__ = [
    "RESERVED_BYTES",
    "PeakSampler",
    "available_bytes",
    "budget_bytes",
    "check_address_space",
    "cpu_count",
    "format_bytes",
    "give_back",
    "out_of_memory",
    "parse_bytes",
    "tree_bytes",
]

RESERVED_BYTES = 420 << 20
"""What a process with all libraries loaded and kernels compiled holds before it has any pixel."""
_MAPPED_BYTES = 960 << 20
"""Address space that a process takes and never fills: libraries, stacks of threads, arenas of the allocator."""
_LEAST_ROOM = 64 << 20
_UNLIMITED = 1 << 60
_SIZE = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(?:([kmgtpe])(i?))?b?\s*", re.IGNORECASE | re.ASCII)
_PAUSE_OF = 50
"""Pause between two samples, in units of what one took."""


def parse_bytes(text: str) -> int:
    """Bytes of a size in words.

    >>> parse_bytes("1.5GiB")
    1610612736

    Raises
    ------
    UsageError
        when it is no size.
    """
    found = _SIZE.fullmatch(text)  # the words of dask.utils.parse_bytes, which takes 60 ms to load
    if not found:
        raise UsageError(f"{text[:60]!r} is no amount of memory", "write it as 2GiB or 1500MB")
    number, prefix, binary = found.groups()
    wanted = float(number) * (1024 if binary else 1000) ** " kmgtpe".index((prefix or " ").lower())
    if wanted >= _UNLIMITED:
        raise UsageError(f"{text[:20]!r}{'...' * (len(text) > 20)} is more memory than any machine has")
    return int(wanted)


def format_bytes(n: float) -> str:
    """Size in words.

    >>> format_bytes(1610612736)
    '1.5 GiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def budget_bytes(setting: str) -> int:
    """Memory for the run: what the user says, at most what there is; else half of what is available."""
    room = max(1, min(available_bytes(), _address_space() - _MAPPED_BYTES))
    return min(parse_bytes(setting), room) if setting else room // 2


def available_bytes() -> int:
    """Memory that this process tree may still grow into."""
    limits = [_machine_available(), _address_space(), _slurm()]
    limits += _cgroup_limits()
    return min(n for n in limits if n > 0)


def cpu_count() -> int:
    """Cores this process may use: affinity, cgroup quota, Slurm."""
    cores = [len(os.sched_getaffinity(0))]
    quota = _cpu_quota()
    if quota:
        cores.append(max(1, quota))
    if os.environ.get("SLURM_CPUS_PER_TASK", "").isdigit():
        cores.append(int(os.environ["SLURM_CPUS_PER_TASK"]))
    return max(1, min(cores))


def tree_bytes(pid: int | None = None) -> int:
    """Memory of a process and its children, shared pages counted once (PSS); RSS where PSS cannot be read."""
    total = 0
    todo = [pid or os.getpid()]
    while todo:
        one = todo.pop()
        total += _pss(one)
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                todo += [int(p) for p in Path(f"/proc/{one}/task/{task}/children").read_text().split()]
        except OSError:
            continue
    return total


def give_back() -> None:
    """Give memory that is free again to the system: glibc keeps what many small arrays leave behind."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class PeakSampler:
    """Samples the tree's memory in a thread; `peak` is the largest seen.

    The kernel walks all pages for each sample, with the process held up meanwhile: it costs up to 10 ms per GiB.
    """

    def __init__(self, interval_s: float = 0.2) -> None:
        self.peak = tree_bytes()
        self._stop = threading.Event()
        self._interval = interval_s
        self._thread = threading.Thread(target=self._watch, daemon=True, name="memory")

    def __enter__(self) -> PeakSampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        pause = self._interval
        while not self._stop.wait(pause):
            started = time.monotonic()
            self.peak = max(self.peak, tree_bytes())
            pause = max(self._interval, _PAUSE_OF * (time.monotonic() - started))


def _pss(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        with suppress(psutil.AccessDenied, AttributeError):
            return int(process.memory_full_info().pss)
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _machine_available() -> int:
    return int(psutil.virtual_memory().available)


def check_address_space() -> None:
    """Refuse to begin under a limit on the address space that not even the libraries fit into.

    Raises
    ------
    MemoryBudgetError
        with what is needed.
    """
    limit, needed = _address_space(), _MAPPED_BYTES + RESERVED_BYTES + _LEAST_ROOM
    if limit < needed:
        raise MemoryBudgetError(
            f"the address space is limited to {format_bytes(limit)} (ulimit -v): {format_bytes(needed)} are needed at least",
            "raise the limit, or limit the memory with --memory in its place",
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is what a process gets that may have no more memory or threads."""
    words = ("can't start new thread", "failed to map segment", "cannot allocate memory", "libllvmlite")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def _address_space() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft


def _slurm() -> int:
    per_node = os.environ.get("SLURM_MEM_PER_NODE", "")
    per_cpu = os.environ.get("SLURM_MEM_PER_CPU", "")
    if per_node.isdigit() and int(per_node):
        return int(per_node) << 20
    if per_cpu.isdigit() and int(per_cpu):
        return (int(per_cpu) << 20) * int(os.environ.get("SLURM_CPUS_ON_NODE", "1"))
    return _UNLIMITED


def _cgroup_folders(controller: str) -> list[tuple[Path, int]]:
    """Folders of this process's cgroup and all above it, with the version."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, version = Path("/sys/fs/cgroup"), 2
        elif controller in controllers.split(","):
            root, version = Path("/sys/fs/cgroup") / controller, 1
        else:
            continue
        leaf = Path(path.lstrip("/"))
        found += [(root / p, version) for p in (leaf, *leaf.parents)]
    return found


def _cgroup_limits() -> list[int]:
    limits = []
    for folder, version in _cgroup_folders("memory"):
        # Not what is used beside us: page cache is given back under pressure.
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        with suppress(OSError, ValueError):
            limits.append(int((folder / name).read_text()))
    return [limit for limit in limits if limit < _UNLIMITED]


def _cpu_quota() -> int:
    quotas = []
    for folder, version in _cgroup_folders("cpu"):
        try:
            if version == 2:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{w}_us").read_text() for w in ("quota", "period"))
            if quota.strip() not in ("max", "-1"):
                quotas.append(max(1, round(int(quota) / int(period))))
        except (OSError, ValueError):
            continue
    return min(quotas, default=0)
