"""The program of a decoder's process: unpacks one piece of one file at a time, within limits, and knows nothing of lerar.

In   a line of JSON on standard input: path, hdu, rows, limits on memory and processor time
Out  pixels in the shared file whose descriptor is the first argument, and a line of JSON on standard output

Decompressors are C code that trusts what a file says. Here a damaged file can end this process and nothing else.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import sys
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
from astropy.io import fits


def main() -> None:
    """Answer requests until there are no more."""
    shared = int(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _limit(request["memory_bytes"], request["cpu_s"])
            where = (request[name] for name in ("hdu", "plane", "y0", "y1", "step"))
            rows = _read(os.fsencode(request["path"]), *where)
            _put(shared, rows, request["most_bytes"])
            answer = {"shape": rows.shape, "dtype": rows.dtype.str}
        except MemoryError:
            answer = {"error": "it takes more memory than its picture could"}
        except Exception as error:
            # astropy raises nearly every type on damaged files; each means the same to the user.
            answer = {"error": (str(error).splitlines() or [type(error).__name__])[0][:120]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if "error" in answer:
            return  # what a damaged file has done to this process's memory is not known


def _limit(memory_bytes: int, cpu_s: float) -> None:
    """So much more memory and processor time than was taken so far, within what the whole run may have."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + cpu_s) + 1)
    with suppress(OSError):  # a system without /proc
        with open("/proc/self/statm", encoding="ascii") as statm:
            pages = int(statm.read().split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes)


def _lower(what: int, wanted: int) -> None:
    """Set a limit; the one that was given to the process, which only root may raise, stays."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _read(path: bytes, number: int, plane: int, y0: int, y1: int, step: int) -> np.ndarray:
    """Rows of a plane of an image as stored, (rows, x)."""
    with warnings.catch_warnings(), open(path, "rb") as file:
        warnings.simplefilter("ignore")
        how: dict[str, Any] = {"memmap": False, "do_not_scale_image_data": True, "lazy_load_hdus": True}
        with fits.open(file, mode="readonly", **how) as opened:
            hdu = opened[number]
            before = tuple(plane if n > 1 else 0 for n in hdu.shape[:-2])
            rows = (hdu.section if hasattr(hdu, "section") else hdu.data)[(*before, slice(y0, y1))]
            return np.asarray(rows[::step])


def _put(shared: int, rows: np.ndarray, most_bytes: int) -> None:
    """Pixels into the shared file."""
    if not 0 < rows.nbytes <= most_bytes:
        raise ValueError("it unpacks to more than its header announces")
    os.ftruncate(shared, rows.nbytes)
    with mmap.mmap(shared, rows.nbytes) as memory:
        place: np.ndarray = np.frombuffer(memory, rows.dtype).reshape(rows.shape)
        place[...] = rows
        del place


if __name__ == "__main__":
    main()
