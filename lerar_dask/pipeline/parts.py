"""The stages of a run one by one, in jobs of their own: for sites where only plain job arrays are allowed.

What several jobs share is left in the store as tasks: `ingest` and `integrate` (and `drizzle`) are done in parts, each job
every n-th task. `masters`, `solve` and `products` go on from there in one job. All of them write the same arrays as
`lerar stack` does, which may finish at any time what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lerar_dask.errors import LerarError, UsageError, WaitingError
from lerar_dask.pipeline.prepare import survey
from lerar_dask.pipeline.settings_file import keep_settings
from lerar_dask.pipeline.stack import check_out, stack_night
from lerar_dask.pipeline.summary import Summary
from lerar_dask.replay import LEFT, steps_of
from lerar_dask.runtime import events
from lerar_dask.runtime.executors import make_executor
from lerar_dask.runtime.run import run_step
from lerar_dask.settings import Settings, from_toml, places_from_toml
from lerar_dask.store.access import Store
from lerar_dask.tasks import Step

__all__ = ["DRIVERS", "SHARED", "begin", "chain", "go_on", "left_of", "run_part"]

DRIVERS = {"masters": "ingest", "solve": "integrate", "products": ""}
"""Stages of one job, and the shared stage that each leads to."""
SHARED = ("ingest", "integrate", "drizzle")
"""Stages that several jobs share."""


@dataclass(frozen=True)
class PartSummary:
    """What a job did."""

    n_done: int
    n_aside: int
    n_failed: int


def begin(nights: Sequence[Path], out: Path, settings: Settings) -> None:
    """Keep settings and folders in OUT/lerar.toml, from which all stages take them."""
    out = Path(out).absolute()
    check_out(out, Path(settings.run.store or out / "store.zarr"))
    for night in nights:
        if not night.is_dir():
            raise UsageError(f"{night}: no such folder")
    out.mkdir(parents=True, exist_ok=True)
    keep_settings(out, lambda _: settings, nights=[Path(n).absolute() for n in nights])


def go_on(out: Path, stage: str, *, bus: events.Bus) -> Summary | None:
    """Do a stage of one job; a summary when all is done, None when tasks lie ready for others.

    Raises
    ------
    WaitingError
        when an earlier shared stage is not done.
    """
    out, settings, nights = _kept(out)
    url = _url(out, settings)
    night = survey(nights, settings, exclude=[out, Path(url)])
    if not night.lights:
        raise LerarError("no lights are there", "lerar link shows what each frame is taken for")
    apart = SHARED if stage != "products" else ("ingest", "integrate")
    try:
        return stack_night(night, nights, out, settings, bus=bus, apart=apart)
    except WaitingError as waiting:
        names = {step.name for step in left_of(out)}
        if names <= {DRIVERS[stage], "drizzle"} and stage != "products":
            return None
        name = next(iter(sorted(names)))
        raise WaitingError(waiting.message, f"lerar stage {name} OUT --part 1/1 does them") from waiting


def left_of(out: Path) -> list[Step]:
    """Steps whose tasks wait for other jobs; those that are done since are among them."""
    out, settings, _ = _kept(out)
    store = Store.open(_url(out, settings))
    return steps_of(store, LEFT) if store.size(LEFT) is not None else []


def run_part(out: Path, stage: str, part: int, n_parts: int, *, bus: events.Bus) -> PartSummary:
    """Do every n-th of the tasks that wait.

    Parameters
    ----------
    part : 1 .. n_parts
    """
    out, settings, nights = _kept(out)
    steps = [step for step in left_of(out) if step.name == stage]
    store = Store.open(_url(out, settings))
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


def chain(out: Path, n_parts: int) -> list[tuple[str, bool]]:
    """Stages in their order, and whether each is shared."""
    _, settings, _ = _kept(out)
    names = ["masters", "ingest", "solve", "integrate"]
    names += ["solve", "drizzle"] if settings.drizzle.drizzle else []
    return [(name, name in SHARED and n_parts > 1) for name in [*names, "products"]]


def _own(step: Step, part: int, n_parts: int, known: dict[str, dict[str, object]]) -> Step:
    """Tasks of a part that are not done."""
    import dataclasses

    own = step.tasks[part - 1 :: n_parts]
    todo = [t for t in own if not _is_done(known.get(t.key), t.digest)]
    return dataclasses.replace(step, tasks=todo)


def _is_done(record: dict[str, object] | None, digest: str) -> bool:
    return record is not None and record["digest"] == digest and record["state"] in ("done", "aside")


def _kept(out: Path) -> tuple[Path, Settings, list[Path]]:
    out = Path(out).absolute()
    file = out / "lerar.toml"
    if not file.is_file():
        raise UsageError(f"{out} is not begun", "lerar stage begin OUT --night NIGHT")
    return out, from_toml(file), [Path(n) for n in places_from_toml(file)[0]]


def _url(out: Path, settings: Settings) -> str:
    return settings.run.store or str(out / "store.zarr")
