"""JSON files of a store, each with a checksum of its own: documents (plain values) and nodes (zarr.json).

A document is `{"crc32c": "<8 hex digits>", "value": ...}`, the sum of the bytes of the value as they are written. A node
stays as zarr wants it: the sum is an attribute, of the node without it. What an earlier program wrote has no sum and is
read as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google_crc32c import value as crc32c

from lerar_dask.errors import damaged_part, unreadable_part
from lerar_dask.store.fields import fits
from lerar_dask.store.storage import Place

__all__ = [
    "NODE",
    "has_sum",
    "pack",
    "pack_node",
    "read_array_node",
    "read_document",
    "read_node",
    "unpack",
    "write_document",
    "write_node",
]

NODE = "zarr.json"
_HEAD, _MIDDLE = b'{"crc32c": "', b'", "value": '
_START = len(_HEAD) + 8 + len(_MIDDLE)
_SUM = "crc32c"
_ARRAY = {
    "shape": [int],
    "data_type": str,
    "chunk_grid": {"configuration": {"chunk_shape": [int]}},
    "codecs": [{"name": str}],
}
_NO_DOCUMENT = {_SUM, "value", "zarr_format"}


def pack(value: Any) -> bytes:
    """A value (JSON types; others as their text) as the bytes of a document, in one line."""
    body = json.dumps(value, default=str).encode()
    return b"".join([_HEAD, _digits(body).encode(), _MIDDLE, body, b"}"])


def unpack(data: bytes) -> Any:
    """The value of a document.

    Raises
    ------
    ValueError
        when it is not what `pack` wrote.
    """
    if data[: len(_HEAD)] == _HEAD and data[len(_HEAD) + 8 : _START] == _MIDDLE and data[-1:] == b"}":
        body = data[_START:-1]
        if data[len(_HEAD) : len(_HEAD) + 8] != _digits(body).encode():
            raise ValueError("its checksum does not fit")
        return json.loads(body)
    value = json.loads(data)
    if isinstance(value, dict) and not _NO_DOCUMENT.isdisjoint(value):
        raise ValueError(
            "its head is damaged, or it is no document"
        )  # those of an earlier program have no such entries
    return value


def has_sum(data: bytes) -> bool:
    """Whether the bytes of a document begin with a checksum: those of an earlier program do not."""
    return data.startswith(_HEAD)


def write_document(place: Place, value: Any) -> int:
    """Write plain values, at once or not at all; bytes written."""
    return place.put(pack(value))


def read_document(place: Place, form: Any = object) -> Any:
    """What `write_document` wrote.

    Parameters
    ----------
    form : what it must hold (store/fields.py), if it has a sum

    Raises
    ------
    DamagedError
        when it is missing or damaged, or holds something else.
    """
    data = _bytes_of(place)
    try:
        value = unpack(data)
    except (ValueError, RecursionError) as error:
        raise damaged_part(place) from error
    if has_sum(data) and not fits(value, form):
        raise damaged_part(place, "holds something else than lerar writes")
    return value


def pack_node(node: Mapping[str, Any]) -> bytes:
    """The bytes of a zarr.json."""
    plain = {**node, "attributes": {**node["attributes"], _SUM: _sum_of(node)}}
    return json.dumps(plain, indent=1).encode()


def write_node(folder: Place, node: Mapping[str, Any]) -> None:
    """Write a zarr.json, whole or not at all."""
    (folder / NODE).put(pack_node(node))


def read_node(folder: Place) -> dict[str, Any]:
    """The zarr.json of a group or array, without its checksum.

    Raises
    ------
    DamagedError
        when it is missing or damaged.
    """
    place = folder / NODE
    try:
        node = json.loads(_bytes_of(place))
        told = node["attributes"].pop(_SUM, None)
        if told is None or told == _sum_of(node):
            return dict(node)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged_part(place) from error
    raise damaged_part(place)


def read_array_node(folder: Place) -> dict[str, Any]:
    """The zarr.json of an array.

    Raises
    ------
    DamagedError
        when it is missing or damaged, or no array's.
    """
    node = read_node(folder)
    if not fits(node, _ARRAY):
        raise damaged_part(folder / NODE, "is no array's")
    return node


def _bytes_of(place: Place) -> bytes:
    try:
        return place.get()
    except OSError as error:
        raise unreadable_part(place, error) from error


def _sum_of(node: Mapping[str, Any]) -> str:
    return _digits(json.dumps(node, sort_keys=True).encode())


def _digits(body: bytes) -> str:
    return f"{crc32c(body):08x}"
