"""Shards against zarr-python both ways; damage is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.errors import StoreError
from lerar_dask.store.access import Store
from lerar_dask.store.shard import inner_chunk, shard_parts

SHAPE = (300, 517)
CODECS = ("none", "lz4")


def image(dtype="uint16") -> np.ndarray:
    return np.random.default_rng(2).integers(0, 200, SHAPE).astype(dtype)


def shard_file(store) -> Path:
    return Path(str(store.raw("g").shard(1)))


def filled(folder, codec="none", dtype="uint16") -> Store:
    store = Store.create(folder / "store.zarr")
    store.add_geometry("g", SHAPE, dtype, codec)
    store.reserve("g", 2)
    store.write_raw("g", 1, image(dtype))
    return store


@pytest.fixture(scope="module", params=CODECS)
def kept(request, tmp_path_factory) -> Store:
    return filled(tmp_path_factory.mktemp("kept"), request.param)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"])
def test_zarr_reads_what_we_write(tmp_path, codec, dtype):
    store = filled(tmp_path, codec, dtype)
    array = zarr.open_array(str(tmp_path / "store.zarr/raw/g/pixels"), mode="r")
    assert array.shape == (2, *SHAPE)
    np.testing.assert_array_equal(array[1], image(dtype))
    np.testing.assert_array_equal(store.raw("g").read(1), image(dtype))


@pytest.mark.parametrize("codec", CODECS)
def test_we_read_what_zarr_writes(tmp_path, codec):
    store = filled(tmp_path, codec)
    array = zarr.open_array(str(tmp_path / "store.zarr/raw/g/pixels"), mode="r+", config={"write_empty_chunks": True})
    array[0] = image() + 1
    np.testing.assert_array_equal(store.raw("g").read(0), image() + 1)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_window(kept, data):
    y0, x0 = data.draw(st.integers(0, SHAPE[0])), data.draw(st.integers(0, SHAPE[1]))
    y1, x1 = data.draw(st.integers(y0, SHAPE[0])), data.draw(st.integers(x0, SHAPE[1]))
    out = np.full((y1 - y0 + 1, x1 - x0 + 1), 7777, np.uint16)
    kept.raw("g").window(1, y0, y1, x0, x1, out)
    np.testing.assert_array_equal(out[:-1, :-1], image()[y0:y1, x0:x1])
    assert (out[-1] == 7777).all()
    assert (out[:, -1] == 7777).all()
    just = np.empty((y1 - y0, x1 - x0), np.uint16)  # no larger than the window
    for _ in range(2):
        just[...] = 7777
        kept.raw("g").window(1, y0, y1, x0, x1, just)
        np.testing.assert_array_equal(just, image()[y0:y1, x0:x1])


@pytest.mark.parametrize("window", [(-1, 5, 0, 5), (0, 301, 0, 5), (0, 5, 0, 518), (5, 4, 0, 5)])
def test_window_outside(kept, window):
    with pytest.raises(ValueError, match="outside"):
        kept.raw("g").window(1, *window, np.zeros(SHAPE, np.uint16))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("at", [0, 1000, -1, -5, -20])
def test_a_flipped_bit_is_noticed(tmp_path, codec, at):
    store = filled(tmp_path, codec)
    path = shard_file(store)
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="damaged"):
        store.raw("g").read(1)


@pytest.mark.parametrize("size", [0, 3, 50, 100_000])
def test_a_shard_cut_short_is_noticed(tmp_path, size):
    store = filled(tmp_path)
    os.truncate(shard_file(store), size)
    with pytest.raises(StoreError):
        store.raw("g").read(1)


def test_missing_shard(kept):
    assert not kept.raw("g").has(0)
    with pytest.raises(StoreError, match="missing"):
        kept.raw("g").read(0)


def test_a_replaced_shard_is_read_anew(tmp_path):
    store, other = filled(tmp_path), Store.open(tmp_path / "store.zarr")
    np.testing.assert_array_equal(other.raw("g").read(1), image())
    store.write_raw("g", 1, image() + 3)
    np.testing.assert_array_equal(other.raw("g").read(1), image() + 3)


def test_same_pixels_same_bytes(tmp_path):
    one, two = filled(tmp_path / "a", "lz4"), filled(tmp_path / "b", "lz4")
    assert shard_file(one).read_bytes() == shard_file(two).read_bytes()


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(st.integers(1, 9000), st.integers(1, 9000)))
def test_inner_chunks_are_fours_and_pad_little(codec, shape):
    side = {"none": 256, "lz4": 128}[codec]
    for length, each in zip(shape, inner_chunk(shape, codec), strict=True):
        count = -(-length // each)
        assert each % 4 == 0
        assert each <= 1.5 * side + 4
        assert count * each - length <= max(4 * count, 4)


@pytest.mark.parametrize("shape", [(130, 131), (281, 412), (555, 1037)])
def test_noise_of_some_bits_is_packed_whatever_the_shape(shape):
    image = np.random.default_rng(1).normal(1300, 30, shape).astype(np.uint16)
    parts = shard_parts(image, chunk=inner_chunk(shape, "lz4"), codec="lz4")
    assert sum(memoryview(part).nbytes for part in parts) < 0.7 * image.nbytes
