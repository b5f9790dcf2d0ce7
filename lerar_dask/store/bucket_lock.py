"""One run at a time in a bucket: every holder keeps an object of its own there and renews it while it lives.

Who wants the lock puts its object first and looks at the others then, so that of two at the same time at least one sees the
other and steps back. A holder that was killed does not renew its object any more: after `STALE_S` seconds, by the server's
clock alone, it does not count; on the holder's own machine at once. A holder that was stopped for so long, and finds its
object gone, writes nothing any more.
"""

from __future__ import annotations

import json
import os
import platform
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lerar_dask.errors import LockedError

if TYPE_CHECKING:
    from lerar_dask.store.bucket_storage import BucketStorage

__all__ = ["STALE_S", "held"]

_RENEWED_S = 20.0
STALE_S = 90.0
"""Age from which on a lock counts as left behind."""
_TRIES = 4
_PAUSE_S = 1.5


@contextmanager
def held(storage: BucketStorage, path: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock while the block runs; see `Storage.lock`.

    Raises
    ------
    LockedError
        when another process holds it.
    """
    own = _Held(storage, path, shared)
    own.take()
    renewal = threading.Thread(target=own.renew, daemon=True, name="lock")
    renewal.start()
    try:
        yield
    finally:
        own.ended.set()
        renewal.join()
        if not storage.lost:
            storage.delete(own.path)


class _Held:
    """A holder's own object."""

    def __init__(self, storage: BucketStorage, folder: str, shared: bool) -> None:
        self.storage, self.folder, self.shared = storage, folder, shared
        self.name = uuid.uuid4().hex
        self.path = f"{folder}/{self.name}"
        self.ended = threading.Event()

    def take(self) -> None:
        """Get the lock."""
        for _ in range(_TRIES):
            self._put(settled=False)
            rivals = self._rivals()
            if not rivals:
                self._put(settled=True)
                return
            self.storage.delete(self.path)
            if any(rival["settled"] for rival in rivals):
                break
            time.sleep(random.uniform(0.2, 1.0) * _PAUSE_S)  # somebody wants it at this very moment
        raise _locked(self.storage, rivals[0])

    def renew(self) -> None:
        """Put the object again and again; when it is gone, nothing may be written any more."""
        renewed = time.monotonic()
        while not self.ended.wait(_RENEWED_S):
            try:
                away = time.monotonic() - renewed
                if self.storage.size(self.path) is None or (away > STALE_S and self._rivals()):
                    text = f"another run has taken {self.storage.url} over, as this one gave no sign for {away:.0f} s"
                    self.storage.lost = text
                    return
                self._put(settled=True)
                renewed = time.monotonic()
            except OSError:
                continue  # a server that is away for a while lets nobody else in either

    def _put(self, *, settled: bool) -> None:
        me = psutil.Process()
        who = {
            "host": platform.node(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started": me.create_time(),
            "name": self.name,
        }
        how = {"shared": self.shared, "settled": settled, "beat": uuid.uuid4().hex}
        told = {**who, **how, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self.storage.put(self.path, json.dumps(told).encode())

    def _rivals(self) -> list[dict[str, Any]]:
        """Others that live and do not share it; what dead ones have left is removed."""
        now = self.storage.changed(self.path)
        found = []
        for name in self.storage.names(self.folder)[1]:
            path = f"{self.folder}/{name}"
            if name == self.name:
                continue
            try:
                holder, changed = json.loads(self.storage.get(path)), self.storage.changed(path)
                age = (now - changed).total_seconds()
            except FileNotFoundError:  # given back in between
                continue
            except ValueError:
                holder, age = None, STALE_S + 1
            if not isinstance(holder, dict) or age > STALE_S or not _may_live(holder, name):
                self.storage.delete(path)
            elif not (self.shared and holder.get("shared")):
                found.append({"settled": False, **holder})
        return found


def _machine() -> str:
    """Within what numbers of processes mean something: containers may share a name, not this; unknown: no two agree."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return uuid.uuid4().hex


def _may_live(holder: dict[str, Any], name: str) -> bool:
    """Whether a holder may be there: of this machine's own processes it is known; their numbers are given again."""
    if holder.get("machine") != _machine() or holder.get("name") != name:
        return True
    try:
        return abs(psutil.Process(int(holder["pid"])).create_time() - float(holder["started"])) < 1.0
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, KeyError, TypeError, ValueError):
        return True


def _locked(storage: BucketStorage, holder: dict[str, Any]) -> LockedError:
    who = " (process {} on {}, since {})".format(*(holder.get(word, "?") for word in ("pid", "host", "since")))
    hint = "wait until it is done, or stop it"
    if holder.get("machine") != _machine():
        hint += f"; if it was killed, its lock ends within {STALE_S:.0f} s"
    return LockedError(f"another run works in {storage.url}{who}", hint)
