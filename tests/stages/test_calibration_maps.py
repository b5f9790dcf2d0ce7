"""Calibration maps are read once, kept by who makes them, and so many sets stay."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.errors import DamagedError
from lerar_dask.stages.calibration_maps import calibration_maps, forget_maps, keep_map
from lerar_dask.store.access import Store, open_store

SHAPE = (20, 30)


@pytest.fixture
def store(tmp_path):
    forget_maps()
    open_store.cache_clear()
    store = Store.create(str(tmp_path / "store.zarr"))
    for number, key in enumerate(("a", "b", "c")):
        store.write_array(f"calibration/{key}/gain", np.full(SHAPE, 1 + number, np.float32), dims=("y", "x"))
        store.write_array(f"calibration/{key}/defects", np.arange(number, dtype=np.int32), dims=("defect",))
    yield store
    forget_maps()


def test_a_set_has_what_the_store_has(store):
    maps = calibration_maps(store.url, "b")
    assert maps.pedestal is None
    np.testing.assert_array_equal(maps.gain, np.full(SHAPE, 2))
    assert maps.defects.tolist() == [0]


def test_no_set_takes_nothing_off(store):
    pedestal, gain, defects = calibration_maps(store.url, None)
    assert pedestal is gain is None
    assert len(defects) == 0


def test_sets_that_were_asked_for_last_stay(store):
    first = {key: calibration_maps(store.url, key, sets=2).gain for key in ("a", "b", "a", "c")}
    assert calibration_maps(store.url, "a", sets=2).gain is first["a"]
    assert calibration_maps(store.url, "c", sets=2).gain is first["c"]
    assert calibration_maps(store.url, "b", sets=2).gain is not first["b"]


def test_what_was_just_made_is_not_read(store):
    made = np.full(SHAPE, 7, np.float32)
    keep_map(store.url, "a", "gain", made)
    maps = calibration_maps(store.url, "a")
    assert maps.gain is made
    assert maps.pedestal is None


def test_a_damaged_set_is_read_again(store):
    place = store.place("calibration/a/gain/c/0/0")
    whole = bytes(place.get())
    place.put(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedError):
        calibration_maps(store.url, "a")
    place.put(whole)
    np.testing.assert_array_equal(calibration_maps(store.url, "a").gain, np.ones(SHAPE))
