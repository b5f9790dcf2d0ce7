"""Run: what a finished (or half finished) run holds: tables, lazy dask arrays, the graph.

The pipeline leaves `run.json` in the store (`RunState`): which subs make up which group, and under which keys their
registration, normalization, stack table and master lie. `Run` opens it. Every array is lazy: a region computes alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lerar_dask.constants import PLANES
from lerar_dask.errors import StoreError, UsageError
from lerar_dask.grid import CHUNK_SHAPE, Canvas, Window
from lerar_dask.replay import steps_of
from lerar_dask.settings import Drizzle, Integrate
from lerar_dask.settings_toml import from_toml
from lerar_dask.store.access import Store, open_store
from lerar_dask.sub import Sub
from lerar_dask.tasks import Step, Task

if TYPE_CHECKING:
    import dask.array as da

    from lerar_dask.stages.normalize.solve import Normalization

__all__ = ["GroupState", "Run", "RunState", "TargetState", "store_of"]

_SIDE_PX = 1024
"""Side of a block of the lazy arrays of single subs."""


@dataclass(frozen=True, kw_only=True)
class TargetState:
    """Subs on one grid."""

    subs: Sequence[Sub]
    """Sorted by start, then id."""
    registration: str
    canvas: Canvas | None
    wcs: Mapping[str, Any] | None = None
    """Cards of a plate solution in the reference plane, by `--solve`."""


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """Subs that make one master."""

    target: str
    subs: Sequence[int]
    """Indices into the target's subs that are in the master, in order."""
    normalization: str
    table: str
    """Key of the stack table."""
    master: str
    n_channels: int
    drizzled: str = ""
    """Key of the drizzled master; empty: there is none."""
    lnref: str = ""
    """Key of the LN reference, as a master; empty: there is none."""
    lnref_table: str = ""
    lnref_subs: Sequence[int] = ()
    """Indices into the target's subs of those it is made of."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Products by kind, relative to OUT."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What `run.json` holds."""

    nights: Sequence[str]
    settings: Mapping[str, Any]
    targets: Mapping[str, TargetState]
    groups: Mapping[str, GroupState]
    frames: Sequence[Mapping[str, Any]] = ()
    """FRAMES rows."""
    links: Sequence[Mapping[str, Any]] = ()
    """What `lerar link` prints."""
    notes: Sequence[str] = ()
    """What is to be said of the links."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why groups have no master."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RunState:
        """The state that `to_json` wrote."""
        targets = {
            name: TargetState(
                subs=[Sub(**{**s, "shape": tuple(s["shape"])}) for s in t["subs"]],
                registration=t["registration"],
                canvas=_canvas_of(t["canvas"]),
                wcs=t.get("wcs"),
            )
            for name, t in plain["targets"].items()
        }
        groups = {name: GroupState(**g) for name, g in plain["groups"].items()}
        return cls(**{**plain, "targets": targets, "groups": groups})


def _canvas_of(plain: Mapping[str, Any] | None) -> Canvas | None:
    return Canvas(tuple(plain["origin_yx"]), tuple(plain["shape"])) if plain else None


class Run:
    """What a run left in its folder: tables, lazy dask arrays, the graph.

    Examples
    --------
    >>> run = Run.open("OUT")                           # doctest: +SKIP
    >>> run.master("M31_L")[0, 0, 100:200, 100:200].compute()   # doctest: +SKIP
    """

    def __init__(self, store: Store, state: RunState, out: Path) -> None:
        self.store, self.state, self.out = store, state, out

    @classmethod
    def open(cls, out: str | Path) -> Run:
        """Open the folder that `lerar stack` wrote (or its store).

        Raises
        ------
        StoreError
            when there is no run, or it has not come to a master yet.
        """
        store = Store.open(store_of(out))
        if not store.has_json("run.json"):
            raise StoreError(f"the run in {out} has not come to its end yet", "call lerar stack again: it goes on")
        return cls(store, RunState.from_json(store.read_json("run.json")), Path(out))

    # ------------------------------------------------------------------------------------------------------- tables

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Every frame with its fate, reason and measures."""
        return [dict(row) for row in self.state.frames]

    @property
    def links(self) -> list[dict[str, Any]]:
        """Per group: dark, flat, bias, with reasons and near misses."""
        return [dict(row) for row in self.state.links]

    @property
    def groups(self) -> list[str]:
        """Names of the groups that have a master."""
        return sorted(self.state.groups)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings in force, by table."""
        return dict(self.state.settings)

    # -------------------------------------------------------------------------------------------------- lazy arrays

    def raw(self, group: str) -> da.Array:
        """Raw pixels (sub, y, x) as stored, lazily; subs of one frame geometry."""
        _, subs = self._group(group)
        names = {(s.geometry, s.shape) for s in subs}
        if len(names) > 1:
            raise UsageError(f"the subs of {group} have several sizes: their raw pixels make no one array")
        slots = [s.slot for s in subs]
        return _per_sub(
            partial(_raw_block, self.store.url, subs[0].geometry, slots),
            len(subs),
            subs[0].shape,
            self.store.raw(subs[0].geometry).dtype,
        )

    def calibrated(self, group: str) -> da.Array:
        """Calibrated pixels (sub, y, x) in each sub's own geometry, ADU, lazily."""
        _, subs = self._group(group)
        if len({s.shape for s in subs}) > 1:
            raise UsageError(f"the subs of {group} have several sizes: their pixels make no one array")
        return _per_sub(partial(self._block_function(group, "calibrated")), len(subs), subs[0].shape, np.dtype("f4"))

    def registered(self, group: str) -> da.Array:
        """Calibrated pixels on the canvas (sub, channel, y, x), lazily; NaN outside the sub."""
        return self._on_canvas(group, "registered")

    def normalized(self, group: str) -> da.Array:
        """Normalized pixels on the canvas (sub, channel, y, x), lazily; NaN outside the sub. The master is the weighted
        mean of what rejection keeps of them, and the constant SKYLEVEL of its header, which normalizing takes off.
        """
        return self._on_canvas(group, "normalized")

    def normalization(self, group: str) -> Normalization:
        """Scale, sky surface and its error of each sub of a group."""
        from lerar_dask.stages.normalize.solve import load

        state, _ = self._group(group)
        return load(self.store.url, state.normalization)

    def master(self, group: str) -> da.Array:
        """The master (channel, plane, y, x), planes image, noise, coverage, rejlow, rejhigh: computed from the raw
        pixels when asked for, region by region, with the very function that the run's tasks call.
        """
        import dask.array as da

        state, _ = self._group(group)
        canvas = self._canvas(state)
        chunks = (
            (state.n_channels,),
            (len(PLANES),),
            _axis_chunks(canvas.shape[0], CHUNK_SHAPE[0]),
            _axis_chunks(canvas.shape[1], CHUNK_SHAPE[1]),
        )
        make = partial(_master_block, self.store.url, state.table, canvas, self._integrate())
        return da.map_blocks(make, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0, 0), np.float32))

    def drizzled(self, group: str) -> da.Array:
        """The drizzled master (channel, plane, y, x), planes as in `master`: computed from the raw pixels when asked for,
        region by region.

        Raises
        ------
        UsageError
            when the run made none.
        """
        import dask.array as da

        from lerar_dask.stages.integrate.drizzle import fine_canvas

        state, _ = self._group(group)
        if not state.drizzled:
            raise UsageError(f"no drizzled master was made of {group}", "lerar stack --drizzle 2 makes one")
        settings = Drizzle(**self.state.settings["drizzle"])
        canvas = self._canvas(state)
        shape = fine_canvas(canvas, settings.drizzle).shape
        axes = (_axis_chunks(shape[0], CHUNK_SHAPE[0]), _axis_chunks(shape[1], CHUNK_SHAPE[1]))
        common = (self.store.url, state.table, state.master, canvas, self._integrate(), settings)
        return da.map_blocks(
            partial(_drizzled_block, common),
            chunks=((state.n_channels,), (len(PLANES),), *axes),
            dtype=np.float32,
            meta=np.empty((0, 0, 0, 0), np.float32),
        )

    def graph(self, group: str) -> Any:
        """The dask graph from raw subs to the master's chunks, as a Delayed: visualize, compute in part, or run it on
        a cluster of one's own. Its tasks are those of `lerar stack`; each writes what it makes into the store.
        """
        from dask.delayed import Delayed

        graph: dict[str, Any] = {}
        barrier: list[str] = []
        for step in self.steps(group):
            names = []
            for task in step.tasks:
                graph[task.key] = (_run_task, [task], list(barrier))
                names.append(task.key)
            barrier = names or barrier
        end = f"master/{group}"
        graph[end] = (_count, barrier)
        return Delayed(end, graph)

    def steps(self, group: str) -> list[Step]:
        """The tasks that a group's master is made of, step by step."""
        state, _ = self._group(group)
        paths = {f"ingest/{self.state.targets[state.target].subs[i].path}" for i in state.subs}
        steps = [step for step in steps_of(self.store) if step.group in ("", group)]
        kept = [
            dataclasses.replace(
                step, tasks=[t for t in step.tasks if not t.key.startswith("ingest/") or t.key in paths]
            )
            for step in steps
        ]
        return [step for step in kept if step.tasks]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{len(g.subs)}</td></tr>"
            for name, g in sorted(self.state.groups.items())
        )
        head = f"<b>lerar run</b> {html.escape(str(self.out))}"
        return f"{head}<table><tr><th>group</th><th>subs</th></tr>{rows}</table>"

    def __repr__(self) -> str:
        return (
            f"<Run {self.out}: {', '.join(f'{n} ({len(g.subs)} subs)' for n, g in sorted(self.state.groups.items()))}>"
        )

    # ------------------------------------------------------------------------------------------------------- helpers

    def _group(self, name: str) -> tuple[GroupState, list[Sub]]:
        if name not in self.state.groups:
            near = difflib.get_close_matches(name, self.state.groups, n=1)
            raise UsageError(f"no group is called {name!r}", f"did you mean {near[0]!r}?" if near else "")
        state = self.state.groups[name]
        return state, [self.state.targets[state.target].subs[i] for i in state.subs]

    def _canvas(self, state: GroupState) -> Canvas:
        canvas = self.state.targets[state.target].canvas
        assert canvas is not None
        return canvas

    def _integrate(self) -> Integrate:
        return Integrate(**self.state.settings["integrate"])

    def _block_function(self, group: str, what: str) -> Any:
        state, _ = self._group(group)
        return partial(_sub_block, self.store.url, state.table, self._canvas(state), self._integrate(), what)

    def _on_canvas(self, group: str, what: str) -> da.Array:
        import dask.array as da

        state, subs = self._group(group)
        canvas = self._canvas(state)
        chunks = ((1,) * len(subs), (state.n_channels,), *(_axis_chunks(n, _SIDE_PX) for n in canvas.shape))
        make = partial(_canvas_block, self._block_function(group, what), canvas.shape)
        return da.map_blocks(make, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0, 0), np.float32))


def store_of(out: str | Path) -> str:
    """Store of a run's folder: beside its products, or where its settings say; a store is its own."""
    if "://" in str(out):
        return str(out)
    out = Path(out)
    if (out / "zarr.json").exists() or not (out / "lerar.toml").exists():
        return str(out if (out / "zarr.json").exists() else out / "store.zarr")
    return from_toml(out / "lerar.toml").run.store or str(out / "store.zarr")


def _axis_chunks(length: int, size: int) -> tuple[int, ...]:
    return tuple(min(size, length - start) for start in range(0, length, size))


def _per_sub(make: Any, n: int, shape: tuple[int, int], dtype: np.dtype) -> da.Array:
    """Array (sub, y, x) with one block per sub and _SIDE_PX square."""
    import dask.array as da

    chunks = ((1,) * n, _axis_chunks(shape[0], _SIDE_PX), _axis_chunks(shape[1], _SIDE_PX))
    return da.map_blocks(
        partial(_plain_block, make, shape), chunks=chunks, dtype=dtype, meta=np.empty((0, 0, 0), dtype)
    )


def _window(block_id: tuple[int, ...], shape: tuple[int, int]) -> Window:
    y0, x0 = block_id[-2] * _SIDE_PX, block_id[-1] * _SIDE_PX
    return Window(y0, min(y0 + _SIDE_PX, shape[0]), x0, min(x0 + _SIDE_PX, shape[1]))


def _plain_block(make: Any, shape: tuple[int, int], block_id: tuple[int, ...] = ()) -> np.ndarray:
    return make(block_id[0], _window(block_id, shape))[None]


def _canvas_block(make: Any, shape: tuple[int, int], block_id: tuple[int, ...] = ()) -> np.ndarray:
    return make(block_id[0], _window(block_id, shape))[None]


def _raw_block(url: str, geometry: str, slots: list[int], i: int, window: Window) -> np.ndarray:
    reader = open_store(url).raw(geometry)
    out = np.empty(window.shape, reader.dtype)
    reader.window(slots[i], window.y0, window.y1, window.x0, window.x1, out)
    return out


def _sub_block(
    url: str, table: str, canvas: Canvas, settings: Integrate, what: str, i: int, window: Window
) -> np.ndarray:
    from lerar_dask.stages.integrate.chunk import compute_sub

    return compute_sub(url, table, canvas, settings, i, window, what=what)


def _master_block(
    url: str, table: str, canvas: Canvas, settings: Integrate, block_id: tuple[int, ...] = ()
) -> np.ndarray:
    from lerar_dask.stages.integrate.chunk import compute_chunk

    return compute_chunk(url, table, canvas, settings, block_id[2], block_id[3])


def _drizzled_block(common: tuple[Any, ...], block_id: tuple[int, ...] = ()) -> np.ndarray:
    from lerar_dask.stages.integrate.drizzle import compute_chunk

    url, table, master, canvas, integrate, settings = common
    return compute_chunk(url, table, master, canvas, integrate, settings, block_id[2], block_id[3])


def _run_task(box: list[Task], _after: Iterable[Any]) -> Mapping[str, Any]:
    """Run one task of a graph, after those it waits for."""
    return box[0].function(**box[0].arguments)


def _count(results: list[Any]) -> int:
    return len(results)
