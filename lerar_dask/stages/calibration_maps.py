"""What a process keeps of calibration sets: read once for all its threads, or kept by who has just made it.

Reads   calibration/<set>/{pedestal,gain,defects}
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from lerar_dask.store.access import open_store

__all__ = ["KEPT_SETS", "Maps", "calibration_maps", "forget_maps", "keep_map"]

KEPT_SETS = 16
"""Sets that a process keeps at most; every chunk of a master asks for all sets of its subs."""
_kept: OrderedDict[tuple[str, str], dict[str, np.ndarray | None]] = OrderedDict()
"""Arrays by store and set, the set that was asked for last at the end."""
_lock = threading.Lock()


class Maps(NamedTuple):
    """Arrays of a calibration set."""

    pedestal: np.ndarray | None
    """(y, x) float32, ADU; None: nothing is taken off."""
    gain: np.ndarray | None
    """(y, x) float32; None: there is no flat."""
    defects: np.ndarray
    """(m,) int32 sorted flat indices."""


def calibration_maps(store_url: str, key: str | None, *, sets: int = KEPT_SETS) -> Maps:
    """Pedestal, gain and defects of a calibration set; one thread reads, the others wait for it.

    Parameters
    ----------
    sets : so many stay in memory, those that were asked for last
    """
    if key is None:
        return Maps(None, None, np.zeros(0, np.int32))
    with _lock:
        arrays = _kept.setdefault((store_url, key), {})
        try:
            for name in Maps._fields:
                if name not in arrays:
                    arrays[name] = _read(store_url, f"calibration/{key}/{name}")
        except BaseException:
            del _kept[store_url, key]
            raise
        _trim((store_url, key), sets)
        defects = arrays["defects"]
        return Maps(arrays["pedestal"], arrays["gain"], np.zeros(0, np.int32) if defects is None else defects)


def keep_map(store_url: str, key: str, name: str, array: np.ndarray) -> None:
    """Keep an array that was just written for who asks for the set next; of all sets only this one stays."""
    with _lock:
        _kept.setdefault((store_url, key), {})[name] = array
        _trim((store_url, key), 1)


def forget_maps() -> None:
    """Keep nothing."""
    with _lock:
        _kept.clear()


def _trim(youngest: tuple[str, str], sets: int) -> None:
    _kept.move_to_end(youngest)
    while len(_kept) > sets:
        _kept.popitem(last=False)


def _read(store_url: str, path: str) -> np.ndarray | None:
    store = open_store(store_url)
    return np.ascontiguousarray(store.read_array(path)) if store.has(path) else None
