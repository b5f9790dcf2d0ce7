"""Compiled kernels of another program text are dropped; where none can be kept, they are for this run.

Those that a wheel has brought are laid in their place (`shipped`).

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

from lerar_dask.kernels.compiled.shipped import Shipped, shipped_for, use_family

__all__ = ["NOT_KEPT", "digest_of", "drop_stale", "renew"]

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


def digest_of(sources: Path = _KERNELS) -> str:
    """Digest of the text that is compiled: of all files below a folder, and of the constants beside it."""
    text = xxhash.xxh3_128()
    for path in [*sorted(sources.rglob("*.py")), *sources.parent.glob("constants.py")]:
        text.update(path.relative_to(sources.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return text.hexdigest()


_DIGEST = digest_of()
_SHIPPED = shipped_for(_DIGEST)
use_family(_SHIPPED)
NOT_KEPT = _is_not_kept()


def renew() -> bool:
    """Make the kernels that are kept those of this text."""
    return drop_stale(_KERNELS, _DIGEST, _SHIPPED)


def drop_stale(
    sources: Path, digest: str, shipped: Shipped | None = None, *, kept_at: Callable[[Path], Path] = _kept_at
) -> bool:
    """Drop what was compiled of another text, and lay what came with this one in its place.

    Parameters
    ----------
    sources : folder of the kernels' rooms; a kernel, and the constants beside the folder, may be compiled into any other
    digest : of their text
    shipped : kernels of this text that are there already
    kept_at : says where numba keeps the kernels of a folder

    Returns
    -------
    whether there was something to do
    """
    state = f"{digest} shipped" if shipped else digest
    rooms = sorted({path.parent for path in sources.rglob("*.py")})
    files = [shipped.files(room.relative_to(sources)) if shipped else [] for room in rooms]
    renewed = [_renew(kept_at(room), state, own) for room, own in zip(rooms, files, strict=True)]
    return any(renewed)


def _renew(compiled: Path, state: str, shipped: list[Path]) -> bool:
    kept = compiled / _KEPT
    with suppress(OSError):
        if kept.read_text() == state:
            return False
    # A folder that cannot be written keeps no kernels either, and another process may do the same at this moment.
    with suppress(OSError):
        for file in compiled.glob("*.nb[ic]"):
            file.unlink(missing_ok=True)
        compiled.mkdir(parents=True, exist_ok=True)
        for file in shipped:
            _write(compiled / file.name, file.read_bytes())
        _write(kept, state.encode())
    return True


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    own = path.with_name(f"{path.name}.{os.getpid()}")
    own.write_bytes(content)
    own.replace(path)
