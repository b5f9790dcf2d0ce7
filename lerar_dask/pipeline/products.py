"""Products: masters as FITS and PNG; nothing is made again that is there.

A product is a task like any other, known to the ledger by the master's key and the settings of products.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.constants import PLANES
from lerar_dask.grid import CHUNK_SHAPE, Canvas
from lerar_dask.identity import code_of, digest
from lerar_dask.pipeline.drizzle_facts import drizzled_facts
from lerar_dask.products import fits, preview, provenance
from lerar_dask.run import RunState
from lerar_dask.settings import Settings
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = ["as_lnref", "drizzled_name", "lnref_name", "masters_of", "plan_products", "rows_of", "rows_reader"]

_COUNTS = [PLANES.index(plane) for plane in ("coverage", "rejlow", "rejhigh")]


def plan_products(store: Store, out: Path, state: RunState, settings: Settings, facts: Mapping[str, Any]) -> Step:
    """Two tasks per master: its FITS, and its picture.

    Parameters
    ----------
    facts : header facts by group, see `header_facts`
    """
    tasks, most = [], 0
    for master in masters_of(state):
        name, group = master.name, master.group
        own = facts.get(name) or facts[group]
        if master.scale:
            own = drizzled_facts(own, _canvas_of(state, group).origin_yx, settings.drizzle)
        most = max(most, _band_bytes(state, master))
        common = {"store_url": store.url, "name": name}
        digests = (code_of(__name__), master.key, settings.products, own)
        rows = _rows_of_frames(state, master)
        arguments = {**common, "path": str(out / f"{name}.fits"), "facts": own, "settings": settings}
        tasks.append(
            Task(
                key=f"products/{name}",
                digest=digest("products", *digests, rows),
                function=write_master,
                arguments=arguments,
            )
        )
        if settings.products.preview:
            bottom_up = own.get("row_order") == "BOTTOM-UP"
            picture = {**common, "path": str(out / f"{name}.png"), "bottom_up": bottom_up}
            tasks.append(
                Task(
                    key=f"picture/{name}",
                    digest=digest("picture", *digests),
                    function=write_picture,
                    arguments=picture,
                )
            )
    return Step(name="products", tasks=tasks, task_bytes=most)


def _band_bytes(state: RunState, master: Master) -> int:
    """Memory for a band of rows of a master on its way into a file: as read, and as written."""
    width = _canvas_of(state, master.group).shape[1] * max(master.scale, 1)
    return 2 * 4 * state.groups[master.group].n_channels * len(PLANES) * CHUNK_SHAPE[0] * width


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
    made = next(m for m in masters_of(state) if m.name == name)
    master = fits.MasterImage(
        read_rows=read_rows,
        shape=shape,
        group=made.group,
        history=provenance.history(settings),
        provenance=provenance.provenance(settings),
        **{"origin_yx": _canvas_of(state, made.group).origin_yx, **facts},
    )
    fits.write_master(Path(path), master, _rows_of_frames(state, made))
    return {"written_bytes": Path(path).stat().st_size}


def write_picture(*, store_url: str, name: str, path: str, bottom_up: bool) -> dict[str, Any]:
    """Write a group's preview as PNG."""
    store = open_store(store_url)
    read_rows, shape = rows_of(store, RunState.from_json(store.read_json("run.json")), name)
    preview.write_preview(Path(path), read_rows, shape, bottom_up=bottom_up)
    return {"written_bytes": Path(path).stat().st_size}


def rows_of(store: Store, state: RunState, name: str) -> tuple[fits.ReadRows, tuple[int, int, int]]:
    """Reader of a master, and channels, rows, columns."""
    master = next(m for m in masters_of(state) if m.name == name)
    height, width = _canvas_of(state, master.group).shape
    finer = max(master.scale, 1)
    shape = (state.groups[master.group].n_channels, height * finer, width * finer)
    return rows_reader(store, master.key, shape), shape


@dataclass(frozen=True)
class Master:
    """A master of a run, as it is written."""

    name: str
    """Of its files, without their endings."""
    group: str
    key: str
    scale: int = 0
    """Pixels along one of the grid's; 0: it is not drizzled."""
    paths: Sequence[str] = ()
    """Of the subs, where they are not all of the group."""


def masters_of(state: RunState) -> list[Master]:
    """Masters of all groups, drizzled ones and LN references after their own."""
    found = []
    for name, group in state.groups.items():
        found.append(Master(name, name, group.master))
        if group.drizzled:
            scale = int(state.settings["drizzle"]["drizzle"])
            found.append(Master(drizzled_name(name, scale), name, group.drizzled, scale))
        if group.lnref:
            paths = [state.targets[group.target].subs[i].path for i in group.lnref_subs]
            found.append(Master(lnref_name(name), name, group.lnref, paths=paths))
    return found


def _rows_of_frames(state: RunState, master: Master) -> list[Mapping[str, Any]]:
    """Rows of the FRAMES table of a master."""
    own = [row for row in state.frames if row["group"] == master.group]
    return [row for row in own if row["path"] in master.paths] if master.paths else own


def lnref_name(group: str) -> str:
    """Name of an LN reference's files."""
    return f"{group}_lnref"


def as_lnref(state: RunState, name: str) -> RunState:
    """The state with a group that is its LN reference alone: what its header tells."""
    group = state.groups[name]
    reference = dataclasses.replace(group, subs=group.lnref_subs, table=group.lnref_table, master=group.lnref)
    return dataclasses.replace(state, groups={**state.groups, name: reference})


def drizzled_name(group: str, scale: int) -> str:
    """Name of a drizzled master's files."""
    return f"{group}_drizzle{scale}x"


def _canvas_of(state: RunState, group: str) -> Canvas:
    canvas = state.targets[state.groups[group].target].canvas
    assert canvas is not None
    return canvas
