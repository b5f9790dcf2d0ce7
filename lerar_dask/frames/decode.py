"""Decode: pixels of files that are packed, by a process of their own with limits on memory, time and output.

In   a frame whose pixels are compressed
Out  rows of them as they lie in the file, big-endian; a FrameError where the file cannot be unpacked

Processes are kept and used again: a start costs half a second. They end with this one, whatever ends it, since their
standard input ends then. A gzipped file of plain FITS needs none: it is unpacked here, no further than its picture.
"""

from __future__ import annotations

import atexit
import gzip
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames.frame import Frame, PixelSource

__all__ = ["close", "decoded_rows", "unzipped_rows"]

_WALL_S = 600.0
"""A process that has not answered by then, on the slowest of disks, never will."""
_CPU_S, _PIXELS_PER_S = 4.0, 2e6
"""Processor time for one piece: at least, and for its pixels; the slowest codec is ten times as fast."""
_MEMORY_BYTES, _COPIES = 256 << 20, 8
"""Memory for one piece beyond what the process has: at least, and so many times the picture."""

_BEHIND_BYTES = 64 << 20
"""What may lie behind a picture in a gzipped file and is still read, so that its checksum is seen."""


class _Child:
    """One decoding process and the memory shared with it."""

    def __init__(self) -> None:
        self.shared = _shared_file()
        program = Path(__file__).with_name("decode_child.py")
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(program), str(self.shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[self.shared],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.is_alive = True

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request; FrameError, and the end of the process, where there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answer: dict[str, Any] = {}
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], _WALL_S)
            answer = json.loads(self.process.stdout.readline() or b"{}") if ready else {}
        except (OSError, ValueError):
            answer = {}
        if "shape" not in answer:
            self.close()
            raise FrameError(f"its pixels cannot be unpacked ({answer.get('error') or self._end()})")
        return answer

    def _end(self) -> str:
        """How the process ended, in words."""
        code = self.process.returncode
        if code == -signal.SIGXCPU:
            return "it takes longer than its picture could"
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"the file ended the decoder by {signal.Signals(-code).name}"
        return "the file ended the decoder"

    def take(self, shape: tuple[int, int], dtype: np.dtype, wanted: np.dtype) -> np.ndarray:
        """A copy of the pixels that the process has put into the shared memory, their bytes in the order wanted."""
        out = np.empty(shape, wanted)
        with mmap.mmap(self.shared, out.nbytes, prot=mmap.PROT_READ) as memory:
            place: np.ndarray = np.frombuffer(memory, dtype).reshape(shape)
            out[...] = place
            del place
        return out

    def close(self) -> None:
        """End the process; what is left of it is taken away."""
        if not self.is_alive:
            return
        self.is_alive = False
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
        self.process.kill()
        self.process.wait()
        os.close(self.shared)


class _Pool:
    """Processes that wait for work; as many as threads ask at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: list[_Child] = []
        self.pid = os.getpid()

    def get(self) -> _Child:
        with self.lock:
            if self.pid != os.getpid():  # of the process that this one was forked from
                self.idle, self.pid = [], os.getpid()
            if self.idle:
                return self.idle.pop()
        return _Child()

    def put(self, child: _Child) -> None:
        with self.lock:
            if child.is_alive and self.pid == os.getpid():
                self.idle.append(child)

    def close(self) -> None:
        with self.lock:
            idle, self.idle = self.idle, []
        if self.pid == os.getpid():
            for child in idle:
                child.close()


_pool = _Pool()
close = _pool.close
atexit.register(close)


def decoded_rows(frame: Frame, source: PixelSource, y0: int, y1: int, step: int = 1, plane: int = 0) -> np.ndarray:
    """Rows y0, y0 + step, ... below y1 of a tile-compressed or odd file, as they lie in the file.

    Raises
    ------
    FrameError
        when the file cannot be unpacked within the limits, or holds something else than its header announces.
    """
    shape = (len(range(y0, y1, step)), frame.shape[1])
    announced = np.dtype(source.dtype)
    pixels = frame.shape[0] * frame.shape[1] * frame.n_planes
    request = {
        "path": os.fsdecode(frame.path),
        "hdu": source.hdu,
        "y0": y0,
        "y1": y1,
        "step": step,
        "plane": plane,
        "memory_bytes": _MEMORY_BYTES + _COPIES * pixels * announced.itemsize,
        "cpu_s": _CPU_S + pixels / _PIXELS_PER_S,
        "most_bytes": shape[0] * shape[1] * announced.itemsize,
    }
    child = _pool.get()
    try:
        answer = child.ask(request)
        dtype = np.dtype(str(answer["dtype"]))
        if tuple(answer["shape"]) != shape or (dtype.kind, dtype.itemsize) != (announced.kind, announced.itemsize):
            raise FrameError("its pixels are not of the size and type that its header announces")
        return child.take(shape, dtype, announced)
    finally:
        _pool.put(child)


def unzipped_rows(frame: Frame, source: PixelSource, y0: int, y1: int, step: int = 1, plane: int = 0) -> np.ndarray:
    """Rows y0, y0 + step, ... below y1 of a gzipped plain file, as they lie in the file.

    Raises
    ------
    FrameError
        when the file is damaged or cut short.
    """
    width, dtype = frame.shape[1], np.dtype(source.dtype)
    rows = np.empty((y1 - y0, width), dtype)
    try:
        with gzip.open(frame.path) as file:
            file.seek(source.offset + (plane * frame.shape[0] + y0) * width * dtype.itemsize)
            view = memoryview(rows).cast("B")  # type: ignore[arg-type]
            got = 0
            while got < len(view) and (n := file.readinto(view[got:])):
                got += n
            if y1 == frame.shape[0] and plane == frame.n_planes - 1:
                _check_end(file)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FrameError(f"it cannot be unpacked ({(str(error).splitlines() or ['damaged'])[0][:120]})") from error
    if got < len(view):
        raise FrameError("it cannot be unpacked (it is cut short)")
    return rows[::step]


def _check_end(file: gzip.GzipFile) -> None:
    """Read on to the end, where the checksum is, as far as a file of one picture goes."""
    left = _BEHIND_BYTES
    while left > 0 and (n := len(file.read(1 << 20))):
        left -= n


def _shared_file() -> int:
    """Descriptor of a file without a name: in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lerar-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
