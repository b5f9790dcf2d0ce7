"""`lerar clean` frees what no run needs, all of it made again with the same bits; `lerar check` says what is damaged."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lerar_dask.pipeline import stack
from lerar_dask.pipeline.clean import clean
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate
from tests.whole.test_schedulers import fingerprint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    simulate(folder / "night", n=6, shape=(300, 420), seed=9, n_darks=3, n_flats=3, n_bias=3)
    for reject in ("winsorized", "auto"):
        stack([folder / "night"], folder / "out", Settings.of(report=False, reject=reject), bus=Bus())
    return folder


def again(folder, **settings):
    return stack([folder / "night"], folder / "out", Settings.of(report=False, **settings), bus=Bus())


def test_masters_of_earlier_settings_go_and_the_run_is_as_it_was(run):
    before = fingerprint(run / "out")
    told = clean(run / "out", dry_run=True)
    assert [item.kind for item in told if item.kind == "master"] == ["master"]
    assert sum(item.n_bytes for item in clean(run / "out")) == sum(item.n_bytes for item in told) > 100_000
    assert clean(run / "out") == []
    assert again(run).did_nothing
    assert fingerprint(run / "out") == before
    assert again(run, reject="winsorized").exit_code == 0
    assert again(run).exit_code == 0
    assert fingerprint(run / "out") == before


def test_raw_pixels_go_where_their_files_are_there(run):
    before = fingerprint(run / "out")
    lights = sorted((run / "night" / "lights").glob("*.fits"))
    away = lights[0].rename(run / "away.fits")
    (spare,) = [item for item in clean(run / "out", raw=True) if item.kind == "raw"]
    assert len(spare.paths) == 5, "the sixth cannot be read again"
    assert [item.kind for item in clean(run / "out", raw=True)] == [], "what is freed is not freed again"
    away.rename(lights[0])
    summary = again(run)
    assert summary.exit_code == 0
    assert fingerprint(run / "out") == before


def test_check_tells_what_is_damaged_and_what_it_is_made_from(run):
    def called(*words):
        done = subprocess.run(
            [sys.executable, "-m", "lerar_dask", "check", run / "out", *words], capture_output=True, text=True
        )
        return done.returncode, done.stdout

    assert called("--deep") == (0, "no damage found in every file\n")
    shard = next((run / "out" / "store.zarr" / "raw").rglob("pixels/c/*/*/*"))
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    assert called()[0] == 0, "its index is whole"
    code, text = called("--deep")
    assert code == 1
    assert "read again from the sub's file" in text
    code, text = called("--deep", "--json")
    assert len(json.loads(text)["damaged"]) == 1
