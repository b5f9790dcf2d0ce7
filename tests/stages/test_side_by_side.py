"""Parts of a task beside each other: in order, no more at once than cores are given, errors handed on."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.runtime.local import Threads
from lerar_dask.stages.side_by_side import side_by_side
from lerar_dask.tasks import CORES, Task


@pytest.fixture(autouse=True)
def given_back():
    before = CORES.set(1)
    yield
    CORES.reset(before)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 12))
def test_the_order_is_that_of_the_items(items, cores):
    CORES.set(cores)
    assert list(side_by_side(lambda x: 2 * x + 1, iter(items))) == [2 * x + 1 for x in items]


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_as_many_at_once_as_cores(cores):
    CORES.set(cores)
    running, most, guard = set(), [0], threading.Lock()

    def part(i):
        with guard:
            running.add(i)
            most[0] = max(most[0], len(running))
        time.sleep(0.02)
        with guard:
            running.remove(i)
        return i

    assert list(side_by_side(part, range(12))) == list(range(12))
    assert most[0] == cores


def test_an_error_comes_at_its_place():
    CORES.set(3)

    def part(i):
        if i == 4:
            raise ValueError("four")
        return i

    seen = []
    with pytest.raises(ValueError, match="four"):
        seen.extend(side_by_side(part, range(100)))
    assert seen == [0, 1, 2, 3]


def cores_here():
    return {"cores": CORES.get()}


@pytest.mark.parametrize(("slots", "n", "cores"), [(1, 1, 1), (2, 1, 2), (2, 2, 2), (2, 3, 1), (8, 3, 5), (8, 40, 1)])
def test_few_tasks_get_the_cores_of_a_step(slots, n, cores):
    tasks = [Task(key=f"t{i}", digest="x", function=cores_here, arguments={}) for i in range(n)]
    assert {record.result["cores"] for record in Threads(slots, 1 << 30).run(iter(tasks), slots)} == {cores}
    assert CORES.get() == 1
