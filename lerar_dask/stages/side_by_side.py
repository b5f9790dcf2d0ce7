"""Parts of one task beside each other: for the few tasks that a step has only one of, while all other cores would be idle.

Results come in the order of what they are made of, so that nothing depends on how many threads there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from lerar_dask.tasks import CORES

__all__ = ["side_by_side"]

_MOST = 8
_AHEAD = 2
"""Results per thread that may wait to be taken: what is read ahead is held in memory."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def side_by_side(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Results of a function that lets go of the interpreter, on the cores that this task may use (`CORES`)."""
    n = min(_MOST, CORES.get())
    if n == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[_Result]] = deque()
    left = iter(items)
    with ThreadPoolExecutor(n, thread_name_prefix="beside") as pool:
        try:
            waiting.extend(pool.submit(function, item) for item in islice(left, _AHEAD * n))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(left, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
