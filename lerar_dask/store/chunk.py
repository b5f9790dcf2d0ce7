"""Chunks of arrays that have no shards: packed where that pays, a crc32c behind each.

Packed are maps and tables (`ArraySpec.packed`): bytes that are not written cost no pages, and packing takes less time
than writing what it saves (masters shrink to a quarter, blocks to a third). Sums are of the packed bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs import blosc

from lerar_dask.errors import damaged_part, unreadable_part
from lerar_dask.store.storage import Place

__all__ = ["blosc_of", "checked_bytes", "checked_chunk", "chunk_parts"]

_CRC = 4
_SHUFFLE = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}
_BLOSC_HEADER = 16
_LARGEST_ITEM = 255
"""Bytes that blosc can shuffle as one item."""

blosc.use_threads = False


def blosc_of(packed: str, dtype: np.dtype, n_last: int) -> dict[str, Any] | None:
    """Configuration of the codec `blosc` for an array, as its zarr.json has it; None: its chunks are as they are.

    Parameters
    ----------
    packed : `values`: bits of single values side by side; `rows`: the same byte of rows along the last axis; ``: no
    n_last : length of the last axis
    """
    if not packed:
        return None
    row = dtype.itemsize * n_last
    by_row = packed == "rows" and 0 < row <= _LARGEST_ITEM
    return {
        "cname": "lz4",
        "clevel": 1,
        "shuffle": "shuffle" if packed == "rows" else "bitshuffle",
        "typesize": row if by_row else dtype.itemsize,
        "blocksize": 0,
    }


def chunk_parts(data: np.ndarray, *, packed: str = "") -> list:
    """A chunk as the buffers of its file."""
    array = np.ascontiguousarray(data)
    body: Any = array.reshape(-1).view(np.uint8)
    if codec := blosc_of(packed, array.dtype, array.shape[-1]):
        body = blosc.compress(body, b"lz4", codec["clevel"], _SHUFFLE[codec["shuffle"]], 0, codec["typesize"])
    return [body, crc32c(body).to_bytes(_CRC, "little")]


def checked_chunk(place: Place, shape: tuple[int, ...], dtype: np.dtype, *, packed: bool) -> np.ndarray:
    """A chunk that `chunk_parts` wrote; one of `shape` may be -1.

    Raises
    ------
    DamagedError
        when it is missing or damaged.
    """
    data = checked_bytes(place)
    try:
        plain = _unpacked(data) if packed else data
        return plain.view(dtype).reshape(shape)
    except (ValueError, RuntimeError) as error:
        raise damaged_part(place, "has another size than it should") from error


def checked_bytes(place: Place) -> np.ndarray:
    """Bytes of a chunk as they are stored, without their checksum.

    Raises
    ------
    DamagedError
        when it is missing or damaged.
    """
    try:
        data = place.storage.get_array(place.path)
    except OSError as error:
        raise unreadable_part(place, error) from error
    if len(data) < _CRC or crc32c(data[:-_CRC]) != int.from_bytes(data[-_CRC:].tobytes(), "little"):
        raise damaged_part(place)
    return data[:-_CRC]


def _unpacked(data: np.ndarray) -> np.ndarray:
    """Plain bytes, in memory of their own; the header of a blosc buffer has their number in bytes 4 to 7."""
    if len(data) < _BLOSC_HEADER:
        raise ValueError("not a blosc buffer")
    plain = np.empty(int(data[4:8].view("<u4")[0]), np.uint8)
    blosc.decompress(data, plain)
    return plain
