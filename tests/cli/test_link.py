"""`lerar link`: per group of lights the choice, its reason, and near misses."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lerar_dask.cli.app import run

ROWS = [
    {
        "group": "M31_L",
        "n_lights": 60,
        "lines": ["dark: dark_60s (15 frames): same exposure", "flat: none"],
        "near_misses": ["dark -5 C for lights at -10 C"],
        "notes": ["without flat"],
    },
    {"group": "M31_R", "n_lights": 1, "lines": ["dark: none"], "near_misses": [], "notes": []},
]


@pytest.fixture
def night(monkeypatch, tmp_path):
    import lerar_dask.pipeline

    frame = SimpleNamespace(path=Path("/n/x.fits"))
    links = SimpleNamespace(explain=lambda: ROWS, aside=[(frame, "empty file")], notes=("1 frame of unknown kind",))
    monkeypatch.setattr(lerar_dask.pipeline, "link", lambda nights, settings: links, raising=False)
    return str(tmp_path)


def test_link_says_what_each_group_gets_and_why(night, capsys):
    assert run(["link", night]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "note: 1 frame of unknown kind" in lines
    assert lines[:5] == [
        "M31_L, 60 lights",
        "  dark: dark_60s (15 frames): same exposure",
        "  flat: none",
        "  near miss: dark -5 C for lights at -10 C",
        "  note: without flat",
    ]
    assert "M31_R, 1 light" in lines
    assert lines[-1] == "  x.fits: empty file"


def test_link_as_json(night, capsys):
    assert run(["link", night, "--json"]) == 0
    event = json.loads(capsys.readouterr().out)
    assert event["links"] == ROWS
    assert event["aside"] == [["/n/x.fits", "empty file"]]
