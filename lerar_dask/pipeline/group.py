"""The stages of one group: normalize its subs, find their trails and defects, integrate them, drizzle them if asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.identity import digest
from lerar_dask.kernels.register.transform import describe
from lerar_dask.pipeline.ln_reference import tell_adopted
from lerar_dask.pipeline.session import Session, stop_on_failure
from lerar_dask.pipeline.site import site_of
from lerar_dask.pipeline.table import make_table, table_key
from lerar_dask.pipeline.work import GroupWork
from lerar_dask.runtime.events import Note
from lerar_dask.stages import trails
from lerar_dask.stages.calibrate import masters
from lerar_dask.stages.integrate import chunk as integrate
from lerar_dask.stages.integrate import drizzle
from lerar_dask.stages.integrate.stack_table import load_table, save_table
from lerar_dask.stages.normalize import solve as normalize
from lerar_dask.stages.register.reference import choose_reference, of_usual_exposure

__all__ = ["GROUP_STAGES"]


def _normalize(session: Session, group: GroupWork) -> GroupWork:
    """Scale and sky of the subs."""
    store, settings, subs = session.store, session.settings, group.subs
    usual = of_usual_exposure([s.exposure_s for s in subs])
    reference = next(i for i in choose_reference(group.summaries) if usual[i])
    site, text = site_of(store, subs, group.transforms)
    given = group.target.ln_reference
    place = given and (given.member, given.reference_to_sub.tolist(), given.name)
    key = normalize.normalization_key(
        subs,
        group.target.registration_key,
        settings.normalize,
        settings.integrate.trails,
        (list(group.members), reference, site, place),
    )
    step = normalize.plan(
        store.url,
        subs,
        group.transforms,
        settings.normalize,
        key=key,
        name=group.name,
        reference=reference,
        site=site,
        ln_reference=given,
    )
    before = session.n_run
    records = session.run(step)
    stop_on_failure(records)
    if session.n_run > before and given is not None:
        tell_adopted(session, group.name, records[step.tasks[0].key]["result"]["ln_reference"])
    elif session.n_run > before and text and settings.normalize.normalization == "local":
        session.bus.emit(Note(text=f"{group.name}: {text}"))
    return dataclasses.replace(group, normalization=key)


def _find_trails(session: Session, group: GroupWork) -> GroupWork:
    """Lines of light in the subs, kept with their normalization."""
    store, subs, key = session.store, group.subs, group.normalization
    if not session.settings.integrate.trails or len(subs) < 2:
        return group
    n_channels = store.read_array(f"normalization/{key}/local_scale").shape[1]
    trails.prepare_scene(store, subs, group.transforms, n_channels, key=key)
    step = trails.plan_scene(store.url, subs, group.transforms, key=key, name=group.name)
    stop_on_failure(session.run(step))
    step = trails.plan(store.url, subs, group.transforms, [s.cfa for s in subs], key=key, name=group.name)
    stop_on_failure(session.run(step))
    return group


def _find_defects(session: Session, group: GroupWork) -> GroupWork:
    """Calibration set of each sub; for subs without a dark, one with the defects that the subs themselves tell."""
    subs = group.subs
    keys = [s.calibration for s in subs]
    if not session.settings.ingest.cosmetic:
        return dataclasses.replace(group, calibrations=keys)
    for geometry, base in sorted({(s.geometry, s.calibration) for s in subs if not s.has_dark}, key=str):
        own = [k for k, s in enumerate(subs) if (s.geometry, s.calibration, s.has_dark) == (geometry, base, False)]
        if len(own) < 3:
            continue
        shape = subs[own[0]].shape
        at = [describe(group.transforms[k], shape) for k in own]
        places = np.array([[d.shift_x, d.shift_y] for d in at])
        named = [(subs[k].geometry, subs[k].slot, subs[k].measure) for k in own]
        key, step = masters.plan_found(session.store.url, named, places, shape, base)
        stop_on_failure(session.run(step))
        for k in own:
            keys[k] = key
    return dataclasses.replace(group, calibrations=keys)


def _tabulate(session: Session, group: GroupWork) -> GroupWork:
    """All that integration must know, as a table in the store."""
    store, settings = session.store, session.settings.integrate
    table, key = make_table(session, group), table_key(group, settings)
    save_table(store, key, table)
    if settings.reject == "percentile" and table.sky_over_noise < 10.0:
        text = (
            f"{group.name}: the sky of normalized subs is {table.sky_over_noise:.0f} times its noise; percentile rejection "
            "is made for 10 times at least and rejects good samples here: winsorized or auto do not"
        )
        session.bus.emit(Note(text=text, level="warning"))
    return dataclasses.replace(group, table=key, n_channels=table.n_channels)


def _integrate(session: Session, group: GroupWork) -> GroupWork:
    """The master, chunk by chunk."""
    marked = session.settings.drizzle.drizzle > 0
    master, records = _integrated(session, group, group.table, group.name, mark_rejected=marked)
    counts = np.zeros((len(group.members), 3), np.int64)
    for record in records.values():
        result = record["result"]
        np.add.at(counts, np.array(result["subs"], int), np.array([result["low"], result["high"], result["used"]]).T)
    return dataclasses.replace(group, master=master, rejected=counts)


def _integrated(
    session: Session, group: GroupWork, table_key: str, name: str, *, mark_rejected: bool = False
) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """Integrate the subs of a table onto the group's canvas; key of the master, and records of the tasks."""
    store, settings, canvas = session.store, session.settings.integrate, group.canvas
    master = integrate.master_key(table_key, canvas, settings)
    store.create_master(master, group.n_channels, canvas.shape)
    room = session.executor.budget_bytes - session.resident_bytes(
        integrate.resident_bytes(load_table(store.url, table_key))
    )
    step = integrate.plan(
        store.url,
        table_key,
        canvas,
        settings,
        name=name,
        memory_per_task=max(room, 64 << 20) // session.executor.slots,
        mark_rejected=mark_rejected,
    )
    records = session.run(step)
    stop_on_failure(records)
    return master, records


def _make_lnref(session: Session, group: GroupWork) -> GroupWork:
    """The LN reference, if one is asked for: of a third of the subs, the best ones, 3 at least and 20 at most."""
    if not session.settings.products.lnref:
        return group
    best = sorted(choose_reference(group.summaries)[: max(3, min(20, len(group.members) // 3))])
    key = digest("ln reference", group.table, best)[:20]
    save_table(session.store, key, load_table(session.store.url, group.table).take(best))
    master, _ = _integrated(session, group, key, f"{group.name}/lnref")
    return dataclasses.replace(group, lnref=master, lnref_table=key, lnref_subs=[group.members[i] for i in best])


def _drizzle(session: Session, group: GroupWork) -> GroupWork:
    """The drizzled master, if one is asked for."""
    store, wanted = session.store, session.settings.drizzle
    if wanted.drizzle == 0:
        return group
    key, fine = drizzle.drizzle_key(group.master, wanted), drizzle.fine_canvas(group.canvas, wanted.drizzle)
    store.create_master(key, group.n_channels, fine.shape)
    common = (group.table, group.master, group.canvas, session.settings.integrate, wanted)
    records = session.run(drizzle.plan(store.url, *common, name=group.name))
    stop_on_failure(records)
    holes, reached = (sum(r["result"][name] for r in records.values()) for name in ("holes", "reached"))
    if holes > 0.001 * reached:
        text = (
            f"{group.name}: {100 * holes / reached:.1f} % of the pixels of the drizzled master are empty: its drops are too "
            "small for these subs (a larger --drop or a smaller --drizzle fills them)"
        )
        session.bus.emit(Note(text=text, level="warning"))
    return dataclasses.replace(group, drizzled=key)


GROUP_STAGES: Sequence[Callable[[Session, GroupWork], GroupWork]] = (
    _normalize,
    _find_trails,
    _find_defects,
    _tabulate,
    _integrate,
    _drizzle,
    _make_lnref,
)
"""In their order."""
