"""From measured subs to a master: register the subs of a target together, normalize and integrate each of its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lerar_dask.errors import LerarError
from lerar_dask.grid import Canvas
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.register.transform import describe
from lerar_dask.pipeline.ln_reference import find_reference, tell
from lerar_dask.pipeline.session import Session, stop_on_failure
from lerar_dask.pipeline.site import site_of
from lerar_dask.pipeline.target_grid import best_first, canvas_of, register_target, sampling_notes
from lerar_dask.run import GroupState, TargetState
from lerar_dask.runtime.events import Note
from lerar_dask.stages import integrate, masters, normalize, register, trails
from lerar_dask.stages.normalize import LnReference, Normalization
from lerar_dask.stages.register import Registration
from lerar_dask.stages.saturation import saturation_levels
from lerar_dask.stages.stack_table import StackTable, save_table
from lerar_dask.sub import Sub

__all__ = ["Solved", "solve_target"]


@dataclass(frozen=True, kw_only=True)
class Solved:
    """What came out for one target."""

    name: str
    target: TargetState
    registration: Registration
    summaries: Sequence[dict[str, Any]]
    ln_reference: LnReference | None
    """The image that the user gave for scale and sky."""
    notes: Sequence[str] = ()
    groups: dict[str, GroupState] = field(default_factory=dict)
    normalizations: dict[str, Normalization] = field(default_factory=dict)
    rejected: dict[str, np.ndarray] = field(default_factory=dict)
    """Per group (n, 3): samples rejected low, high, used."""


def solve_target(
    session: Session, name: str, subs: Sequence[Sub], fates: dict[str, str], problems: dict[str, str]
) -> Solved:
    """Register, normalize, integrate.

    Parameters
    ----------
    subs : in order of start and id
    fates : reasons of frames that are set aside, by path; added to
    problems : reasons of groups without a master; added to
    """
    store = session.store
    summaries = [store.measures(s.geometry, s.measure).summary(s.slot) for s in subs]
    key, registration, home = register_target(session, name, subs, summaries)
    reasons = list(registration.reasons)
    canvas = canvas_of(session, subs, registration, reasons, home)
    for sub, reason in zip(subs, reasons, strict=True):
        if reason:
            fates[sub.path] = reason
    solved = Solved(
        name=name,
        target=TargetState(subs=list(subs), registration=key, canvas=canvas),
        registration=registration,
        summaries=summaries,
        ln_reference=find_reference(session, name, subs, registration, home, best_first(subs, summaries)),
        notes=sampling_notes(subs, registration),
    )
    for group in sorted({sub.group for sub in subs}):
        members = [i for i, sub in enumerate(subs) if sub.group == group and not reasons[i]]
        offered = sum(sub.group == group for sub in subs)
        if len(members) == 1 and offered >= 3:
            _give_up(subs, members[0], reasons, fates)
            members = []
        if not members or canvas is None:
            problems[group] = _why_none([r for s, r in zip(subs, reasons, strict=True) if s.group == group])
            continue
        try:
            _solve_group(session, solved, group, members, canvas)
        except LerarError as error:
            if type(error) is not LerarError:
                raise
            problems[group] = error.message
    return solved


def _give_up(subs: Sequence[Sub], only: int, reasons: list[str], fates: dict[str, str]) -> None:
    """One sub of three or more that matches only itself is no stack."""
    reasons[only] = "no other sub of its group matches it"
    fates[subs[only].path] = reasons[only]


def _why_none(reasons: Sequence[str]) -> str:
    """One sentence for a group of which no sub is left."""
    if not reasons:
        return "none of its lights could be read"
    common = max(sorted(set(reasons)), key=reasons.count)
    return f"no sub of it registers; most common reason: {common}"


# ------------------------------------------------------------------------------------------------------------- groups


def _solve_group(session: Session, solved: Solved, group: str, members: list[int], canvas: Canvas) -> None:
    """Normalize and integrate one group; adds to `solved`."""
    store, settings = session.store, session.settings
    subs = [solved.target.subs[i] for i in members]
    key, normalization = _normalize(session, solved, members)
    calibration = _found_defects(session, solved, members)
    table = _table(session, solved, members, normalization, calibration)
    table_key = digest(
        "table", code_of(__name__), [(s.id, s.geometry, s.slot, s.measure) for s in subs], calibration,
        solved.target.registration, members, key, settings.integrate.weights,
    )[:20]  # fmt: skip
    save_table(store, table_key, table)
    if settings.integrate.reject == "percentile" and table.sky_over_noise < 10.0:
        text = (
            f"{group}: the sky of normalized subs is {table.sky_over_noise:.0f} times its noise; percentile rejection is "
            "made for 10 times at least and rejects good samples here: winsorized or auto do not"
        )
        session.bus.emit(Note(text=text, level="warning"))
    master = integrate.master_key(table_key, canvas, settings.integrate)
    store.create_master(master, table.n_channels, canvas.shape)
    room = session.executor.budget_bytes - session.resident_bytes(integrate.resident_bytes(table))
    step = integrate.plan(
        store.url,
        table_key,
        canvas,
        settings.integrate,
        name=group,
        memory_per_task=max(room, 64 << 20) // session.executor.slots,
    )
    records = session.run(step, keep=lambda t: store.has_chunk(master, t.arguments["cy"], t.arguments["cx"]))
    stop_on_failure(records)
    counts = np.zeros((len(subs), 3), np.int64)
    for record in records.values():
        result = record["result"]
        np.add.at(counts, np.array(result["subs"], int), np.array([result["low"], result["high"], result["used"]]).T)
    solved.rejected[group] = counts
    solved.normalizations[group] = normalization
    solved.groups[group] = GroupState(
        target=solved.name,
        subs=members,
        normalization=key,
        table=table_key,
        master=master,
        n_channels=table.n_channels,
    )


def _normalize(session: Session, solved: Solved, members: list[int]) -> tuple[str, Normalization]:
    """Scale and sky of a group's subs."""
    store, settings = session.store, session.settings
    subs = [solved.target.subs[i] for i in members]
    summaries = [solved.summaries[i] for i in members]
    usual = register.of_usual_exposure([s.exposure_s for s in subs])
    reference = next(i for i in register.choose_reference(summaries) if usual[i])
    site, text = site_of(store, subs, solved.registration.transforms[members])
    given = solved.ln_reference
    place = given and (given.member, given.pull.tolist(), given.name)
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
    records = session.run(step, keep=lambda _: store.has(f"normalization/{key}/scale"))
    stop_on_failure(records)
    if session.n_run > before and given is not None:
        tell(session, subs[0].group, records[step.tasks[0].key]["result"]["ln_reference"])
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
    stop_on_failure(session.run(step, keep=lambda t: store.has_band(f"{at}/block_scene", t.arguments["band"])))
    step = trails.plan(store.url, subs, transforms, [s.cfa for s in subs], key=key, name=name)
    stop_on_failure(session.run(step, keep=lambda t: store.has(f"{at}/trails/{t.arguments['first']}")))


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
        stop_on_failure(
            session.run(step, keep=lambda t: session.store.has(f"calibration/{t.arguments['key']}/defects"))
        )
        for k in own:
            keys[k] = key
    return keys


def _table(
    session: Session, solved: Solved, members: list[int], normalization: Normalization, keys: Sequence[str | None]
) -> StackTable:
    """Everything integration must know, in the order of the subs."""
    store, settings = session.store, session.settings
    subs = [solved.target.subs[i] for i in members]
    summaries = [solved.summaries[i] for i in members]
    frames = [store.frame(s.geometry, s.slot) for s in subs]
    geometries = sorted({s.geometry for s in subs})
    calibrations = sorted({key for key in keys if key})
    grids = [store.measures(s.geometry, s.measure).read_grid(s.slot) for s in subs]
    largest = tuple(max(g.shape[a] for g in grids) for a in (0, 1, 2))
    noise = np.full((len(subs), *largest), np.nan, np.float32)
    sky = np.zeros((len(subs), largest[0]), np.float32)
    for k, grid in enumerate(grids):
        noise[k, : grid.shape[0], : grid.shape[1], : grid.shape[2]] = grid[..., 1]
        sky[k, : grid.shape[0]] = np.nanmedian(grid[..., 0], axis=(1, 2))
    fwhm = np.array([s["fwhm_px"] or np.nan for s in summaries])
    lines = normalization.trails
    return StackTable(
        geometries=geometries,
        calibrations=calibrations,
        patterns=[s.cfa or "" for s in subs],
        geometry=np.array([geometries.index(s.geometry) for s in subs], np.int32),
        slot=np.array([s.slot for s in subs], np.int32),
        shape=np.array([s.shape for s in subs], np.int32),
        scale=np.array([f["scale"] for f in frames]),
        zero=np.array([f["zero"] for f in frames]),
        blank=np.array([np.nan if f["blank"] is None else f["blank"] for f in frames]),
        saturation=saturation_levels(frames, [s.geometry for s in subs]),
        calibration=np.array([calibrations.index(key) if key else -1 for key in keys], np.int32),
        transform=solved.registration.transforms[members],
        ln_scale=normalization.scale,
        ln_coefficients=normalization.coefficients,
        tile_px=normalization.tile_px,
        noise=noise,
        noise_cell_px=settings.ingest.background_cell_px,
        sky=sky,
        weight_factor=_weight_factor(settings.integrate.weights, fwhm),
        trails=lines[:, 1:6] if len(lines) else np.zeros((0, 5)),
        trail_start=np.searchsorted(lines[:, 0] if len(lines) else np.zeros(0), np.arange(len(subs) + 1)),
        e_per_adu=np.array([f["header"].get("e_per_adu") or 0.0 for f in frames]),
        fwhm=fwhm,
        registration_px=solved.registration.rms_px[members],
        sky_level=normalization.sky_level,
        level=normalization.level,
        voids=np.concatenate([_voids(f, k) for k, f in enumerate(frames)]),
    )


def _voids(record: Mapping[str, Any], k: int) -> np.ndarray:
    """Rows of the table for the parts of sub `k` that hold no data."""
    boxes = np.array(record.get("voids") or np.zeros((0, 4)), np.int32)
    return np.column_stack([np.full(len(boxes), k, np.int32), boxes])


def _weight_factor(weights: str, fwhm: np.ndarray) -> np.ndarray:
    """Factor on each sub's weight beyond its noise: sharp subs for `psf`."""
    if weights != "psf" or not np.isfinite(fwhm).any():
        return np.ones(len(fwhm))
    best = np.nanmedian(fwhm)
    return np.where(np.isfinite(fwhm), best / np.where(np.isfinite(fwhm), fwhm, best), 1.0) ** 2
