"""Kernels of the later stages, compiled in a process of their own while the earlier stages already run.

The first run after an install compiles some fifty kernels. numba compiles one at a time in a process, whatever its
threads; two processes that share the cache on disk compile two. This one, which runs this module, begins with what a run
needs last and goes backwards; where both meet, each finds in the cache what the other has done.

A kernel is compiled for the types that a run gives it. A table says them, for runs with all defaults on 16 bit frames
of one color; a kernel that is called with other types is compiled when it is called, as ever.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from numba import types

from lerar_dask.kernels.resample import terms

__all__ = ["COMPILER_BYTES", "TYPES", "compile_all", "is_compiled"]

_PYTHON = f"py{sys.version_info[0]}{sys.version_info[1]}"
COMPILER_BYTES = 450 << 20
"""Most memory that the process takes."""
# fmt: off
TYPES = (
    ("reject.noise_model._auto",
     "f4[:,:,::1], i8, f4[::1], f4[:,:,:,::1], f4[:,::1], i8, i8[::1], f4[:,:,::1], f4[:,:,::1], i8[:,::1], "
     "u1[:,:,::1]"),
    ("resample.sample.sample_plane",
     "Part(f4[:,::1], i8, i8), Tuple((i8, i8, f8[:,::1])), Lattice(i8, i8, i8), SubTerms(f8[:,::1], f8[:,::1], i8, i8, "
     "Part(u1[:,::1], i8, i8), i4[::1], i4[::1]), Method(i8, f4, f4, i8), Sky(f4[:,::1], i8, i8, f4), "
     "Target(f4[:,:,::1], i8, i8, i8, i8, i8), "
     "Scratch(f4[:,::1], i8[:,::1], f8[:,::1], f4[:,::1], i8[:,::1]), Fallback(f8[:,:,::1], f8, f8)"),
    ("resample.sample.prepare_window",
     "Part(u2[:,::1], i8, i8), Numbers(f8, f8, f8, f8), f4[:,::1], f4[:,::1], UniTuple(i8, 2), i4[:,::1], i4[::1], i8, f4, "
     "Part(f4[:,::1], i8, i8)"),
    ("resample.masks.drop_lines",
     "f8[:,::1], f8[:,::1], Target(f4[:,:,::1], i8, i8, i8, i8, i8), i4[:,::1], Fallback(f8[:,:,::1], f8, f8)"),
    ("resample.window.take_plane",
     "Part(f4[:,::1], i8, i8), Lattice(i8, i8, i8), i8, i8, UniTuple(b1, 3), Part(f4[:,::1], i8, i8)"),
    ("combine.planes.finish_planes", "f4[:,:,::1], i4[:,::1], f8[:,:,::1], i8, f4"),
    ("normalize.surface._evaluate_all", "f8[:,:,::1], f8, f8, f8[:,::1], f8[:,::1], f4[:,::1]"),
    ("normalize.surface._evaluate", "f8[:,::1], f8, f8, f8[::1], f8[::1], f4[::1]"),
    ("output.binning._area_means", "f4[:,::1], i8, f4[:,::1]"),
    ("output.words._turn", "u4[:,::1], u4[:,::1]"),
    ("trails.fit._means_across", "f8[:,::1], f8, f8, f8, f8, f8[::1]"),
    ("trails.fit._means_across", "f8[::1,:], f8, f8, f8, f8, f8[::1]"),
    ("trails.search._search", "f4[:,::1], f8, f8, i8, f8"),
    ("trails.search._peak", "f4[:,:,::1], i8"),
    ("trails.search._radon_level", "f4[:,::1], i8, f4[:,::1]"),
    ("normalize.block_scene._excess",
     "f4[:,:,::1], b1[:,::1], f4[:,::1], f8[:,::1], f4[:,::1], f8, f4[:,::1], i8, f8, f8, f4[:,::1]"),
    ("normalize.block_scene._touch", "f4[:,:,::1], b1[:,::1], f8[:,::1], f8, f8, b1[:,::1], b1[:,::1]"),
    ("normalize.block_scene._splat",
     "f4[:,:,::1], b1[:,::1], f4[:,::1], f8[:,::1], f8, f8, f8, f8, f8[:,::1], b1, f8[:,::1], f8[:,::1]"),
    ("normalize.cell_loops.sample_scene", "f8[:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1]"),
    ("normalize.cell_loops.reweight_cells", "f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f8[::1], f8[::1], f8, f8[::1], f4[:,:,::1]"),
    ("normalize.cell_loops.apply_normal", "f8[:,::1], f4[:,:,::1], f4[:,:,::1], f8[::1], f4[:,:,::1], f4[:,:,::1], f8[:,::1]"),
    ("normalize.cell_loops.gather_gradient", "f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f8[::1], f8[:,::1], f8[:,::1]"),
    ("normalize.cell_loops.subtract_model", "f4[:,:,::1], f8[:,::1], f4[:,:,::1], f4[:,:,::1], f8[::1], f4[:,:,::1]"),
    ("normalize.slab._place", "f8[:,:,::1], f8[::1], f8[::1], f8, f8, f8, f4[:,:,::1], f4[:,:,::1]"),
    ("normalize.surface._axis_rows", "f8[::1], f8, i8, f8[:,::1]"),
    ("normalize.cells._bin",
     "f4[:,:,::1], b1[:,::1], f4[:,::1], i8, i8[::1], i8[::1], f8, f8[::1], i8, i8, f4[:,::1], f4[:,::1]"),
    ("normalize.cells._cover", "f8[::1], f8[::1], f8[::1], u2[:,::1]"),
    ("register.transform._robust", "f8[:,::1], f8[:,::1], f8[::1], i8, b1, i8"),
    ("register.log_odds.best_candidate", "f8[:,::1], f8[:,::1], i8[::1], f8[:,::1], f8, f8, f8, f8"),
    ("register.asterism._fullest", "f8[:,::1], i8[:,:], i8[:,::1]"),
    ("register.asterism._vote",
     "_Triangles(f8[:,::1], i8[:,::1], i8[::1], i8[::1]), _Triangles(f8[:,::1], i8[:,::1], i8[::1], i8[::1]), f8[:,::1], "
     "f8[:,::1], f8[::1], f8, Tuple((f8, f8, b1))"),
    ("register.asterism._hash", "f8[:,::1]"),
    ("register.asterism._triangles", "f8[:,::1], i8[::1], f8"),
)
# fmt: on
"""Kernels and their types, in the order in which they are compiled; a kernel may have several lines."""


def compile_all() -> None:
    """Compile the kernels of `TYPES` into the cache; those that are there already are only loaded."""
    for kernel, signature in kernels_and_types():
        kernel.compile(signature)


def kernels_and_types() -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Kernels of `TYPES` with the types of their arguments, as a call has them: the cache knows kernels by these."""
    for name, line in TYPES:
        module, _, function = name.rpartition(".")
        room = importlib.import_module(f"lerar_dask.kernels.{module}")
        yield getattr(room, function), eval(f"({line},)", {}, _names(room))


def _names(room: ModuleType) -> dict[str, Any]:
    """What a line of `TYPES` may name: numba's types, and the named tuples of the kernel's module and of `terms`."""
    tuples = {
        name: lambda *of, made=made: types.BaseTuple.from_types(of, made)
        for module in (terms, room)
        for name, made in vars(module).items()
        if isinstance(made, type) and issubclass(made, tuple)
    }
    return {**vars(types), **tuples}


def is_compiled() -> bool:
    """Whether the kernel that is begun with is kept for this processor and numba (of this program text: `cache`)."""
    kernel, _ = next(kernels_and_types())
    text = Path(kernel.py_func.__code__.co_filename)
    indexes = Path(kernel.stats.cache_path).glob(f"{text.stem}.{kernel.py_func.__name__}-*{_PYTHON}*.nbi")
    machine = kernel.targetctx.codegen().magic_tuple()
    return any(machine in _machines(index) for index in indexes)


def _machines(index: Path) -> list[Any]:
    """What numba has compiled a kernel for, as it notes in the index of the kernel's variants."""
    try:
        with index.open("rb") as file:
            made_by = pickle.load(file)
            _, variants = pickle.load(file)
        return [machine for _, machine, _ in variants] if made_by == numba.__version__ else []
    except Exception:  # an index of a numba that writes another one: at worst a kernel is loaded that is there
        return []


def _follow_parent() -> None:
    """End with the parent, however it ends: the other end of the pipe is closed then."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    gc.disable()  # a compiler leaves little garbage, and searching for it takes a seventh of its time
    threading.Thread(target=_follow_parent, daemon=True, name="parent").start()
    compile_all()
    # Nothing to tidy up, and the other thread may hold the lock of stdin.
    os._exit(0)
