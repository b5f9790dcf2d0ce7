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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FunctionType

import numba
import xxhash
from numba import njit

__all__ = ["NOT_KEPT", "drop_stale"]

_KEPT = "lerar-kernels.digest"
_KERNELS = Path(__file__).parents[1]


def _nothing() -> None:
    """A kernel that tells by its statistics where numba keeps the kernels of a folder."""


def _kept_at(folder: Path) -> Path:
    """Where numba keeps the kernels of a folder.

    Raises
    ------
    RuntimeError
        when there is no place: neither that folder nor one of the user's can be written to.
    """
    code = _nothing.__code__.replace(co_filename=str(folder / "__init__.py"))
    return Path(njit(cache=True)(FunctionType(code, {}, "_nothing")).stats.cache_path)


def _is_not_kept() -> bool:
    """Whether there is no place where compiled kernels stay, so that one was made for this run."""
    try:
        _kept_at(_KERNELS)
        return False
    except RuntimeError:
        place = tempfile.mkdtemp(prefix="lerar-kernels-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = place  # type: ignore[attr-defined]
        return True


NOT_KEPT = _is_not_kept()


def drop_stale(sources: Path = _KERNELS, *, kept_at: Callable[[Path], Path] = _kept_at) -> bool:
    """Drop what was compiled of another text; True if there was something to do.

    Parameters
    ----------
    sources : folder of the kernels' rooms; a kernel, and the constants beside the folder, may be compiled into any other
    kept_at : says where numba keeps the kernels of a folder
    """
    digest = _digest(sources)
    dropped = [_drop(kept_at(room), digest) for room in _rooms(sources)]
    return any(dropped)


def _rooms(sources: Path) -> list[Path]:
    return sorted({path.parent for path in sources.rglob("*.py")})


def _drop(compiled: Path, digest: str) -> bool:
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
    for path in [*sorted(sources.rglob("*.py")), *sources.parent.glob("constants.py")]:
        text.update(path.relative_to(sources.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return text.hexdigest()
