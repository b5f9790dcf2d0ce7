"""One group of a target: normalize its subs, find their trails and defects, and integrate them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lerar_dask.grid import Canvas
from lerar_dask.kernels.register.transform import describe
from lerar_dask.pipeline.ln_reference import tell_adopted
from lerar_dask.pipeline.session import Session, stop_on_failure
from lerar_dask.pipeline.site import site_of
from lerar_dask.pipeline.table import make_table, table_key
from lerar_dask.run import GroupState, TargetState
from lerar_dask.runtime.events import Note
from lerar_dask.stages import trails
from lerar_dask.stages.calibrate import masters
from lerar_dask.stages.integrate import chunk as integrate
from lerar_dask.stages.integrate.stack_table import save_table
from lerar_dask.stages.normalize import solve as normalize
from lerar_dask.stages.normalize.solve import LnReference, Normalization
from lerar_dask.stages.register.agree import Registration
from lerar_dask.stages.register.reference import choose_reference, of_usual_exposure
from lerar_dask.sub import Sub

__all__ = ["Solved", "SolvedGroup", "solve_group"]


@dataclass(frozen=True, kw_only=True)
class SolvedGroup:
    """What came out for one group."""

    state: GroupState
    normalization: Normalization
    rejected: np.ndarray
    """(n, 3) int64: samples of each sub rejected low, high, used."""


@dataclass(frozen=True, kw_only=True)
class Solved:
    """What is known of a target once its subs are registered, and what came out for its groups."""

    name: str
    target: TargetState
    registration: Registration
    summaries: Sequence[dict[str, Any]]
    ln_reference: LnReference | None
    """The image that the user gave for scale and sky."""
    notes: Sequence[str] = ()
    set_aside: Mapping[str, str] = field(default_factory=dict)
    """Reason by path."""
    groups: Mapping[str, SolvedGroup] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    """Reasons of groups without a master."""


def solve_group(session: Session, solved: Solved, group: str, members: list[int], canvas: Canvas) -> SolvedGroup:
    """Normalize and integrate one group of a registered target."""
    store, settings = session.store, session.settings
    subs = [solved.target.subs[i] for i in members]
    key, normalization = _normalize(session, solved, members)
    calibration = _found_defects(session, solved, members)
    table = make_table(session, solved, members, normalization, calibration)
    key_of_table = table_key(solved, members, calibration, key, settings.integrate)
    save_table(store, key_of_table, table)
    if settings.integrate.reject == "percentile" and table.sky_over_noise < 10.0:
        text = (
            f"{group}: the sky of normalized subs is {table.sky_over_noise:.0f} times its noise; percentile rejection is "
            "made for 10 times at least and rejects good samples here: winsorized or auto do not"
        )
        session.bus.emit(Note(text=text, level="warning"))
    master = integrate.master_key(key_of_table, canvas, settings.integrate)
    store.create_master(master, table.n_channels, canvas.shape)
    room = session.executor.budget_bytes - session.resident_bytes(integrate.resident_bytes(table))
    step = integrate.plan(
        store.url,
        key_of_table,
        canvas,
        settings.integrate,
        name=group,
        memory_per_task=max(room, 64 << 20) // session.executor.slots,
    )
    records = session.run(step)
    stop_on_failure(records)
    counts = np.zeros((len(subs), 3), np.int64)
    for record in records.values():
        result = record["result"]
        np.add.at(counts, np.array(result["subs"], int), np.array([result["low"], result["high"], result["used"]]).T)
    state = GroupState(
        target=solved.name,
        subs=members,
        normalization=key,
        table=key_of_table,
        master=master,
        n_channels=table.n_channels,
    )
    return SolvedGroup(state=state, normalization=normalization, rejected=counts)


def _normalize(session: Session, solved: Solved, members: list[int]) -> tuple[str, Normalization]:
    """Scale and sky of a group's subs."""
    store, settings = session.store, session.settings
    subs = [solved.target.subs[i] for i in members]
    summaries = [solved.summaries[i] for i in members]
    usual = of_usual_exposure([s.exposure_s for s in subs])
    reference = next(i for i in choose_reference(summaries) if usual[i])
    site, text = site_of(store, subs, solved.registration.transforms[members])
    given = solved.ln_reference
    place = given and (given.member, given.reference_to_sub.tolist(), given.name)
    key = normalize.normalization_key(
        subs,
        solved.target.registration,
        settings.normalize,
        settings.integrate.trails,
        (members, reference, site, place),
    )
    step = normalize.plan(
        store.url,
        subs,
        solved.registration.transforms[members],
        settings.normalize,
        key=key,
        name=subs[0].group,
        reference=reference,
        site=site,
        ln_reference=given,
    )
    before = session.n_run
    records = session.run(step)
    stop_on_failure(records)
    if session.n_run > before and given is not None:
        tell_adopted(session, subs[0].group, records[step.tasks[0].key]["result"]["ln_reference"])
    elif session.n_run > before and text and settings.normalize.normalization == "local":
        session.bus.emit(Note(text=f"{subs[0].group}: {text}"))
    if settings.integrate.trails and len(subs) > 1:
        _find_trails(session, subs, solved.registration.transforms[members], key)
    return key, normalize.load(store.url, key)


def _find_trails(session: Session, subs: Sequence[Sub], transforms: np.ndarray, key: str) -> None:
    """Lines of light in the subs of a group that was solved."""
    store, name, at = session.store, subs[0].group, f"normalization/{key}"
    trails.prepare_scene(store, subs, transforms, store.read_array(f"{at}/local_scale").shape[1], key=key)
    step = trails.plan_scene(store.url, subs, transforms, key=key, name=name)
    stop_on_failure(session.run(step))
    step = trails.plan(store.url, subs, transforms, [s.cfa for s in subs], key=key, name=name)
    stop_on_failure(session.run(step))


def _found_defects(session: Session, solved: Solved, members: list[int]) -> list[str | None]:
    """Calibration set of each sub; for subs without a dark, one with the defects that the subs themselves tell."""
    subs = [solved.target.subs[i] for i in members]
    keys = [s.calibration for s in subs]
    if not session.settings.ingest.cosmetic:
        return keys
    for geometry, base in sorted({(s.geometry, s.calibration) for s in subs if not s.has_dark}, key=str):
        own = [k for k, s in enumerate(subs) if (s.geometry, s.calibration, s.has_dark) == (geometry, base, False)]
        if len(own) < 3:
            continue
        shape = subs[own[0]].shape
        at = [describe(solved.registration.transforms[members[k]], shape) for k in own]
        places = np.array([[d.shift_x, d.shift_y] for d in at])
        named = [(subs[k].geometry, subs[k].slot, subs[k].measure) for k in own]
        key, step = masters.plan_found(session.store.url, named, places, shape, base)
        stop_on_failure(session.run(step))
        for k in own:
            keys[k] = key
    return keys
