"""The command: every error one line, the right exit codes, a quick --help, and a quick and orderly end when stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lerar_dask.cli.app import run
from lerar_dask.errors import FrameError, LerarError, MemoryBudgetError

HEAVY = {"numpy", "zarr", "dask", "distributed", "numba", "astropy", "scipy", "bokeh", "PIL"}


@pytest.fixture
def pipeline(monkeypatch, tmp_path):
    """Stands in for the stages: calls what the test puts into `pipeline["stack"]`."""
    import lerar_dask.pipeline

    made = {}
    monkeypatch.setattr(lerar_dask.pipeline, "stack", lambda *a, **k: made["stack"](*a, **k), raising=False)
    (tmp_path / "night").mkdir()
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize(
    "line", ["--help", "stack --help", "link --help", "simulate --help", "info --help", "--version"]
)
def test_help_imports_nothing_heavy(line):
    code = f"import sys; from lerar_dask.cli.app import run; run({line.split()}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    assert not HEAVY & {name.split(".")[0] for name in done.stderr.split()}


def test_help_shows_the_settings_own_words(capsys):
    assert run(["stack", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "tests each sample against its measured noise" in text
    assert "--tile-px" in text
    assert text.index("Register") < text.index("Normalize") < text.index("Integrate")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["stak"], 2, 'Did you mean "stack"'),
        (["stack", "night", "-o", "out", "--rejct", "auto"], 2, "Did you mean --reject"),
        (["stack", "night", "-o", "out", "--reject", "kappa"], 2, '"winsorized"'),
        (["stack", "night", "-o", "out", "--tile-px", "2"], 2, "between 32 and"),
        (["stack", "night", "-o", "out", "--threads", "many"], 2, "many"),
        (["stack", "night"], 2, "where should the results go"),
        (["stack", "-o", "out"], 2, "which frames"),
        (["stack", "nowhere", "-o", "out"], 2, "nowhere: no such folder"),
        (["stack", "night", "-o", "out", "--config", "none.toml"], 2, "none.toml: cannot be read"),
        (["link", "nowhere"], 2, "no such folder"),
        (["info", "nowhere"], 2, "no such folder"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(pipeline, capsys, words, code, says):
    pipeline["stack"] = lambda *a, **k: pytest.fail("the run was begun")
    assert run(words) == code
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("lerar: ")
    assert says in said[0]
    assert all(line.startswith("hint: ") for line in said[1:])


@pytest.mark.parametrize(
    ("error", "code"),
    [(LerarError("no lights", "look again"), 1), (MemoryBudgetError("needs 2 GiB"), 1), (FrameError("empty\nfile"), 1)],
)
def test_errors_for_people_are_one_line_with_their_code(pipeline, capsys, error, code):
    def stack(*_, **__):
        raise error

    pipeline["stack"] = stack
    assert run(["stack", "night", "-o", "out"]) == code
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "lerar: " + " ".join(error.message.split())
    assert said[1:] == ([f"hint: {error.hint}"] if error.hint else [])
    assert not os.path.exists("out")


def test_errors_are_told_to_programs_too(pipeline, capsys):
    assert run(["stack", "night", "-o", "out", "--json", "--rejct", "x"]) == 2
    event = json.loads(capsys.readouterr().out)
    assert (event["event"], event["exit_code"]) == ("error", 2)
    assert "Did you mean --reject" in event["message"]


def test_a_fault_of_ours_is_one_line_and_the_traceback_is_in_the_log(pipeline, capsys, tmp_path):
    from lerar_dask.runtime.events import StepStarted

    def stack(nights, out, settings, *, bus, dry_run):
        out.mkdir()
        bus.emit(StepStarted(step="ingest", n_tasks=1, pixels=0))
        raise ZeroDivisionError("of\nthe heart")

    pipeline["stack"] = stack
    assert run(["stack", "night", "-o", "out"]) == 1
    said = capsys.readouterr().err
    assert "fault of lerar: ZeroDivisionError: of the heart; details in out" in said
    assert "Traceback" not in said
    log = (tmp_path / "out" / "lerar.log").read_text()
    assert "Traceback" in log
    assert "ingest: 1 tasks" in log


def test_a_fault_before_there_is_a_folder_is_kept_elsewhere(pipeline, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def stack(*_, **__):
        raise RuntimeError("early")

    pipeline["stack"] = stack
    assert run(["stack", "night", "-o", "out"]) == 1
    path = capsys.readouterr().err.split("details in ")[1].strip()
    assert "RuntimeError: early" in Path(path).read_text()
    assert not (tmp_path / "out").exists()


STOPPED = """
import hashlib, sys, time, types
from lerar_dask.cli import app

def stack(*args, **kwargs):
    print("ready", flush=True)
    try:
        {work}
    finally:
        print("closed", flush=True)

sys.modules["lerar_dask.pipeline"] = types.SimpleNamespace(stack=stack)
sys.argv = ["lerar", "stack", ".", "-o", "out"]
app.main()
"""
WAITING = "time.sleep(60)"
COMPUTING = "hashlib.pbkdf2_hmac('sha256', b'', b'', 400_000_000)"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("work", [WAITING, COMPUTING], ids=["waiting", "computing"])
def test_a_stopped_run_leaves_within_two_seconds_and_says_how_to_go_on(tmp_path, number, code, work):
    command = [sys.executable, "-c", STOPPED.format(work=work)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        start = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        seconds = time.monotonic() - start
    assert process.returncode == code
    assert err.strip() == "lerar: stopped; the same command goes on from here"
    assert ("closed" in out) == (work == WAITING)
    assert seconds < 2.5  # 2 s promised; the rest is for a busy machine


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m lerar_dask stack --help | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stdout.startswith("Usage: lerar stack NIGHT... -o OUT")
    assert done.stderr == ""
    code = "import os, sys; from lerar_dask.cli.app import main; sys.argv[1:] = ['--help']; main()"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode in {1, 141}  # rich leaves with 1 when it is rich that meets the closed pipe


@pytest.mark.parametrize(("words", "hint"), [(["stak"], "`lerar --help`"), (["stack", "--x"], "`lerar stack --help`")])
def test_the_hint_leads_to_the_page_that_helps(words, hint, capsys):
    assert run(words) == 2
    assert hint in capsys.readouterr().err
