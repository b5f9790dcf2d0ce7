"""A store that an earlier program wrote is read for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from lerar_dask.store.access import Store
from lerar_dask.store.repair import damaged_parts

GOLDEN = Path(__file__).parents[2] / "stores" / "golden"
PIXELS = (np.arange(2000) * 37 % 65521).astype("uint16").reshape(40, 50)
GEOMETRY = "50x40_uint16_mono"


VERSIONS = sorted(p.name for p in GOLDEN.iterdir())


@pytest.fixture(params=VERSIONS)
def store(tmp_path, request) -> Store:
    shutil.copytree(GOLDEN / request.param, tmp_path / "store.zarr")
    return Store.open(tmp_path / "store.zarr")


def test_read(store):
    assert store.geometries() == [GEOMETRY]
    for slot in range(2):
        np.testing.assert_array_equal(store.raw(GEOMETRY).read(slot), PIXELS + slot)
        assert store.frame(GEOMETRY, slot)["cards"] == [f"OBJECT  = 'SUB {slot}'"]
    measures = store.measures(GEOMETRY, "key")
    assert (measures.has(0), measures.has(1)) == (False, True)
    np.testing.assert_array_equal(measures.read_stars(1), np.arange(30.0).reshape(3, 10))
    np.testing.assert_array_equal(measures.read_blocks(1).ravel(), np.arange(105.0))
    assert measures.summary(1)["fwhm_px"] == 2.5
    np.testing.assert_array_equal(store.read_array("calibration/key/gain"), 1 + PIXELS.astype("f4") / 65536)
    assert store.read_array("calibration/key/defects").tolist() == [3, 77]
    transforms = store.read_array("registration/key/transforms")
    np.testing.assert_array_equal(transforms[0], np.eye(3))
    assert np.isnan(transforms[1]).all()
    assert np.isnan(store.read_chunk("key", 0, 0)).all()
    assert store.ledger.load()["ingest/a.fits"]["state"] == "done"
    assert list(damaged_parts(store, pixels=True)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_zarr_reads_it(version):
    group = zarr.open_group(str(GOLDEN / version), mode="r", use_consolidated=False)
    assert group.attrs["format_version"] == 1
    np.testing.assert_array_equal(group[f"raw/{GEOMETRY}/pixels"][1], PIXELS + 1)


def test_small():
    assert sum(p.stat().st_size for p in GOLDEN.rglob("*") if p.is_file()) < 200_000
