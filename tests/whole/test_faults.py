"""A part of the table of faults (tests/whole/faults.py); `scripts/faults` runs the whole."""

from __future__ import annotations

import shutil

import pytest

from lerar_dask.simulate import simulate
from tests.whole.faults import strike, undisturbed

CASES = [
    ("command killed", "flats"),
    ("command killed", "normalize"),
    ("command killed", "products"),
    ("command terminated", "trails"),
    ("worker killed", "ingest"),
    ("scheduler killed", "register"),
    ("disk full, store", "integrate"),
    ("disk full, OUT", "products"),
    ("shard cut short", "scene"),
    ("shard seen late", "integrate"),
    ("frames deleted", "register"),
]


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    return simulate(
        tmp_path_factory.mktemp("faults") / "night", n=12, shape=(600, 840), seed=5, n_darks=3, n_flats=3, n_bias=3
    )


@pytest.fixture(scope="module")
def bits(night, tmp_path_factory):
    return undisturbed(night, tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(("kind", "stage"), CASES)
def test_the_same_bits_after_a_fault(night, bits, tmp_path, kind, stage):
    copy = tmp_path / "night"
    shutil.copytree(night, copy)
    try:
        outcome = strike(kind, stage, copy, tmp_path, bits)
    except PermissionError as error:
        pytest.skip(str(error))
    assert outcome.same_bits, outcome.said
