"""The stages of a run one by one, in jobs of their own: for sites where only plain job arrays are allowed.

What several jobs share is left in the store as tasks: `ingest` and `integrate` (and `drizzle`) are done in parts, each job
every n-th task. `masters`, `solve` and `products` go on from there in one job. All of them write the same arrays as
`lerar stack` does, which may finish at any time what is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerar_dask.errors import UsageError, WaitingError
from lerar_dask.pipeline.session import is_done
from lerar_dask.pipeline.settings_file import keep_settings
from lerar_dask.pipeline.stack import check_out, stack
from lerar_dask.replay import LEFT, steps_of
from lerar_dask.run import store_of
from lerar_dask.runtime import events
from lerar_dask.runtime.executors import make_executor
from lerar_dask.runtime.run import run_step
from lerar_dask.settings import Settings
from lerar_dask.settings_toml import from_toml, places_from_toml
from lerar_dask.store.access import Store
from lerar_dask.store.document import NODE
from lerar_dask.store.storage import Place, bucket_of, open_storage
from lerar_dask.summary import Summary
from lerar_dask.tasks import Step

__all__ = ["DRIVERS", "SHARED", "begin", "chain", "go_on", "left_of", "run_part"]

SHARED = ("ingest", "integrate", "drizzle")
"""Stages that several jobs share: names of their steps."""
DRIVERS: Mapping[str, Sequence[str]] = {"masters": (), "solve": ("ingest",), "products": SHARED}
"""Stages of one job, and the shared ones that must be done before."""


@dataclass(frozen=True)
class PartSummary:
    """What a job did."""

    n_done: int
    n_aside: int
    n_failed: int


def begin(nights: Sequence[Path], out: Path, settings: Settings) -> None:
    """Keep settings and folders in OUT/lerar.toml, from which all stages take them."""
    out = Path(out).absolute()
    check_out(out, settings)
    for night in nights:
        if not bucket_of(night) and not night.is_dir():
            raise UsageError(f"{night}: no such folder")
    out.mkdir(parents=True, exist_ok=True)
    keep_settings(out, lambda _: settings, nights=[Path(bucket_of(n) or Path(n).absolute()) for n in nights])


def go_on(out: Path, stage: str, *, bus: events.Bus) -> Summary | None:
    """Do a stage of one job; a summary when all is done, None when tasks lie ready for others.

    Raises
    ------
    WaitingError
        when an earlier shared stage is not done.
    """
    out, settings, nights = _kept(out)
    try:
        summary = stack(nights, out, settings, bus=bus, apart=SHARED)
    except WaitingError as waiting:
        names = {step.name for step in left_of(out)}
        missing = [name for name in DRIVERS[stage] if name in names]
        if not missing:
            return None
        raise WaitingError(waiting.message, f"lerar stage {missing[0]} {out} does them") from waiting
    assert isinstance(summary, Summary)
    return summary


def left_of(out: Path) -> list[Step]:
    """Steps whose tasks wait for other jobs; those that are done since are among them."""
    out, _, _ = _kept(out)
    if not Place(open_storage(store_of(out)), NODE).exists():
        return []
    store = Store.open(store_of(out))
    return steps_of(store, LEFT) if store.size(LEFT) is not None else []


def run_part(out: Path, stage: str, part: int, n_parts: int, *, bus: events.Bus) -> PartSummary:
    """Do every n-th of the tasks that wait.

    Parameters
    ----------
    part : 1 .. n_parts
    """
    out, settings, nights = _kept(out)
    steps = [step for step in left_of(out) if step.name == stage]
    store = Store.open(store_of(out))
    executor = make_executor(settings.run, settings.slurm, out, nights)
    counts = {"done": 0, "aside": 0, "failed": 0}
    try:
        with store.lock(shared=True):
            known = store.ledger.load()
            with store.ledger.writer(f"part-{stage}-{part}", known) as writer:
                for step in steps:
                    for record in run_step(_own(step, part, n_parts, known), executor, bus):
                        writer.append(dict(vars(record)))
                        counts[record.state] += 1
    finally:
        executor.close()
    return PartSummary(*counts.values())


def chain(out: Path) -> list[str]:
    """Stages in their order."""
    _, settings, _ = _kept(out)
    drizzle = ["solve", "drizzle"] if settings.drizzle.drizzle else []
    lnref = ["solve", "integrate"] if settings.products.lnref else []
    return ["masters", "ingest", "solve", "integrate", *drizzle, *lnref, "products"]


def _own(step: Step, part: int, n_parts: int, known: Mapping[str, Mapping[str, Any]]) -> Step:
    """Tasks of a part that are not done."""
    own = step.tasks[part - 1 :: n_parts]
    return dataclasses.replace(step, tasks=[task for task in own if not is_done(known, task)])


def _kept(out: Path) -> tuple[Path, Settings, list[Path]]:
    out = Path(out).absolute()
    file = out / "lerar.toml"
    if not file.is_file():
        raise UsageError(f"{out} is not begun", "lerar stage begin OUT --night NIGHT")
    return out, from_toml(file), [Path(n) for n in places_from_toml(file)[0]]
