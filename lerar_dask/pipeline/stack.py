"""From a night to its masters: the stages one after the other, each only as far as something is left to do."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lerar_dask.errors import LerarError, StoreError, WaitingError, space_error
from lerar_dask.pipeline import calibrate
from lerar_dask.pipeline.bucket_night import FRAMES, near_nights
from lerar_dask.pipeline.corners import corner_notes
from lerar_dask.pipeline.doubt import doubtful
from lerar_dask.pipeline.dry import dry_run as make_dry_run
from lerar_dask.pipeline.files import as_files, is_kept, keep_file, keep_steps
from lerar_dask.pipeline.heal import mend_nodes, until_whole
from lerar_dask.pipeline.preload import beside, preload_modules
from lerar_dask.pipeline.prepare import Light, Night, gone_lights, items_of, survey
from lerar_dask.pipeline.room import within_memory
from lerar_dask.pipeline.session import Session
from lerar_dask.pipeline.settings_file import keep_settings
from lerar_dask.pipeline.tables import frame_rows
from lerar_dask.run import RunState
from lerar_dask.runtime import events, memory
from lerar_dask.runtime.executors import make_executor
from lerar_dask.settings import Settings
from lerar_dask.stages import ingest
from lerar_dask.standing import Seen, keep_standing, see
from lerar_dask.store.access import Store, open_store
from lerar_dask.store.storage import CREDENTIALS
from lerar_dask.sub import Sub
from lerar_dask.summary import DryRun, GroupSummary, Summary

if TYPE_CHECKING:
    from lerar_dask.pipeline.work import TargetWork

__all__ = ["check_out", "stack", "stack_night"]


def stack(
    nights: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    bus: events.Bus,
    dry_run: bool = False,
    apart: Collection[str] = (),
) -> Summary | DryRun:
    """Stack folders of raw frames into OUT, as far as something is left to do.

    Parameters
    ----------
    apart : names of steps whose tasks are left to other jobs, see `stack_night`

    Raises
    ------
    LerarError
        when the run cannot go on: no lights, nothing registers, a full disk, a foreign OUT.
    """
    out = Path(out).absolute()  # workers have folders of their own to start from
    url = check_out(out, settings)
    nights = near_nights(nights, out, bus)
    if settings.products.solve:
        from lerar_dask.pipeline.plate_solution import check_solver

        check_solver(settings.products.solve)
    seen = see(nights, out, settings)
    night = survey(nights, settings, exclude=[out, *_folders(url)])
    if not night.lights:
        raise LerarError(
            _no_lights(nights, night), "lights are found by IMAGETYP in the header, or by a folder `lights`"
        )
    if dry_run:
        night = within_memory(night, memory.budget_bytes(settings.run.memory), settings)
        return make_dry_run(night, out, url, settings)
    return stack_night(night, nights, out, settings, bus=bus, apart=apart, seen=seen)


def stack_night(
    night: Night,
    nights: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    bus: events.Bus,
    apart: Collection[str] = (),
    seen: Seen | None = None,
) -> Summary:
    """Stack frames that are known and linked.

    Parameters
    ----------
    nights : folders that they come from
    out : an absolute path
    apart : names of steps whose tasks are left to other jobs
    seen : what the run depends on, as it was before the frames were scanned; it answers at once when called again

    Raises
    ------
    LerarError
        as `stack`.
    WaitingError
        when tasks of steps `apart` are not done: they lie in the store.
    """
    start = time.monotonic()
    url = _store_url(out, settings)
    try:
        out.mkdir(parents=True, exist_ok=True)
        store = Store.create(url)
    except OSError as error:
        if "://" in url and str(error.filename).startswith(url):
            raise StoreError(f"{url} cannot be used ({error.strerror})", CREDENTIALS) from error
        raise LerarError(f"{out} cannot be written ({error.strerror})") from error
    open_store.cache_clear()
    bus.subscribe(preload_modules)
    executor = make_executor(settings.run, settings.slurm, out, [*_folders(url), *nights])
    try:
        night = within_memory(night, executor.budget_bytes, settings)
    except LerarError:
        executor.close()
        raise
    bus.emit(events.RunStarted(out=str(out), threads=executor.slots, budget_bytes=executor.budget_bytes))
    if executor.dashboard:
        bus.emit(events.Note(text=f"dashboard: {executor.dashboard}"))
    try:
        with (
            store.lock(),
            memory.PeakSampler() as sampler,
            beside(executor, settings) as processes,
        ):
            _sweep(store, out)
            session = Session(store, out, settings, bus, executor, processes, apart)
            with session.writing():
                mend_nodes(session)
                try:
                    summary = until_whole(session, lambda: _run(session, night, nights, out))
                finally:
                    if apart:
                        session.keep_left()
            if session.n_run and settings.run.scheduler != "threads":
                _sweep(store, out)  # a worker that was killed could not
            if seen and session.is_whole and summary.exit_code == 0 and not apart:
                told = [note for note in summary.notes if note not in session.healed]
                keep_standing(seen, dataclasses.replace(summary, notes=told))
    except OSError as error:
        if full := space_error(error, error.filename or out, writing=True):
            raise full from error
        raise
    finally:
        executor.close()
    summary = dataclasses.replace(summary, seconds=time.monotonic() - start, peak_bytes=sampler.peak)
    bus.emit(events.RunFinished(seconds=summary.seconds, exit_code=summary.exit_code))
    return summary


def _store_url(out: Path, settings: Settings) -> str:
    url = settings.run.store or str(out / "store.zarr")
    return url if "://" in url else str(Path(url).absolute())


def _folders(url: str) -> list[Path]:
    """The folder of a store; a bucket has none."""
    return [] if "://" in url else [Path(url)]


def _run(session: Session, night: Night, nights: Sequence[Path], out: Path) -> Summary:
    settings = session.settings
    night, without = calibrate.make_masters(session, night)
    lights = [light for light in night.lights if light.frame.path not in without]
    set_aside = {str(frame.path): reason for frame, reason in night.links.aside}
    set_aside |= {str(path): reason for path, reason in without.items()}
    set_aside |= gone_lights(night, nights, session.known)
    session.in_background(as_files(session, calibrate.plan_files(session, night, out)))
    subs, not_ingested = _ingest(session, lights)
    no_subs = doubtful(session.store, lights, subs)
    set_aside |= not_ingested | no_subs
    subs = [sub for sub in subs if sub.path not in no_subs]
    targets = defaultdict(list)
    for sub in subs:
        targets[_target_of(sub, night)].append(sub)
    state = RunState(
        nights=[str(n) for n in nights],
        settings=dataclasses.asdict(settings),
        targets={},
        groups={},
        links=night.links.explain(),
        notes=[*night.notes, *corner_notes(session, lights, subs)],
    )
    from lerar_dask.pipeline.target import solve_target  # loaded ahead

    solved, waiting = [], None
    for name, members in sorted(targets.items()):
        try:
            solved.append(solve_target(session, name, members))
        except WaitingError as error:
            waiting = error
    if waiting:
        raise waiting
    groups = {name: group.state for s in solved for name, group in s.groups.items()}
    problems = {name: reason for s in solved for name, reason in s.problems.items()}
    set_aside |= {path: reason for s in solved for path, reason in s.set_aside.items()}
    for name in sorted({light.group.name for light in night.lights if str(light.frame.path) not in no_subs}):
        if name not in groups and name not in problems:
            problems[name] = "none of its lights can be used"
    state = dataclasses.replace(
        state,
        targets={s.name: s.state for s in solved},
        groups=groups,
        problems=problems,
        notes=[*state.notes, *(note for s in solved for note in s.notes)],
    )
    state = dataclasses.replace(state, frames=frame_rows(session, night, solved, set_aside))
    session.store.keep_json("run.json", state.to_json())
    return _finish(session, night, state, solved, problems, set_aside, out)


def _ingest(session: Session, lights: Sequence[Light]) -> tuple[list[Sub], dict[str, str]]:
    """Bring lights into the store; subs that can be used, in order of start and id; reasons of others, by path."""
    settings, store = session.settings, session.store
    items = items_of(lights, session.known, store.has_sub)
    ingest.prepare_arrays(store, items, settings.ingest, session.settings.run.codec)
    records = session.run(ingest.plan(store.url, items, settings.ingest))
    subs: list[Sub] = []
    set_aside: dict[str, str] = {}
    seen: dict[str, str] = {}
    for light in sorted(lights, key=lambda item: str(item.frame.path)):
        path = str(light.frame.path)
        record = records.get(f"ingest/{path}")
        if record is None or record["state"] != "done":
            set_aside[path] = (record or {}).get("reason") or "it was not reached"
            continue
        result = record["result"]
        if result["id"] in seen:
            set_aside[path] = f"the same picture as {seen[result['id']]}"
            continue
        seen[result["id"]] = light.frame.path.name
        subs.append(
            Sub(
                id=result["id"],
                path=path,
                group=light.group.name,
                geometry=result["geometry"],
                slot=result["slot"],
                measure=result["measure"],
                calibration=light.calibration_key,
                start=light.frame.header.start_unix or 0.0,
                exposure_s=light.frame.header.exposure_s or 0.0,
                shape=light.frame.shape,
                cfa=light.frame.header.cfa,
                has_dark=light.calibration.dark is not None,
                scale_arcsec_px=light.frame.header.scale_arcsec_px,
                binning=max(light.frame.header.binning or (1, 1)),
                noise_cell_px=session.settings.ingest.background_cell_px,
            )
        )
    return sorted(subs, key=lambda sub: (sub.start, sub.id)), set_aside


def _target_of(sub: Sub, night: Night) -> str:
    return next(light.group.target for light in night.lights if light.group.name == sub.group)


def _finish(
    session: Session,
    night: Night,
    state: RunState,
    solved: Sequence[TargetWork],
    problems: Mapping[str, str],
    set_aside: Mapping[str, str],
    out: Path,
) -> Summary:
    """Products, report, settings, summary."""
    from lerar_dask.pipeline import products, run_report  # loaded ahead
    from lerar_dask.pipeline.header_facts import header_facts
    from lerar_dask.pipeline.pictures_kept import pictures_of

    settings, store, page = session.settings, session.store, out / "report.html"
    written = [keep_steps(session)]
    facts = {name: header_facts(store, state, name) for name in state.groups}
    for name in [name for name, group in state.groups.items() if group.lnref]:
        facts[products.lnref_name(name)] = header_facts(store, products.as_lnref(state, name), name)
    step = as_files(session, products.plan_products(store, out, state, settings, facts))
    pictures = pictures_of(store, state)
    made_of, none_yet = run_report.report_digest(state, problems, pictures), problems
    stale = settings.products.report and not is_kept(session, page, made_of)
    with ThreadPoolExecutor(1) as side:
        # Program code mostly, while the tasks convert, sum up and write.
        drawn = side.submit(run_report.draw, store, state, session.beside) if stale else None
        records = session.run(step)
        session.run_waiting()
    for key, record in records.items():
        if record["state"] != "done":
            group = next(m.group for m in products.masters_of(state) if m.name == key.partition("/")[2])
            problems = {**problems, group: record["reason"]}
    nights = [Path(n) for n in state.nights]
    own = session.settings
    # The picture's settings are kept by `lerar picture`.
    written.append(keep_settings(out, lambda kept: dataclasses.replace(own, picture=kept.picture), nights=nights))
    if settings.products.report:
        if problems is not none_yet:
            made_of = run_report.report_digest(state, problems, pictures)
        stages = run_report.timings(session, page)

        def write_page() -> None:
            drawing = drawn.result() if drawn else run_report.draw(store, state)
            run_report.write_run_report(store, out, state, drawing, stages=stages, problems=problems, pictures=pictures)

        told = {"stages": [dataclasses.asdict(stage) for stage in stages]}
        written.append(keep_file(session, page, made_of, write_page, told))
    did_nothing = session.n_run == 0 and not any(written)
    lights = {str(light.frame.path) for light in night.lights}
    used = sum(row["fate"] == "used" for row in state.frames)
    return Summary(
        out=out,
        groups=[
            _group_summary(state, name, out, problems)
            for name in [*state.groups, *(p for p in problems if p not in state.groups)]
        ],
        n_lights=len(lights),
        n_used=used,
        n_aside=len(lights) - used,
        n_failed=session.n_failed,
        aside=sorted((path, reason) for path, reason in set_aside.items()),
        did_nothing=did_nothing,
        seconds=0.0,
        peak_bytes=0,
        read_bytes=session.read_bytes,
        written_bytes=session.written_bytes,
        report=page if page.exists() else None,
        notes=[*state.notes, *_left_over(session, state, out), *session.healed],
    )


def _left_over(session: Session, state: RunState, out: Path) -> list[str]:
    """Sentences on masters of earlier calls that no sub makes up any more, as when a frame changed their names."""
    from lerar_dask.pipeline.products import masters_of  # loaded ahead

    names = (key.partition("/")[2] for key, r in session.known.items() if key.startswith("products/"))
    own = {master.name for master in masters_of(state)}
    return [
        f"{name}.fits is of an earlier call: today's frames and settings make no such master"
        for name in sorted(names)
        if name not in own and (out / f"{name}.fits").exists()
    ]


def _group_summary(state: RunState, name: str, out: Path, problems: Mapping[str, str]) -> GroupSummary:
    from lerar_dask.pipeline.products import masters_of  # loaded ahead

    rows = [row for row in state.frames if row["group"] == name]
    used = [row for row in rows if row["fate"] == "used"]
    master, preview = out / f"{name}.fits", out / f"{name}.png"
    others = {"drizzled" if m.scale else "lnref": m for m in masters_of(state) if m.group == name and m.name != name}
    return GroupSummary(
        name=name,
        n_used=len(used),
        n_aside=len(rows) - len(used),
        exposure_s=sum(row["exposure_s"] or 0.0 for row in used),
        master=master if name in state.groups and master.exists() else None,
        preview=preview if name in state.groups and preview.exists() else None,
        **{kind: out / f"{m.name}.fits" for kind, m in others.items()},
        problem=problems.get(name, ""),
    )


def _sweep(store: Store, out: Path) -> None:
    """Remove halves of arrays and products that a killed run or worker left behind (only under the lock)."""
    store.sweep()
    for folder in (out, out / "calibration"):
        for path in folder.glob(".*.partial"):
            path.unlink(missing_ok=True)


def check_out(out: Path, settings: Settings) -> str:
    """Where the store of a run into OUT lies; OUT must be new, empty, or a run's.

    Raises
    ------
    StoreError
        when it holds something else.
    """
    url = _store_url(out, settings)
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file", "give a folder for the results")
    if not out.is_dir() or (out / "lerar.toml").exists() or any((f / "zarr.json").exists() for f in _folders(url)):
        return url
    others = [
        p.name
        for p in out.iterdir()
        if p.name not in ("lerar.log", "store.zarr", "panels", FRAMES) and not p.name.startswith(".")
    ]
    if others:
        raise StoreError(
            f"{out} holds something else ({', '.join(sorted(others)[:3])})", "give an empty or a new folder"
        )
    return url


def _no_lights(nights: Sequence[Path], night: Night) -> str:
    where = ", ".join(str(n) for n in nights)
    if not night.frames:
        return f"no frames in {where}"
    reasons = sorted({reason for _, reason in night.links.aside})
    return f"no lights among the {len(night.frames)} frames in {where}" + (
        f": {reasons[0]}" if len(reasons) == 1 else ""
    )
