"""How kernels are compiled: the one place of numba's options, as two decorators.

Both release the GIL and divide as numpy does. What nobody calls is not compiled: no entry for C, and none for Python
where only other kernels call; together they are a sixth of the time that compiling takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["kernel", "part"]

_ALL = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function for calls from Python and from other kernels, and keep it."""
    return njit(function, cache=True, **_ALL, **options)


def part(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function for calls from other kernels alone, as a part of each of them."""
    return njit(function, no_cpython_wrapper=True, **_ALL, **options)
