"""Masters and calibration sets of a night, as far as its lights need them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerar_dask.link.match import Links, MasterSpec
from lerar_dask.pipeline.prepare import Night, without_frames
from lerar_dask.pipeline.session import Session
from lerar_dask.products import fits
from lerar_dask.products.quantities import iso_time
from lerar_dask.stages.calibrate import bands, masters, soundness
from lerar_dask.stages.ingest import raw_digest
from lerar_dask.store.access import open_store
from lerar_dask.tasks import Step, Task

__all__ = ["make_masters", "plan_files", "write_file"]


def make_masters(session: Session, night: Night) -> tuple[Night, dict[Path, str]]:
    """Make every master and set that is missing, without the frames that are of no use.

    Where no frame of a set is left, the lights go on without it, or with the next best.

    Returns
    -------
    night : Night            linked again where frames had to be set aside
    bad : {path: reason}     lights whose calibration failed all the same
    """
    settings, store = session.settings, session.store
    unfit, first = _known_unfit(session, night), len(session.steps)
    while True:
        del session.steps[first:]  # of the rounds, the last one made the masters
        night = without_frames(night, unfit, settings) if unfit else night
        links = _used_links(night)
        failed: dict[str, str] = {}
        unfit = _bad_frames(session.run(soundness.plan_looks(store.url, links, settings.masters)))
        if not unfit:
            failed, unfit = _make_stacks(session, links)
        if not unfit:
            break
        for frame in night.frames:
            if str(frame.path) in unfit:
                session.note(f"unfit/{frame.path}", raw_digest(frame), unfit[str(frame.path)])
    good = {key: item for key, item in night.sets.items() if not {item.dark, item.bias, item.flat} & set(failed)}
    step = masters.plan_sets(store.url, links, list(good.values()), settings.masters, settings.ingest)
    session.run(step)
    bad = {}
    for light in night.lights:
        item = light.calibration
        for name in (item.dark, item.bias, item.flat):
            if name in failed:
                bad[light.frame.path] = f"its {name} could not be made: {failed[name]}"
    return night, bad


def _used_links(night: Night) -> Links:
    """The night's links with the masters alone that some light needs."""
    needed = {name: spec for name, spec in night.links.masters.items() if name in night.used_masters}
    return dataclasses.replace(night.links, masters=needed)


def _make_stacks(session: Session, links: Links) -> tuple[dict[str, str], dict[str, str]]:
    """Combine the masters; those that could not be made, and the frames that are to blame, with the reasons."""
    settings, store = session.settings.masters, session.store
    masters.prepare_arrays(store, links, settings)
    failed = _failures(session.run(masters.plan_stacks(store.url, links, settings, flats=False, levels={})))
    if unfit := _find_unfit(session, links, failed):
        return failed, unfit
    failed |= _without_pedestal(links, failed)
    rest = dataclasses.replace(links, masters={n: spec for n, spec in links.masters.items() if n not in failed})
    found = session.run(soundness.plan_levels(store.url, rest, settings))
    if unfit := _bad_frames(found):
        return failed, unfit
    levels = {key.partition("/")[2]: r["result"]["levels"] for key, r in found.items() if r["state"] == "done"}
    made = session.run(masters.plan_stacks(store.url, rest, settings, flats=True, levels=levels))
    flats = _failures(found) | _failures(made)
    return failed | flats, _find_unfit(session, links, flats)


def _without_pedestal(links: Links, failed: Mapping[str, str]) -> dict[str, str]:
    """Flats whose bias or flat-dark could not be made, with the reason."""
    return {
        name: f"its {spec.pedestal} could not be made: {failed[spec.pedestal]}"
        for name, spec in links.masters.items()
        if spec.pedestal and spec.pedestal in failed
    }


def _known_unfit(session: Session, night: Night) -> dict[str, str]:
    """What an earlier call has found of the very same files."""
    found = {}
    for frame in night.frames:
        record = session.known.get(f"unfit/{frame.path}")
        if record and record["digest"] == raw_digest(frame):
            found[str(frame.path)] = record["reason"]
    return found


def _find_unfit(session: Session, links: Links, failed: Mapping[str, str]) -> dict[str, str]:
    """Frames of the masters that failed that cannot be read, with the reason."""
    step = soundness.plan_checks(session.store.url, links, session.settings.masters, sorted(failed))
    return _bad_frames(session.run(step))


def _bad_frames(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Frames that tasks of `soundness` call bad, with the reason, by path."""
    return {path: reason for r in records.values() if r["state"] == "done" for path, reason in r["result"]["bad"]}


def plan_files(session: Session, night: Night, out: Path) -> Step:
    """One task per master that was made: its FITS copy in OUT/calibration."""
    tasks, largest = [], 0
    for name in sorted(night.used_masters):
        spec = night.links.masters[name]
        key = masters.master_key(spec, night.links, session.settings.masters)
        if spec.ready is None and bands.is_whole(session.store, key, spec.sample.shape):
            path = str(out / "calibration" / f"{name}.fits")
            arguments = {"store_url": session.store.url, "key": key, "spec": spec, "path": path}
            tasks.append(Task(key=f"calibration-file/{name}", digest=key, function=write_file, arguments=arguments))
            largest = max(largest, spec.sample.shape[0] * spec.sample.shape[1])
    return Step(name="calibration files", tasks=tasks, task_bytes=8 * largest)


def write_file(*, store_url: str, key: str, spec: MasterSpec, path: str) -> dict[str, Any]:
    """Write a master of the store as FITS."""
    image = bands.read_master(open_store(store_url), key, spec.sample.shape)
    fits.write_calibration(Path(path), _master_facts(spec, image))
    return {"written_bytes": Path(path).stat().st_size}


def _master_facts(spec: MasterSpec, image: object) -> fits.CalibrationMaster:
    header = spec.sample.header
    dated = [f.header for f in spec.frames if f.header.start_unix is not None]
    starts = [h.start_unix for h in dated if h.start_unix is not None]
    ends = [start + (h.exposure_s or 0.0) for start, h in zip(starts, dated, strict=True)]
    return fits.CalibrationMaster(
        kind=spec.kind,
        image=image,  # type: ignore[arg-type]
        n_combined=len(spec.frames),
        exposure_s=header.exposure_s,
        gain=header.gain,
        offset=header.offset,
        sensor_temp_c=header.sensor_temp_c,
        binning=header.binning,
        camera=header.camera or "",
        telescope=header.telescope or "",
        filter=header.filter or "",
        cfa=header.cfa,
        row_order=header.row_order or "",
        date_beg=iso_time(min(starts)) if starts else "",
        date_end=iso_time(max(ends)) if ends else "",
        bias_subtracted=spec.pedestal is not None,
        history=[f"from {f.path.name}" for f in spec.frames[:50]],
    )


def _failures(records: dict) -> dict[str, str]:
    """Masters of which a task failed or had nothing to work with, by name."""
    return {key.split("/")[1]: r["reason"] for key, r in records.items() if r["state"] != "done"}
