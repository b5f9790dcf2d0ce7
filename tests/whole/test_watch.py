"""`lerar stack --watch`: frames that come, are half written, and a share that goes away."""

from __future__ import annotations

import shutil

import pytest

from lerar_dask.pipeline.watch import watch
from lerar_dask.runtime.events import Bus, Note
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate

SETTINGS = Settings.of(report=False, preview=False)


class Enough(Exception):
    pass


@pytest.fixture
def night(tmp_path):
    simulate(tmp_path / "all", n=8, shape=(300, 420), seed=9, n_darks=3, n_flats=3, n_bias=3)
    (tmp_path / "night").mkdir()
    return tmp_path


def until_enough(summaries):
    """What comes until the script is at its end."""
    found = []
    try:
        for summary in summaries:
            found.append(summary)
    except Enough:
        return found
    raise AssertionError("watching does not end by itself")


def script(*steps):
    """What happens between looks, one step each; then it ends."""
    left = list(steps)

    def wait(_seconds):
        if not left:
            raise Enough
        left.pop(0)()

    return wait


def test_frames_are_stacked_as_they_come_and_half_written_ones_waited_for(night):
    lights = sorted((night / "all" / "lights").glob("*.fits"))
    here, half = night / "night", night / "night" / "half.fits"

    def bring(*files):
        for file in files:
            shutil.copy2(file, here / file.name)

    def calibration():
        for kind in ("darks", "flats", "bias"):
            shutil.copytree(night / "all" / kind, here / kind)

    def begin_half():
        half.write_bytes(lights[5].read_bytes()[:40_000])

    def go_on_half():
        half.write_bytes(lights[5].read_bytes()[:100_000])

    def end_half():
        half.write_bytes(lights[5].read_bytes())

    def away():
        here.rename(night / "away")

    def back():
        (night / "away").rename(here)

    def nothing():
        pass

    notes = []
    steps = script(
        calibration, nothing, lambda: bring(*lights[:4]), nothing,  # no lights; four
        begin_half, go_on_half, end_half, nothing,  # a fifth when it is whole
        away, nothing, back, nothing, lambda: bring(*lights[6:]), nothing,  # two more, after the share has come back
    )  # fmt: skip
    bus = Bus([lambda e: notes.append(e.text) if isinstance(e, Note) else None])
    summaries = until_enough(watch([here], night / "out", SETTINGS, bus=bus, every_s=0.0, wait=steps))
    assert [(summary.n_used, summary.n_aside) for summary in summaries] == [(4, 0), (5, 0), (7, 0)]
    assert "no lights yet" in notes
    assert sum("gone away" in note for note in notes) == 1


def test_few_frames_are_no_reason_to_end(night):
    lights = sorted((night / "all" / "lights").glob("*.fits"))
    here = night / "night"

    def bring(n):
        for file in lights[:n]:
            shutil.copy2(file, here / file.name)

    steps = script(lambda: bring(1), lambda: None, lambda: bring(5), lambda: None)
    summaries = until_enough(watch([here], night / "out", SETTINGS, bus=Bus(), every_s=0.0, wait=steps))
    assert summaries[-1].n_used == 5
