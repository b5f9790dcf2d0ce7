"""Progress: lines without a terminal, bars on one, JSON for programs; tables that are data."""

import json
import sys

import pytest

from lerar_dask.cli import display
from lerar_dask.cli.display import Display, print_table, progress, rate
from lerar_dask.cli.log import log_event, log_to
from lerar_dask.runtime.events import Bus, Note, StepFinished, StepStarted, TaskFinished
from lerar_dask.tasks import Record


def play(bus, n=4, pixels=1_000_000):
    bus.emit(StepStarted(step="ingest", n_tasks=n, pixels=n * pixels))
    for i in range(n):
        record = Record(
            key=f"ingest/{i}", digest="d", state="aside" if i == 1 else "done", reason="clouds" if i == 1 else ""
        )
        bus.emit(TaskFinished(step="ingest", record=record, pixels=pixels))
    bus.emit(Note(text="reference: sub 3"))
    bus.emit(StepFinished(step="ingest", seconds=1.0, n_done=n - 1, n_aside=1, n_failed=0))


def bus_with(consumer):
    bus = Bus()
    bus.subscribe(consumer)
    return bus


def test_lines_say_count_rate_and_troubles(capsys):
    with progress(Display()) as show:
        play(bus_with(show))
    out, err = capsys.readouterr()
    assert out == ""
    note, line = err.splitlines()
    assert note == "lerar: reference: sub 3"
    assert line.startswith("ingest: 4 done in 0.0 s, ")
    assert line.endswith("px/s, 1 set aside")


def test_a_long_step_says_how_long_it_will_take(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 6))
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    with progress(Display()) as show:
        play(bus_with(show), n=40)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 5
    assert "left" in lines[0]
    assert "of 40" in lines[0]


def test_a_note_is_said_once_also_when_all_of_the_log_is_shown(capsys, tmp_path):
    shown = Display(verbose=True)
    log_to(tmp_path / "lerar.log")
    shown.log_to_screen()
    with progress(shown) as show:
        bus = bus_with(show)
        bus.subscribe(log_event)
        play(bus)
    assert capsys.readouterr().err.count("reference: sub 3") == 1
    assert (tmp_path / "lerar.log").read_text().count("reference: sub 3") == 1


def test_quiet_is_quiet(capsys):
    with progress(Display(quiet=True)) as show:
        play(bus_with(show))
    assert capsys.readouterr() == ("", "")


def test_json_is_one_object_per_line_on_stdout(capsys):
    with progress(Display(json=True)) as show:
        play(bus_with(show))
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["event"] for e in events] == ["StepStarted", *["TaskFinished"] * 4, "Note", "StepFinished"]
    assert events[2]["record"]["reason"] == "clouds"
    assert err == ""


@pytest.mark.parametrize("pixels", [1_000_000, 0])
def test_bars_are_drawn_on_a_terminal(capsys, monkeypatch, pixels):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(Display()) as show:
        play(bus_with(show), pixels=pixels)
        play(bus_with(show), n=0, pixels=pixels)
    text = capsys.readouterr().err
    assert "4 of 4" in text
    assert "reference: sub 3" in text


def test_a_run_that_breaks_gives_the_cursor_back(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")

    def break_off():
        with progress(Display()) as show:
            show(StepStarted(step="ingest", n_tasks=3, pixels=3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    text = capsys.readouterr().err
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0


def test_rates():
    assert rate(0, 1, pixels=True) == ""
    assert rate(82e6, 2, pixels=True) == "41 Mpx/s"
    assert rate(3, 2, pixels=False) == "1.5/s"


def test_tables_keep_foreign_text_as_it_is_and_uncut(capsys):
    rows = [("[bold]M 31[/bold]", 12, 1.23456789, None), ("x" * 300, 1, -0.5, "reason")]
    print_table(("name", "used", "scale", "reason"), rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["[bold]M", "31[/bold]", "12", "1.235"]
    assert "x" * 300 in lines[2]
    print_table(("name", "used"), [])
    assert "name" in capsys.readouterr().out
