"""Fixtures that several rooms use: a small simulated night, and what was stacked of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.simulate import Truth, simulate

hypothesis_settings.register_profile("lerar", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("lerar")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real frames, where they are to be had."""
    if not SHARED.is_dir():
        pytest.skip("the folder of real frames is not here")
    return SHARED


@pytest.fixture(scope="session")
def night(tmp_path_factory) -> Path:
    """Eight mono lights of 320 x 400 with calibration frames; a flip in the middle."""
    folder = tmp_path_factory.mktemp("night") / "A night, ünder the stars"
    return simulate(folder, n=8, shape=(320, 400), seed=4, n_darks=5, n_flats=5, n_bias=5)


@pytest.fixture(scope="session")
def truth(night) -> Truth:
    return Truth.load(night)


@pytest.fixture(scope="session")
def stacked(night, tmp_path_factory) -> Path:
    """OUT of the night, with all defaults."""
    out = tmp_path_factory.mktemp("out") / "stacked"
    summary = run(night, out)
    assert summary.exit_code == 0
    return out


def run(night, out, **settings):
    """Stack with all events going nowhere."""
    nights = night if isinstance(night, list) else [night]
    return stack(nights, out, Settings.of(**settings), bus=Bus())
