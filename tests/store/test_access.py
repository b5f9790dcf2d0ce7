"""Opening a store, whole arrays, masters, sweeping."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr

from lerar_dask.constants import PLANES
from lerar_dask.errors import DamagedError, StoreError
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.store.access import Store, open_store
from lerar_dask.store.document import read_node, write_node


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store.zarr")


def test_opened_again_and_pickled(store):
    store.write_json("a/b.json", {"x": 1})
    assert Store.create(store.url).read_json("a/b.json") == {"x": 1}
    assert pickle.loads(pickle.dumps(store)).url == store.url
    assert open_store(store.url) is open_store(store.url)


def test_foreign_folders_are_refused(tmp_path):
    with pytest.raises(StoreError, match="no lerar store"):
        Store.open(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(StoreError, match="something else"):
        Store.create(tmp_path)
    with pytest.raises(StoreError, match="is a file"):
        Store.create(tmp_path / "notes.txt")
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    with pytest.raises(StoreError, match="something else"):
        Store.create(tmp_path / "other.zarr")


@pytest.mark.parametrize(("version", "words"), [(2, "newer"), (0, "does not exist"), ("x", "something else")])
def test_other_formats_are_refused(store, version, words):
    node = read_node(store.root)
    node["attributes"]["format_version"] = version
    write_node(store.root, node)
    with pytest.raises(StoreError) as caught:
        Store.open(store.url)
    assert words in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 3, 4), (0, 3)])
def test_array_comes_back_and_zarr_agrees(store, dtype, shape):
    data = (np.arange(np.prod(shape)).reshape(shape) % 3).astype(dtype)
    store.write_array("some/thing", data, dims=[f"d{i}" for i in range(len(shape))], unit="adu", attributes={"k": 1})
    back = store.read_array("some/thing")
    assert back.dtype == data.dtype
    np.testing.assert_array_equal(back, data)
    np.testing.assert_array_equal(zarr.open_array(str(Path(store.url) / "some/thing"), mode="r")[...], data)
    assert store.attributes("some/thing") == {"unit": "adu", "meaning": "", "k": 1}


def test_the_layout_names_the_dimensions(store):
    store.write_array("calibration/k/gain", np.ones((2, 3), "f4"), dims=("a", "b"))
    array = store.open_array("calibration/k/gain")
    assert array.metadata.dimension_names == ("y", "x")
    assert array.attrs["unit"] == "1"


def test_written_again_and_deleted(store):
    for value in (1, 2):
        store.write_array("a/b", np.full(3, value), dims=("n",))
    assert store.read_array("a/b").tolist() == [2, 2, 2]
    store.delete("a")
    store.delete("a")
    assert not store.has("a/b")
    with pytest.raises(StoreError, match="is missing"):
        store.read_array("a/b")
    with pytest.raises(StoreError, match="has no a/b"):
        store.open_array("a/b")


@pytest.mark.parametrize("file", ["zarr.json", "c/0"])
def test_damage_is_noticed(store, file):
    store.write_array("a", np.arange(3.0), dims=("n",))
    path = Path(store.url) / "a" / file
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError, match="damaged"):
        store.read_array("a")


def test_geometry_grows(store):
    store.add_geometry("g", (4, 5), "uint16", "none")
    store.reserve("g", 3)
    store.add_geometry("g", (4, 5), "uint16", "none")
    store.reserve("g", 2)
    assert store.geometries() == ["g"]
    assert store.open_array("raw/g/pixels").shape == (3, 4, 5)
    with pytest.raises(ValueError, match="does not fit"):
        store.write_raw("g", 0, np.zeros((5, 4), "uint16"))
    with pytest.raises(ValueError, match="does not fit"):
        store.write_raw("g", 0, np.zeros((4, 5), "int16"))
    record = {
        **{"id": "0", "path": "a.fits", "scale": 1.0, "zero": 0.0, "blank": None, "saturation_adu": 65000.0},
        **{"largest": 9, "piled": False, "cfa": None, "row_order": None, "header": {}, "cards": ["A"]},
    }
    store.write_frame("g", 2, record)
    assert store.frame("g", 2) == record
    store.write_frame("g", 2, {**record, "scale": "1"})
    with pytest.raises(DamagedError, match="something else"):
        store.frame("g", 2)
    with pytest.raises(StoreError):
        store.frame("g", 1)


def test_master_by_chunks(store):
    shape = (CHUNK_SHAPE[0] + 20, CHUNK_SHAPE[1] + 30)
    store.create_master("k", 3, shape)
    data = np.random.default_rng(0).normal(size=(3, len(PLANES), 20, 30)).astype("f4")
    store.write_chunk("k", 1, 1, data)
    assert store.has_chunk("k", 1, 1)
    assert not store.has_chunk("k", 0, 0)
    chunk = store.read_chunk("k", 1, 1)
    assert chunk.shape == (3, len(PLANES), *CHUNK_SHAPE)
    np.testing.assert_array_equal(chunk[:, :, :20, :30], data)
    assert np.isnan(chunk[:, :, 20:]).all()
    assert np.isnan(store.read_chunk("k", 0, 0)).all()
    seen = store.master("k")[...]
    assert seen.shape == (3, len(PLANES), *shape)
    np.testing.assert_array_equal(seen[:, :, CHUNK_SHAPE[0] :, CHUNK_SHAPE[1] :], data)


def test_sweep_leaves_only_what_is_whole(store):
    store.write_array("a/b", np.arange(3), dims=("n",))
    (Path(store.url) / "a" / "c.12.partial").mkdir()
    (Path(store.url) / "a" / "c.12.partial" / "d.partial").write_text("x")
    (Path(store.url) / "e.partial").write_text("x")
    assert store.sweep() == 2
    assert store.sweep() == 0
    assert store.read_array("a/b").tolist() == [0, 1, 2]


@pytest.mark.parametrize("path", ["normalization/k/block_scene", "picture/k/image"])
def test_arrays_of_several_chunks_are_read_as_zarr_reads_them(store, path):
    """Packed and plain; what was not written is filled, and what is cut off at the end is left out."""
    store.create_array(path, shape=(2, 11, 7), dtype="float32", chunks=(2, 4, 3), dims=("a", "b", "c"))
    rng = np.random.default_rng(1)
    for at in ((0, 0, 0), (0, 2, 2), (0, 1, 0)):
        store.write_part(path, at, rng.normal(size=(2, 4, 3)).astype(np.float32))
    read = store.read_array(path)
    assert read.shape == (2, 11, 7)
    assert np.isfinite(read).sum() == 2 * (4 * 3 + 4 * 3 + 3 * 1)
    np.testing.assert_array_equal(read, store.open_array(path)[...])


def test_an_array_without_numbers_is_read(store):
    store.write_array("stack/k/trails", np.zeros((0, 5)), dims=("trail", "trail_column"))
    assert store.read_array("stack/k/trails").shape == (0, 5)
