"""Ctrl-C and SIGTERM: the run leaves within two seconds, whatever it is doing, and says how to go on.

The main thread gets a KeyboardInterrupt, so that files, ledger and lock are closed in order. Should it be inside a
kernel, which no Python exception reaches, a watcher thread ends the process; everything written is atomic, so that the
next call goes on (promise 4 of the design).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

__all__ = ["exit_at_once", "interrupted", "signals"]

_PATIENCE_S = 1.5
_AGAIN_S = 0.02
"""A signal that came where no exception can be raised comes again after this."""
_received: list[int] = []


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Within the block, SIGINT and SIGTERM raise KeyboardInterrupt, and end the process soon after if need be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    old = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    threading.Thread(target=_watch, args=(reader,), daemon=True, name="lerar-signals").start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old_fd)
        for number, handler in old.items():
            signal.signal(number, handler)
        writer.close()


def interrupted() -> int:
    """Say how to go on; returns the exit code of the signal that came."""
    number = _received[0] if _received else signal.SIGINT
    cursor = b"\x1b[?25h" if os.isatty(2) else b""  # bars hide it
    with contextlib.suppress(OSError):
        os.write(2, cursor + b"\nlerar: stopped; the same command goes on from here\n")
    return 128 + number


def exit_at_once(code: int) -> NoReturn:
    """End the process at once: taking apart a program of this size by rule costs a second and gives nothing back.

    What registered itself for the end is still called; not after a signal, when threads may still compute.
    """
    if not _received:
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _raise(number: int, frame: FrameType | None) -> None:
    if not _received:
        _received.append(number)
    if _is_deaf(frame):
        again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    raise KeyboardInterrupt


def _is_deaf(frame: FrameType | None) -> bool:
    """Whether what is running lets no exception out, but prints it: finalizers, and a callback of the import system."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or (code.co_name == "cb" and code.co_filename.startswith("<frozen importlib")):
            return True
        frame = frame.f_back
    return False


def _watch(reader: socket.socket) -> None:
    """End the process a while after a signal came, when the main thread could not."""
    number = next((n for n in reader.recv(16) if n in (signal.SIGINT, signal.SIGTERM)), None)
    if number is None:
        return
    time.sleep(_PATIENCE_S)
    if not _received:
        _received.append(number)
    os._exit(interrupted())
