"""Steps survive being written as JSON; only names of a given table are looked up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lerar_dask.grid import Canvas
from lerar_dask.settings import Integrate
from lerar_dask.tasks import Plan, Step, Task, name_of, step_from_plain, step_to_plain


def work(*, store_url, **more):
    """A task function."""
    return {"store_url": store_url, **more}


STEP = Step(
    name="integrate",
    task_bytes=5,
    tasks=[
        Task(
            key="k",
            digest="d",
            function=work,
            pixels=7,
            arguments={
                "store_url": "elsewhere",
                "canvas": Canvas((1, 2), (3, 4)),
                "settings": Integrate(),
                "transform": np.eye(3, dtype="f8"),
                "path": Path("a/b"),
                "deep": {"x": [1, (2, None)], 3: "y"},
                "nan": 0.1,
            },
        )
    ],
)


KNOWN = {name_of(thing): thing for thing in (work, Canvas, Integrate)}


def back_from(plain):
    return step_from_plain(plain, known=KNOWN, bound={"store_url": "here"})


def test_there_and_back():
    back = back_from(json.loads(json.dumps(step_to_plain(STEP))))
    old, new = STEP.tasks[0], back.tasks[0]
    assert (back.name, back.task_bytes, new.key, new.digest, new.pixels) == ("integrate", 5, "k", "d", 7)
    assert new.function is work
    for name, value in old.arguments.items():
        if name == "transform":
            assert new.arguments[name].dtype == value.dtype
            np.testing.assert_array_equal(new.arguments[name], value)
        elif name == "store_url":
            assert new.arguments[name] == "here"
        else:
            assert new.arguments[name] == value


@pytest.mark.parametrize(
    "name", ["os:system", "lerar_dask_evil:x", "lerar_dask.tasks:Step.pixels", "builtins:eval", "lerar_dask.store.access:Store",
             "lerar_dask.grid:Canvas", "", None, 3, ["os:system"]]
)  # fmt: skip
def test_foreign_names_are_refused(name):
    plain = step_to_plain(STEP)
    plain["tasks"][0]["function"] = name
    with pytest.raises(ValueError, match="no task"):
        back_from(plain)


@pytest.mark.parametrize(
    "value",
    [
        {"is": "pathlib:Path", "fields": {}},
        {"is": "lerar_dask.store.access:Store", "fields": {"url": "/"}},
        {"is": "lerar_dask.grid:source_window", "fields": {}},
        {"is": "lerar_dask.grid:Canvas", "fields": {"origin_yx": 1, "shape": 2, "more": 3}},
        {"is": "array", "dtype": "O", "data": [1]},
        {"no": "form"},
    ],
)
def test_foreign_values_are_refused(value):
    plain = step_to_plain(STEP)
    plain["tasks"][0]["arguments"]["canvas"] = value
    with pytest.raises((ValueError, TypeError, KeyError)):
        back_from(plain)


def test_a_task_without_what_is_bound_is_refused():
    plain = step_to_plain(STEP)
    del plain["tasks"][0]["arguments"]["store_url"]
    with pytest.raises(ValueError, match="store_url"):
        back_from(plain)


def test_counts():
    assert STEP.pixels == 7
    assert Plan(steps=[STEP, STEP]).n_tasks == 2
