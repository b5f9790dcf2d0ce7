"""Every JSON file tells when it is not as it was written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerar_dask.errors import DamagedError
from lerar_dask.store.create import array_node
from lerar_dask.store.document import pack, read_document, read_node, unpack, write_document, write_node
from tests.store.places import local

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_comes_back_and_is_json(value):
    data = pack(value)
    assert unpack(data) == value
    assert json.loads(data)["value"] == value
    assert b"\n" not in data


@given(values, st.data())
def test_a_flipped_bit_is_noticed(value, data):
    packed = bytearray(pack(value))
    bit = data.draw(st.integers(0, 8 * len(packed) - 1))
    packed[bit // 8] ^= 1 << bit % 8
    try:
        assert unpack(bytes(packed)) == value
    except ValueError:
        return


@given(values, st.data())
def test_a_part_is_noticed(value, data):
    packed = pack(value)
    with pytest.raises(ValueError):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])


def test_what_an_earlier_program_wrote_is_read(tmp_path):
    for value in ({"scale": 1.0, "zero": 0.0, "cards": []}, [1, 2], {"reasons": [], "model": {}}):
        (tmp_path / "old.json").write_text(json.dumps(value))
        assert read_document(local(tmp_path / "old.json")) == value


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 40, b'{"crc32c": "00000000", "value": 1}', b'{"crc32d": "0", "value": 1}']
)
def test_damage_names_the_file(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(DamagedError) as caught:
        read_document(local(path))
    assert caught.value.parts == (path.name,)
    assert str(path) in caught.value.message
    with pytest.raises(DamagedError, match="missing"):
        read_document(local(tmp_path / "none.json"))


def test_nodes(tmp_path):
    import numpy as np

    node = array_node("calibration/k/gain", shape=(3, 4), dtype=np.dtype("f4"), chunks=(3, 4), attributes={"a": 1.5})
    write_node(local(tmp_path), node)
    assert read_node(local(tmp_path)) == node
    path = tmp_path / "zarr.json"
    whole = path.read_bytes()
    noticed = 0
    for bit in range(8 * len(whole)):
        bad = bytearray(whole)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        try:
            read = read_node(local(tmp_path))
        except DamagedError:
            noticed += 1
            continue
        # White space alone, or the name of the sum itself: nothing that anybody goes by.
        assert {k: v for k, v in read.items() if k != "attributes"} == {
            k: v for k, v in node.items() if k != "attributes"
        }
        assert node["attributes"].items() <= read["attributes"].items()
    assert noticed > 0.8 * 8 * len(whole)


def test_documents_are_whole_or_not_there(tmp_path):
    assert write_document(local(tmp_path) / "a/b.json", {"k": [1, 2]}) == (tmp_path / "a" / "b.json").stat().st_size
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.json"]
