"""A small night in a folder with a space, and the bits that one run makes of it, for all that must make the same."""

from __future__ import annotations

import pytest

from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate
from tests.whole.test_schedulers import fingerprint


@pytest.fixture(scope="session")
def small_night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "a night"
    simulate(folder, n=12, shape=(300, 420), seed=5, n_darks=3, n_flats=3, n_bias=3)
    return folder


@pytest.fixture(scope="session")
def small_bits(small_night, tmp_path_factory):
    out = tmp_path_factory.mktemp("small-stacked") / "out"
    stack([small_night], out, Settings.of(report=False), bus=Bus())
    return fingerprint(out)
