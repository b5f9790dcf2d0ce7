"""Compiled kernels of another program text are dropped.

numba keeps a compiled kernel as long as the kernel's own file is unchanged. A kernel of another file that is compiled
into it may have changed meanwhile (an update by version control touches only what changed): the old one would go on to
run, without a word. So the text of all kernels has one digest, kept beside them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import xxhash
from numba import njit

__all__ = ["drop_stale"]

_KEPT = "lerar-kernels.digest"


@njit(cache=True)
def _any_kernel() -> None:
    """Tells by its statistics where numba keeps the kernels of this folder."""


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
