"""Stores damaged at random, and those that once failed, heal to the very same pixels (`scripts/fuzz-stores` for more)."""

from __future__ import annotations

import pytest

from tests.store.fuzzing import fingerprints, judge, make_run

ONCE_FAILED = (
    18,
    50,
    1058,
    1059,
    1081,
    1086,
    1366,
    1372,
    1404,
    1457,
    1527,
    1629,
    2003,
    2063,
    2080,
    2378,
    2386,
    2638,
    3260,
    3486,
)
"""Numbers of inputs: folders in the place of files, and parts of somebody else without the entries they need."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    return fingerprints(made, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("number", [*range(24), *ONCE_FAILED])
def test_damaged_stores(made, whole, tmp_path, number):
    assert judge(made, tmp_path / "out", whole, 1, number)
