"""Steps survive being written as JSON; only names of this package are looked up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lerar_dask.grid import Canvas, source_window
from lerar_dask.settings import Settings
from lerar_dask.tasks import Plan, Step, Task, step_from_plain, step_to_plain

STEP = Step(
    name="integrate",
    task_bytes=5,
    tasks=[
        Task(
            key="k",
            digest="d",
            function=source_window,
            pixels=7,
            arguments={
                "canvas": Canvas((1, 2), (3, 4)),
                "settings": Settings(),
                "transform": np.eye(3, dtype="f8"),
                "path": Path("a/b"),
                "deep": {"x": [1, (2, None)], 3: "y"},
                "nan": 0.1,
            },
        )
    ],
)


def test_there_and_back():
    back = step_from_plain(json.loads(json.dumps(step_to_plain(STEP))))
    old, new = STEP.tasks[0], back.tasks[0]
    assert (back.name, back.task_bytes, new.key, new.digest, new.pixels) == ("integrate", 5, "k", "d", 7)
    assert new.function is source_window
    for name, value in old.arguments.items():
        if name == "transform":
            assert new.arguments[name].dtype == value.dtype
            np.testing.assert_array_equal(new.arguments[name], value)
        else:
            assert new.arguments[name] == value


@pytest.mark.parametrize("name", ["os:system", "lerar_dask_evil:x", "lerar_dask.tasks:Step.pixels", "builtins:eval"])
def test_foreign_names_are_refused(name):
    plain = step_to_plain(STEP)
    plain["tasks"][0]["function"] = name
    with pytest.raises(ValueError, match="no name of lerar"):
        step_from_plain(plain)


def test_counts():
    assert STEP.pixels == 7
    assert Plan(steps=[STEP, STEP]).n_tasks == 2
