"""Faults that strike a run in the middle of a stage: what is done to it, and whether its bits are those of an undisturbed one.

Every fault is a function `(struck: Struck, stage) -> None`, called the moment the stage begins. A run that ends for it is called
again, as a user would; `struck` tells how it came out.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.whole.test_schedulers import Site, fingerprint, site

__all__ = ["KINDS", "STAGES", "Outcome", "strike"]

STAGES = (
    "look over", "masters", "flat levels", "flats", "calibration", "ingest", "register", "register: agree", "normalize",
    "scene", "trails", "integrate", "drizzle", "products",
)  # fmt: skip
_SETTINGS = ("--drizzle", "1", "--drop", "1", "--threads", "2")
_DISK = "120m"
_STOPPED_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a run that was struck came out."""

    same_bits: bool
    calls: int
    """1: it came through by itself."""
    said: str
    """Its last words, where it ended."""
    in_time: bool
    """Whether the stage was still under way, or about to begin, when the fault struck."""

    def __str__(self) -> str:
        how = "same bits" if self.same_bits else "OTHER BITS"
        return f"{how}, {'in one call' if self.calls == 1 else 'called again'}{'' if self.in_time else ' (too late)'}"


@dataclass
class Struck:
    """A run under way and where its things lie."""

    night: Path
    out: Path
    store: Path
    folder: Path
    process: subprocess.Popen | None = None
    site: Site | None = None
    undo: list[Callable[[], None]] = field(default_factory=list)
    """Before the run is called again."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    do: Callable[[Struck], None]
    stages: tuple[str, ...] = STAGES
    on: str = "threads"
    """threads; workers: a scheduler and two workers in processes of their own."""
    disk: str = ""
    """What lies on a small disk: store or out."""
    again: tuple[str, ...] = ()
    """Words before the command when it is called again."""


def strike(kind: str, stage: str, night: Path, folder: Path, bits: str) -> Outcome:
    """Strike a run of a night in a stage, call it again if it ends, and compare.

    Parameters
    ----------
    bits : fingerprint of the undisturbed run with `_SETTINGS`
    """
    fault = KINDS[kind]
    with contextlib.ExitStack() as stack:
        places = {name: folder / name for name in ("store", "out")}
        if fault.disk:
            stack.enter_context(_small_disk(places[fault.disk]))
        struck = Struck(night, places["out"], places["store"], folder)
        where: tuple[str, ...] = _SETTINGS
        if fault.on == "workers":
            struck.site = stack.enter_context(site(folder / "site"))
            where = (*_SETTINGS[:4], "--scheduler", struck.site.address)
        command = [sys.executable, "-m", "lerar_dask", "stack", str(night), "-o", str(struck.out)]
        command += ["--store", str(struck.store)]
        errors = folder / "stderr"
        with errors.open("w") as stderr:
            struck.process = subprocess.Popen(
                [*command, *where, "--json"], stdout=subprocess.PIPE, stderr=stderr, text=True
            )
            in_time = _watch(struck, stage, fault)
            code = struck.process.wait(timeout=300)
            struck.process.stdout.close()  # type: ignore[union-attr]
        said = errors.read_text()
        if "Traceback" in said:
            raise AssertionError(said)
        for undo in struck.undo:
            undo()
        calls = 1
        while code and calls < 3:
            done = subprocess.run([*fault.again, *command, *_SETTINGS], capture_output=True, text=True, check=False)
            code, calls = done.returncode, calls + 1
            if "Traceback" in done.stderr:
                raise AssertionError(done.stderr)
        same = code == 0 and _bits(struck.out) == bits
        return Outcome(same, calls, said.strip().splitlines()[-1][:200] if said.strip() else "", in_time)


def undisturbed(night: Path, folder: Path) -> str:
    """Fingerprint of a run that nothing happens to."""
    command = [sys.executable, "-m", "lerar_dask", "stack", str(night), "-o", str(folder / "plain"), *_SETTINGS, "-q"]
    subprocess.run(command, check=True)
    return _bits(folder / "plain")


def _bits(out: Path) -> str:
    """Of the master; the drizzled one and the report must be there too."""
    drizzled = list(out.glob("*_drizzle1x.fits"))
    if not drizzled or not (out / "report.html").exists():
        return "incomplete"
    for path in drizzled:
        path.rename(path.with_suffix(".kept"))
    try:
        return fingerprint(out)
    finally:
        for path in drizzled:
            path.with_suffix(".kept").rename(path)


def _watch(struck: Struck, stage: str, fault: Kind) -> bool:
    """Read the run's events, and strike when the stage begins; whether it had not ended by then."""
    in_time, done = False, False
    for line in struck.process.stdout:  # type: ignore[union-attr]
        event = json.loads(line)
        if event.get("step") == stage and event["event"] == "StepStarted" and not done:
            fault.do(struck)
            done = True
        in_time |= done and event.get("step") == stage and event["event"] in ("StepStarted", "TaskFinished")
    if not done:
        raise AssertionError(f"the run has no stage {stage}")
    return in_time


# ------------------------------------------------------------------------------------------------------------- the faults


def _kill(struck: Struck) -> None:
    struck.process.kill()  # type: ignore[union-attr]


def _terminate(struck: Struck) -> None:
    struck.process.terminate()  # type: ignore[union-attr]


def _kill_worker(struck: Struck) -> None:
    struck.site.workers[0].kill()  # type: ignore[union-attr]


def _stop_worker(struck: Struck) -> None:
    worker = struck.site.workers[0]  # type: ignore[union-attr]
    worker.send_signal(signal.SIGSTOP)
    timer = threading.Timer(_STOPPED_S, worker.send_signal, (signal.SIGCONT,))
    timer.daemon = True
    timer.start()
    struck.undo.append(timer.cancel)


def _kill_scheduler(struck: Struck) -> None:
    struck.site.scheduler.kill()  # type: ignore[union-attr]


def _fill(place: str) -> Callable[[Struck], None]:
    def fill(struck: Struck) -> None:
        ballast = (struck.store if place == "store" else struck.out) / ".ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 65536):
                pass
        struck.undo.append(ballast.unlink)

    return fill


def _shard(struck: Struck) -> Path:
    """Pixels of a sub in the middle."""
    shards = sorted(struck.store.glob("raw/*/pixels/c/*/0/0"))
    return shards[len(shards) // 2]


def _cut(struck: Struck) -> None:
    os.truncate(_shard(struck), _shard(struck).stat().st_size // 2)


def _flip(struck: Struck) -> None:
    shard = _shard(struck)
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 4
    other = shard.with_name("other")
    other.write_bytes(data)
    other.replace(shard)


def _delete(struck: Struck) -> None:
    _shard(struck).unlink()


def _late(struck: Struck) -> None:
    """A shard that another machine has written and this one does not see yet."""
    shard = _shard(struck)
    away = struck.folder / "late"
    shard.replace(away)

    def appear() -> None:
        time.sleep(1.0)
        if not shard.exists() and shard.parent.exists():
            away.replace(shard)

    threading.Thread(target=appear, daemon=True).start()


def _lose_sources(struck: Struck) -> None:
    """All frames go once they are in the store."""
    struck.night.rename(struck.folder / "gone")


@contextlib.contextmanager
def _small_disk(at: Path) -> Iterator[None]:
    at.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(at)], capture_output=True, check=False
    )
    if done.returncode:
        raise PermissionError("this machine lets no file system be mounted")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


_INGESTED = STAGES[STAGES.index("register") :]
_YESTERDAY = ("faketime", "-f", "-1d") if shutil.which("faketime") else ()

KINDS = {
    "command killed": Kind(_kill),
    "command terminated": Kind(_terminate),
    "worker killed": Kind(_kill_worker, on="workers"),
    "worker stopped for a minute": Kind(_stop_worker, on="workers"),
    "scheduler killed": Kind(_kill_scheduler, on="workers"),
    "disk full, store": Kind(_fill("store"), disk="store"),
    "disk full, OUT": Kind(_fill("out"), disk="out"),
    "shard cut short": Kind(_cut, stages=_INGESTED),
    "shard's bit flipped": Kind(_flip, stages=_INGESTED),
    "shard deleted": Kind(_delete, stages=_INGESTED),
    "shard seen late": Kind(_late, stages=_INGESTED),
    "frames deleted": Kind(_lose_sources, stages=_INGESTED),
}
if _YESTERDAY:
    KINDS["killed, clock back a day"] = Kind(_kill, again=_YESTERDAY)
"""By what a user would call them."""
