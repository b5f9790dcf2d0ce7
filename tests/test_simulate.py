"""Simulated nights: the same seed gives the same bytes, and the frames hold what the truth says."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lerar_dask.errors import UsageError
from lerar_dask.frames.reader import read_pixels
from lerar_dask.frames.scan import scan
from lerar_dask.simulate import KINDS, Truth, simulate

SMALL = dict(n=2, shape=(64, 80), n_darks=1, n_flats=1, n_bias=1)


def digests(folder) -> dict[str, str]:
    files = (p for p in folder.rglob("*.fit*"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes(tmp_path):
    a, b, c = (simulate(tmp_path / name, seed=seed, **SMALL) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert len(digests(a)) == 5
    assert digests(a) == digests(b)
    assert digests(a) != digests(c)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(tmp_path, kind):
    folder = simulate(tmp_path / kind, kind=kind, cfa="RGGB", **SMALL)
    frames = scan([folder]).frames
    assert not any(f.problem for f in frames)
    assert sorted(f.header.kind for f in frames) == ["bias", "dark", "flat", "light", "light"]
    assert {f.header.cfa for f in frames if f.header.kind == "light"} == {"RGGB"}
    assert all(read_pixels(f).data.shape == (64, 80) for f in frames)
    assert Truth.load(folder).facts["kind"] == kind


@pytest.mark.parametrize("wrong", [dict(kind="rainy"), dict(n=0), dict(shape=(10, 10))])
def test_what_makes_no_night(tmp_path, wrong):
    with pytest.raises(UsageError):
        simulate(tmp_path / "x", **{**SMALL, **wrong})


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="holds something"):
        simulate(tmp_path, **SMALL)


def test_sky_of_the_truth_is_in_the_lights(night, truth):
    lights = [f for f in scan([night]).frames if f.header.kind == "light"]
    ys, xs = np.mgrid[0 : truth.shape[0], 0 : truth.shape[1]].astype(float)
    for k, frame in enumerate(lights[:2]):
        level = np.median(read_pixels(frame).data) - 500.0
        assert level == pytest.approx(np.median(truth.sky(k, ys, xs)), rel=0.25)
