"""Products: masters as FITS and PNG; nothing is made again that is there.

A product is a task like any other, known to the ledger by the master's key and the settings of products.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.constants import PLANES
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.identity import code_of, digest
from lerar_dask.products import fits, preview, provenance
from lerar_dask.run import RunState
from lerar_dask.settings import Settings
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = ["plan_products", "rows_of", "rows_reader"]

_COUNTS = [PLANES.index(plane) for plane in ("coverage", "rejlow", "rejhigh")]


def plan_products(store: Store, out: Path, state: RunState, settings: Settings, facts: Mapping[str, Any]) -> Step:
    """Two tasks per group: its FITS, and its picture.

    Parameters
    ----------
    facts : header facts by group, see `header_facts`
    """
    tasks = []
    for name, group in state.groups.items():
        common = {"store_url": store.url, "name": name}
        digests = (code_of(__name__), group.master, settings.products, facts[name])
        rows = [row for row in state.frames if row["group"] == name]
        master = {**common, "path": str(out / f"{name}.fits"), "facts": facts[name], "settings": settings}
        tasks.append(
            Task(
                key=f"products/{name}",
                digest=digest("products", *digests, rows),
                function=write_master,
                arguments=master,
            )
        )
        if settings.products.preview:
            bottom_up = facts[name].get("row_order") == "BOTTOM-UP"
            picture = {**common, "path": str(out / f"{name}.png"), "bottom_up": bottom_up}
            tasks.append(
                Task(
                    key=f"picture/{name}",
                    digest=digest("picture", *digests),
                    function=write_picture,
                    arguments=picture,
                )
            )
    return Step(name="products", tasks=tasks)


def rows_reader(store: Store, key: str, shape: tuple[int, int, int]) -> fits.ReadRows:
    """(y0, y1) -> (channel, plane, rows, x) of a master, chunk row by chunk row, valid until the next rows are read.

    Counts are 0 where no sub reaches.
    """
    channels, height, width = shape
    columns = -(-width // CHUNK_SHAPE[1])
    buffer = np.empty((0, 0, 0, 0), np.float32)

    def read(y0: int, y1: int) -> np.ndarray:
        nonlocal buffer
        if buffer.shape[2] < y1 - y0:
            buffer = np.empty((channels, len(PLANES), y1 - y0, width), np.float32)
        out = buffer[:, :, : y1 - y0]
        for cy in range(y0 // CHUNK_SHAPE[0], -(-y1 // CHUNK_SHAPE[0])):
            top = cy * CHUNK_SHAPE[0]
            a, b = max(y0, top), min(y1, top + CHUNK_SHAPE[0], height)
            for cx in range(columns):
                left = cx * CHUNK_SHAPE[1]
                right = min(left + CHUNK_SHAPE[1], width)
                chunk = store.read_chunk(key, cy, cx)
                if not store.has_chunk(key, cy, cx):
                    chunk[:, _COUNTS] = 0.0  # as in the chunks that some sub touches
                out[:, :, a - y0 : b - y0, left:right] = chunk[:, :, a - top : b - top, : right - left]
        return out

    return read


def write_master(
    *, store_url: str, name: str, path: str, facts: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    """Write a group's master as FITS."""
    store = open_store(store_url)
    state = RunState.from_json(store.read_json("run.json"))
    read_rows, shape = rows_of(store, state, name)
    target = state.targets[state.groups[name].target]
    assert target.canvas is not None
    master = fits.MasterImage(
        read_rows=read_rows,
        shape=shape,
        group=name,
        origin_yx=target.canvas.origin_yx,
        history=provenance.history(settings),
        provenance=provenance.provenance(settings),
        **facts,
    )
    fits.write_master(Path(path), master, [row for row in state.frames if row["group"] == name])
    return {"written_bytes": Path(path).stat().st_size}


def write_picture(*, store_url: str, name: str, path: str, bottom_up: bool) -> dict[str, Any]:
    """Write a group's preview as PNG."""
    store = open_store(store_url)
    read_rows, shape = rows_of(store, RunState.from_json(store.read_json("run.json")), name)
    preview.write_preview(Path(path), read_rows, shape, bottom_up=bottom_up)
    return {"written_bytes": Path(path).stat().st_size}


def rows_of(store: Store, state: RunState, name: str) -> tuple[fits.ReadRows, tuple[int, int, int]]:
    """Reader of a group's master, and channels, rows, columns."""
    group = state.groups[name]
    canvas = state.targets[group.target].canvas
    assert canvas is not None
    shape = (group.n_channels, *canvas.shape)
    return rows_reader(store, group.master, shape), shape
