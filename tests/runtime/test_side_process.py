"""A process beside the run: it answers once, and a run goes on the same without it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from lerar_dask.runtime.memory import RESERVED_BYTES
from lerar_dask.runtime.side_process import SideProcess
from lerar_dask.tasks import Step, Task

BYTES = 1 << 20
DOUBLES = "import pickle, sys; pickle.dump(2 * pickle.load(sys.stdin.buffer), sys.stdout.buffer)"


@pytest.fixture
def executor():
    return SimpleNamespace(slots=2, budget_bytes=RESERVED_BYTES + BYTES + 100)


@pytest.fixture
def beside():
    """Makes processes that run a text, and ends them."""
    made = []

    def make(text):
        process = SideProcess("a.module", BYTES)
        process.command = [sys.executable, "-c", text]
        made.append(process)
        return process

    yield make
    for process in made:
        process.stop()


def test_it_answers(beside, executor):
    side = beside(DOUBLES)
    side.start(executor)
    side.ask("ab" * 100_000)  # more than a pipe holds
    assert side.answer() == "abab" * 100_000
    assert side.answer() is None


def test_it_ends_with_the_run(beside, executor):
    side = beside("import sys; sys.stdin.read()")
    side.start(executor)
    process = side.process
    assert process.poll() is None
    side.stop()
    assert process.poll() is not None


def test_it_is_not_begun_in_little_memory(beside, executor):
    executor.budget_bytes -= 101
    side = beside(DOUBLES)
    side.start(executor)
    side.ask(1)
    assert side.process is None
    assert side.answer() is None


@pytest.mark.parametrize(("task_bytes", "stays"), [(50, True), (51, False)])
def test_a_step_gets_the_memory_it_needs(beside, executor, task_bytes, stays):
    side = beside(DOUBLES)
    side.start(executor)
    tasks = [Task(key=str(i), digest="", function=dict) for i in range(3)]
    side.make_room(Step(name="ingest", tasks=tasks, task_bytes=task_bytes), executor)
    assert (side.process is not None) == stays


def test_a_run_goes_on_when_it_cannot_be_started(executor, caplog):
    side = SideProcess("a.module", BYTES)
    side.command = ["/nowhere/python", "-m", "a.module"]
    caplog.set_level("INFO")
    side.start(executor)
    side.ask(1)
    assert side.answer() is None
    assert "a.module does not run beside the tasks" in caplog.text


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "import os, sys; sys.stdin.read(1); os._exit(3)"])
def test_an_end_without_an_answer_is_logged(beside, executor, caplog, text):
    side = beside(text)
    caplog.set_level("INFO")
    side.start(executor)
    if "read" not in text:
        side.process.wait(timeout=60)
    side.ask("x" * 1_000_000)
    assert side.answer() is None
    assert "code 3" in caplog.text


def test_one_that_failed_is_logged_when_it_is_stopped(beside, executor, caplog):
    side = beside("raise SystemExit(3)")
    caplog.set_level("INFO")
    side.start(executor)
    side.process.wait(timeout=60)
    side.stop()
    assert "code 3" in caplog.text


def test_it_runs_the_program_that_asks_and_not_a_clone_in_whose_folder_that_was_called(executor, tmp_path, monkeypatch):
    other = tmp_path / "lerar_dask"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('another program text')")
    monkeypatch.chdir(tmp_path)
    side = SideProcess("lerar_dask.products.plots", BYTES)
    side.start(executor)
    side.ask(([], 6.0))
    assert side.answer() == ("", [], "")
