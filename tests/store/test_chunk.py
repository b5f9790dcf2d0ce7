"""Chunks of arrays without shards: packed or not, zarr-python reads them, and damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from lerar_dask.errors import StoreError
from lerar_dask.store.chunk import blosc_of, checked_chunk, chunk_parts
from lerar_dask.store.create import array_node, write_node
from tests.store.places import local

ARRAYS = {
    "calibration/k/image": ((40, 70), "float32"),
    "measures/g/k/blocks": ((1, 2, 30, 50, 3), "float32"),
    "measures/g/k/stars": ((1, 200, 10), "float64"),
    "registration/k/rms_px": ((17,), "float64"),
    "calibration/k/defects": ((9,), "int32"),
}


@pytest.mark.parametrize("path", ARRAYS)
def test_zarr_reads_our_chunks(tmp_path, path):
    shape, dtype = ARRAYS[path]
    data = np.random.default_rng(1).normal(1000, 30, shape).astype(dtype)
    data.flat[3] = 0
    node = array_node(path, shape=shape, dtype=data.dtype, chunks=shape)
    write_node(local(tmp_path / "a"), node)
    packed = {c["name"]: c for c in node["codecs"]}.get("blosc")
    word = "" if packed is None else "rows" if packed["configuration"]["shuffle"] == "shuffle" else "values"
    file = tmp_path.joinpath("a", "c", *["0"] * len(shape))
    local(file).put(chunk_parts(data, packed=word))
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "a"), mode="r")[...], data)
    np.testing.assert_array_equal(checked_chunk(local(file), shape, data.dtype, packed=bool(word)), data)


@pytest.mark.parametrize("path", ["calibration/k/image", "measures/g/k/blocks", "measures/g/k/stars"])
def test_we_read_what_zarr_packs(tmp_path, path):
    shape, dtype = ARRAYS[path]
    data = np.random.default_rng(2).normal(1000, 30, shape).astype(dtype)
    write_node(local(tmp_path / "a"), array_node(path, shape=shape, dtype=data.dtype, chunks=shape))
    zarr.open_array(str(tmp_path / "a"), mode="r+")[...] = data
    file = tmp_path.joinpath("a", "c", *["0"] * len(shape))
    np.testing.assert_array_equal(checked_chunk(local(file), shape, data.dtype, packed=True), data)


def test_rows_that_are_too_long_are_shuffled_by_value():
    assert blosc_of("rows", np.dtype("f4"), 3)["typesize"] == 12
    assert blosc_of("rows", np.dtype("f4"), 300)["typesize"] == 4
    assert blosc_of("", np.dtype("f4"), 3) is None


@pytest.mark.parametrize("packed", ["", "values", "rows"])
def test_damage_is_noticed(tmp_path, packed):
    data = np.arange(1200, dtype="<f4").reshape(-1, 4)
    path = tmp_path / "c"
    local(path).put(chunk_parts(data, packed=packed))
    np.testing.assert_array_equal(checked_chunk(local(path), (-1, 4), data.dtype, packed=bool(packed)), data)
    with pytest.raises(StoreError, match="size"):
        checked_chunk(local(path), (500, 5), data.dtype, packed=bool(packed))
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(StoreError, match="damaged"):
        checked_chunk(local(path), (-1, 4), data.dtype, packed=bool(packed))
    path.write_bytes(b"abc")
    with pytest.raises(StoreError, match="damaged"):
        checked_chunk(local(path), (-1, 4), data.dtype, packed=bool(packed))
    with pytest.raises(StoreError, match="is missing"):
        checked_chunk(local(tmp_path / "none"), (-1, 4), data.dtype, packed=bool(packed))
