"""Percentile rejection of a sky near zero rejects good samples: the user is told, and only then."""

from __future__ import annotations

import shutil

import pytest

from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus, Note
from lerar_dask.settings import Settings


@pytest.mark.parametrize(
    ("reject", "normalization", "told"),
    [("percentile", "local", True), ("percentile", "none", False), ("sigma", "local", False)],
)
def test_percentile_near_zero_is_warned_of(night, stacked, tmp_path, reject, normalization, told):
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    events = []
    settings = Settings.of(reject=reject, normalization=normalization, report=False, preview=False)
    assert stack([night], out, settings, bus=Bus([events.append])).exit_code == 0
    notes = [e.text for e in events if isinstance(e, Note) and e.level == "warning" and "percentile" in e.text]
    assert len(notes) == told
    assert all("Sim_L" in note and "0 times its noise" in note for note in notes)
