"""What `lerar stack` says at the end: a table, reasons, and where the picture is."""

import json
from pathlib import Path

import pytest

from lerar_dask.cli.app import run
from lerar_dask.cli.stack import tell_of_compiling
from lerar_dask.kernels.compiled import precompile
from lerar_dask.runtime.events import Bus, Note, RunStarted
from lerar_dask.summary import DryRun, GroupPlan, GroupSummary, Summary

OUT = Path("out")
SUMMARY = Summary(
    out=OUT,
    groups=[
        GroupSummary(
            name="M31_L", n_used=57, n_aside=3, exposure_s=3420.0, master=OUT / "M31_L.fits", preview=OUT / "M31_L.png"
        ),
        GroupSummary(name="M31_R", n_used=0, n_aside=2, exposure_s=0.0, master=None, preview=None, problem="no stars"),
    ],
    n_lights=62,
    n_used=57,
    n_aside=5,
    n_failed=0,
    aside=[(f"/night/{i}.fits", "clouds") for i in range(4)] + [("/night/x.fits", "not a FITS file")],
    did_nothing=False,
    seconds=83.0,
    peak_bytes=3 << 29,
    read_bytes=1 << 30,
    written_bytes=1 << 20,
    report=OUT / "report.html",
    notes=["no bias was found"],
)
PLAN = DryRun(
    out=OUT,
    groups=[
        GroupPlan(
            name="M31_L",
            n_lights=60,
            n_new=60,
            shape=(2822, 4144),
            exposure_s=3600.0,
            links=["dark: same"],
            strip_rows=64,
        )
    ],
    aside=[("/night/x.fits", "not a FITS file")],
    masters=["dark 60 s: 15 frames"],
    tasks={"ingest": 60, "integrate": 99},
    read_bytes=1 << 30,
    written_bytes=1 << 31,
    memory_bytes=1 << 29,
    budget_bytes=3 << 29,
    seconds=95.0,
    threads=2,
)


@pytest.fixture
def stack(monkeypatch, tmp_path):
    import lerar_dask.pipeline

    monkeypatch.chdir(tmp_path)
    (tmp_path / "night").mkdir()

    def returns(result):
        monkeypatch.setattr(lerar_dask.pipeline, "stack", lambda *a, **k: result, raising=False)

    return returns


def test_summary_says_what_became_of_everything(stack, capsys):
    stack(SUMMARY)
    assert run(["stack", "night", "-o", "out"]) == SUMMARY.exit_code == 1
    out = capsys.readouterr().out
    assert "57 min 00 s" in out
    assert "0.fits, 1.fits, 2.fits and 1 more: clouds" in out
    assert "note: no bias was found" in out
    assert "1 min 23 s, 1.5 GiB memory, 1.0 GiB read, 1.0 MiB written" in out
    assert "no stars" in out
    assert out.splitlines()[-1] == "picture  out/M31_L.png"


def test_plan_says_what_would_be_done(stack, capsys):
    stack(PLAN)
    assert run(["stack", "night", "-o", "out", "--dry-run"]) == 0
    out = capsys.readouterr().out
    for text in (
        "4144 x 2822",
        "dark: same",
        "2.0 GiB",
        "512 MiB of 1.5 GiB",
        "60 ingest, 99 integrate",
        "about 1 min 35 s",
    ):
        assert text in out
    assert not Path("out").exists()


@pytest.mark.parametrize(("result", "words", "kind"), [(SUMMARY, [], "summary"), (PLAN, ["--dry-run"], "dry_run")])
def test_json_gives_the_same_to_programs(stack, capsys, result, words, kind):
    stack(result)
    run(["stack", "night", "-o", "out", "--json", *words])
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert event["event"] == kind
    assert event["result"]["groups"][0]["name"] == "M31_L"


def test_quiet_says_nothing(stack, capsys):
    stack(SUMMARY)
    run(["stack", "night", "-o", "out", "-q"])
    assert capsys.readouterr() == ("", "")


def test_the_first_run_says_that_kernels_are_compiled(monkeypatch):
    notes = []
    bus = Bus()
    bus.subscribe(lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    tell_of_compiling(bus)
    started = RunStarted(out="out", threads=1, budget_bytes=1)
    monkeypatch.setattr(precompile, "is_compiled", lambda: False)
    bus.emit(started)
    assert len(notes) == 1
    assert "compiles" in notes[0]
    monkeypatch.setattr(precompile, "is_compiled", lambda: True)
    bus.emit(started)
    assert len(notes) == 1
