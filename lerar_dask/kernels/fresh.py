"""Compiled kernels of another program text are dropped; where none can be kept, they are for this run.

numba keeps a compiled kernel as long as the kernel's own file is unchanged. A kernel of another file that is compiled
into it may have changed meanwhile (an update by version control touches only what changed): the old one would go on to
run, without a word. So the text of all kernels has one digest, kept beside them.

A program on a read-only disk, run by somebody without a home, has no place for compiled kernels: a private temporary
folder serves as one, which the processes of the run share and which goes with it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import xxhash
from numba import njit

__all__ = ["NOT_KEPT", "drop_stale"]

_KEPT = "lerar-kernels.digest"


def _nothing() -> None:
    """A kernel that tells by its statistics where numba keeps the kernels of this folder."""


def _kept_or_not() -> tuple[Any, bool]:
    """A kernel of this folder; whether there is no place where compiled kernels stay, so that one was made for this run."""
    try:
        return njit(cache=True)(_nothing), False
    except RuntimeError:  # numba found neither this folder nor one of the user's that can be written to
        place = tempfile.mkdtemp(prefix="lerar-kernels-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = place  # type: ignore[attr-defined]
        return njit(cache=True)(_nothing), True


_any_kernel, NOT_KEPT = _kept_or_not()


def drop_stale(sources: Path = Path(__file__).parent, compiled: Path | None = None) -> bool:
    """Drop what was compiled of another text than that of `sources`; True if there was something to do.

    Parameters
    ----------
    sources : folder of the kernels' files
    compiled : folder where numba keeps them; by default where it keeps those of this folder
    """
    compiled = Path(_any_kernel.stats.cache_path) if compiled is None else compiled
    digest = _digest(sources)
    kept = compiled / _KEPT
    with suppress(OSError):
        if kept.read_text() == digest:
            return False
    # A folder that cannot be written keeps no kernels either, and another process may do the same at this moment.
    with suppress(OSError):
        for file in compiled.glob("*.nb[ic]"):
            file.unlink(missing_ok=True)
        compiled.mkdir(parents=True, exist_ok=True)
        own = kept.with_suffix(f".{os.getpid()}")
        own.write_text(digest)
        own.replace(kept)
    return True


def _digest(sources: Path) -> str:
    text = xxhash.xxh3_128()
    for path in sorted(sources.glob("*.py")):
        text.update(path.name.encode() + b"\0" + path.read_bytes())
    return text.hexdigest()
