"""How kernels are compiled: the one place of numba's options, as two decorators.

Both release the GIL and divide as numpy does. What nobody calls is not compiled: no entry for C, and none for Python
where only other kernels call; together they are a sixth of the time that compiling takes.

With `borrows` a function only borrows arrays: it neither makes one nor returns one, a view included. Then none of its
views is counted. Counts are atomic: for the dozen views that a short run of pixels takes they cost more than the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.options import DefaultOptions

__all__ = ["kernel", "part"]

_ALL = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_COUNTS = "_nrt" if hasattr(DefaultOptions, "_nrt") else None
"""An option that numba keeps for its own functions; without it everything is the same, but slower."""


def kernel(function: Callable[..., Any] | None = None, *, borrows: bool = False, **options: Any) -> Any:
    """Compile a function for calls from Python and from other kernels, and keep it."""
    return njit(function, cache=True, **_ALL, **_counting(borrows), **options)


def part(function: Callable[..., Any] | None = None, *, borrows: bool = False, **options: Any) -> Any:
    """Compile a function for calls from other kernels alone, as a part of each of them."""
    return njit(function, no_cpython_wrapper=True, **_ALL, **_counting(borrows), **options)


def _counting(borrows: bool) -> dict[str, bool]:
    # Said either way: what says nothing is compiled as its first caller is.
    return {_COUNTS: not borrows} if _COUNTS else {}
