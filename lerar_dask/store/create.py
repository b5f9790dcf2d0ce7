"""Makes a store, its groups and the descriptions (zarr.json) of its arrays; checks a store that is there.

The documents are written by ourselves: they appear whole, cost no import of zarr, and zarr-python reads them (tested).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.errors import DamagedError, StoreError
from lerar_dask.store.chunk import blosc_of
from lerar_dask.store.document import NODE, read_node, write_node
from lerar_dask.store.layout import ARRAYS, FORMAT, FORMAT_VERSION, spec_of
from lerar_dask.store.shard import inner_chunk
from lerar_dask.store.storage import Place

__all__ = ["array_node", "check_store", "create_store", "make_group", "raw_node", "write_root"]

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
_OURS = {NODE, "lock", "ledger", "run.json", "steps.json", "left.json", "pictures.json"} | {
    spec.path.partition("/")[0] for spec in ARRAYS
}
"""What lies in the folder of a store."""


def create_store(root: Place) -> None:
    """Make an empty store in a place that is empty or missing.

    Raises
    ------
    StoreError
        when the folder holds something else.
    """
    if root.storage.size("") is not None:
        raise StoreError(f"{root} is a file", "give a folder for the store")
    if set(_names_in(root)) - {"lock"}:  # a run killed at its very start leaves no more than that
        raise StoreError(f"{root} holds something else than a lerar store", "give another folder")
    write_root(root)


def write_root(root: Place) -> None:
    """Write what says that a folder is a store of ours."""
    from importlib.metadata import version

    about = {"format": FORMAT, "format_version": FORMAT_VERSION, "created_by": f"lerar {version('lerar-dask')}"}
    write_node(root, _group(about))


def check_store(root: Place) -> None:
    """Refuse what is not a store of ours, or of a later format.

    Raises
    ------
    DamagedError
        when the store is ours by what it holds, and does not say so any more.
    StoreError
        with the reason.
    """
    try:
        about = read_node(root)["attributes"]
        name, number = about["format"], int(about["format_version"])
    except DamagedError as error:
        if _is_ours(root):
            raise
        there = (root / NODE).exists()
        text = f"{root} holds something else than a lerar store" if there else f"no lerar store at {root}"
        raise StoreError(text) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{root} holds something else than a lerar store") from error
    if name != FORMAT:
        raise StoreError(f"{root} holds something else than a lerar store (format {name!r})")
    if number > FORMAT_VERSION:
        raise StoreError(
            f"{root} has format {number}; this program knows formats up to {FORMAT_VERSION}", "install a newer lerar"
        )
    if number < 1:
        raise StoreError(f"{root} has format {number}, which does not exist")


def _is_ours(root: Place) -> bool:
    """Whether a folder without a readable description is a store of ours by what lies in it."""
    names = set(_names_in(root))
    return names <= _OURS and "ledger" in names


def _names_in(root: Place) -> list[str]:
    folders, objects = root.names()
    return [*folders, *objects]


def make_group(root: Place, path: str) -> None:
    """The group at a path below the store, made with its parents where missing."""
    at = root
    for part in path.split("/") if path else []:
        at = at / part
        if not (at / NODE).exists():
            write_node(at, _group({}))


def _group(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def raw_node(shape: tuple[int, int], dtype: str, codec: str, *, n_slots: int) -> dict[str, Any]:
    """Description of the raw pixels of a geometry: one shard per slot."""
    chunk = inner_chunk(shape, codec)
    plain = np.dtype(dtype)
    blosc = {"cname": "lz4", "clevel": 1, "shuffle": "bitshuffle", "typesize": plain.itemsize, "blocksize": 0}
    sharding = {
        "chunk_shape": [1, *chunk],
        "codecs": [_LITTLE, *([{"name": "blosc", "configuration": blosc}] if codec == "lz4" else []), _CRC],
        "index_codecs": [_LITTLE, _CRC],
        "index_location": "end",
    }
    node = array_node(
        "raw/any/pixels",
        shape=(n_slots, *shape),
        dtype=plain,
        chunks=(1, *(-(-n // side) * side for n, side in zip(shape, chunk, strict=True))),
        attributes={"codec": codec},
    )
    return {**node, "codecs": [{"name": "sharding_indexed", "configuration": sharding}], "fill_value": 0}


def array_node(
    path: str,
    *,
    shape: Sequence[int],
    dtype: np.dtype,
    chunks: Sequence[int],
    dims: Sequence[str] = (),
    unit: str = "",
    meaning: str = "",
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Description of an array with a crc32c behind every chunk (store/chunk.py); what the layout says of its path goes first."""
    spec = spec_of(path)
    if spec is not None and len(spec.dims) == len(shape):
        dims, unit, meaning = spec.dims, unit or spec.unit, meaning or spec.meaning
    packing = blosc_of(spec.packed if spec else "", dtype, shape[-1])
    if len(dims) != len(shape):
        raise ValueError(f"{path}: {len(dims)} dimension names for {len(shape)} dimensions")
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [int(n) for n in shape],
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(int(n), 1) for n in chunks]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if dtype.kind == "f" else False if dtype.kind == "b" else 0,
        "codecs": [_LITTLE, *([{"name": "blosc", "configuration": packing}] if packing else []), _CRC],
        "attributes": {"unit": unit, "meaning": meaning, **(attributes or {})},
        "dimension_names": list(dims),
        "storage_transformers": [],
    }
