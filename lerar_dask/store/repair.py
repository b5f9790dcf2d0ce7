"""Damaged parts of a store: finding them, and taking them away together with what only makes sense with them.

Nothing is mended in place: what is taken away counts as never made, and its tasks make it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lerar_dask.errors import DamagedError, damaged_part
from lerar_dask.store.access import Store
from lerar_dask.store.chunk import checked_bytes
from lerar_dask.store.create import make_group, write_root
from lerar_dask.store.document import NODE, read_document, read_node
from lerar_dask.store.layout import spec_of
from lerar_dask.store.storage import Place

__all__ = ["damaged_nodes", "damaged_parts", "remove_part", "taken_with"]

_SOLUTIONS = ("calibration", "registration", "normalization", "stack")
"""Folders whose entries are made by one task or one step, and are of use as a whole only."""
_OF_SUBS = frozenset(("c", "frames", "summary"))
"""Below these lie chunks and documents of single subs: many, and none of them a group."""


def taken_with(part: str) -> list[str]:
    """What goes when a part of a store is damaged, itself included; paths in the store.

    >>> taken_with("raw/50x40_uint16_mono/frames/3.json")
    ['raw/50x40_uint16_mono/frames/3.json', 'raw/50x40_uint16_mono/pixels/c/3']
    """
    at = part.split("/")
    if at[0] in _SOLUTIONS and len(at) > 2:
        return ["/".join(at[:2])]
    if at[0] == "master" and len(at) > 4 and at[2] == "rejected":
        return ["/".join(at[:4])]
    if at[-1] == NODE:
        return [part]
    if at[0] == "raw" and len(at) > 4 and at[2] == "pixels":
        return [f"raw/{at[1]}/pixels/c/{at[4]}", f"raw/{at[1]}/frames/{at[4]}.json"]
    if at[0] == "raw" and len(at) == 4 and at[2] == "frames":
        return [part, f"raw/{at[1]}/pixels/c/{at[3].removesuffix('.json')}"]
    if at[0] == "measures" and len(at) > 5 and at[4] == "c":
        return [f"{'/'.join(at[:3])}/summary/{at[5]}.json", part]
    return [part]


def remove_part(store: Store, part: str) -> None:
    """Take a damaged part out of the store (driver only, under the lock); groups get their description again."""
    if part == NODE:
        write_root(store.root)
        return
    taken = taken_with(part)
    for path in taken:
        store.delete(path)
    folder, _, name = part.rpartition("/")
    if name == NODE and taken == [part] and spec_of(folder) is None:
        make_group(store.root, folder)


def damaged_nodes(store: Store) -> list[str]:
    """Descriptions (zarr.json) of groups and arrays that are damaged."""
    nodes = [_folder(place) for place in store.root.walk(_OF_SUBS) if place.path.rpartition("/")[2] == NODE]
    return [(folder / NODE).path for folder in nodes if _is_damaged(read_node, folder)]


def damaged_parts(store: Store, *, pixels: bool) -> Iterator[str]:
    """Every object of a store that is not as it was written; paths in the store.

    Parameters
    ----------
    pixels : read the raw pixels too, not their index alone
    """
    if store.ledger.damaged():
        yield "ledger"
    for place in store.root.walk():
        kept_apart = place.path == "lock" or place.path.startswith("ledger/")
        if not kept_apart and _is_damaged(_check, store, place, place.path.split("/"), pixels):
            yield place.path


def _check(store: Store, place: Place, at: Sequence[str], pixels: bool) -> None:
    """Raise where an object is damaged."""
    if at[-1] == NODE:
        read_node(_folder(place))
    elif at[-1].endswith(".json"):
        read_document(place)
    elif at[0] == "raw" and len(at) > 4 and at[2] == "pixels":
        if not at[4].isdigit():
            raise damaged_part(place, "is of no sub")
        store.raw(at[1]).check(int(at[4]), pixels=pixels)
    elif "c" in at:
        checked_bytes(place)


def _is_damaged(check: Callable[..., object], *arguments: object) -> bool:
    """Whether a check finds damage; what may not be read is no damage, and is said."""
    try:
        check(*arguments)
    except DamagedError:
        return True
    return False


def _folder(place: Place) -> Place:
    return Place(place.storage, place.path.rpartition("/")[0])
