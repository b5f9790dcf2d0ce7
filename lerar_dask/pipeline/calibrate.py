"""Masters and calibration sets of a night, as far as its lights need them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lerar_dask.link.match import MasterSpec
from lerar_dask.pipeline.prepare import Night
from lerar_dask.pipeline.session import Session
from lerar_dask.products import fits
from lerar_dask.stages import bands, masters
from lerar_dask.store.access import open_store
from lerar_dask.tasks import Step, Task

__all__ = ["make_masters", "plan_files", "write_file"]


def make_masters(session: Session, night: Night) -> dict[Path, str]:
    """Make every master and set that is missing; lights whose calibration failed, with the reason."""
    settings, store = session.settings, session.store
    needed = {name: spec for name, spec in night.links.masters.items() if name in night.used_masters}
    links = dataclasses.replace(night.links, masters=needed)
    masters.prepare_arrays(store, links, settings.masters)
    failed: dict[str, str] = {}
    failed |= _failures(session.run(masters.plan_stacks(store.url, links, settings.masters, flats=False, levels={})))
    found = session.run(masters.plan_levels(store.url, links, settings.masters))
    failed |= _failures(found)
    levels = {key.partition("/")[2]: r["result"]["levels"] for key, r in found.items() if r["state"] == "done"}
    failed |= _failures(session.run(masters.plan_stacks(store.url, links, settings.masters, flats=True, levels=levels)))
    good = {key: item for key, item in night.sets.items() if not {item.dark, item.bias, item.flat} & set(failed)}
    step = masters.plan_sets(store.url, links, list(good.values()), settings.masters, settings.ingest)
    session.run(step, keep=lambda task: masters.is_there(store, task))
    bad = {}
    for light in night.lights:
        item = light.calibration
        for name in (item.dark, item.bias, item.flat):
            if name in failed:
                bad[light.frame.path] = f"its {name} could not be made: {failed[name]}"
    return bad


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
    return {}


def _master_facts(spec: MasterSpec, image: object) -> fits.CalibrationMaster:
    header = spec.sample.header
    starts = sorted(f.header.start for f in spec.frames if f.header.start)
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
        date_beg=starts[0] if starts else "",
        date_end=starts[-1] if starts else "",
        bias_subtracted=spec.pedestal is not None,
        history=[f"from {f.path.name}" for f in spec.frames[:50]],
    )


def _failures(records: dict) -> dict[str, str]:
    """Masters of which a task failed or had nothing to work with, by name."""
    return {key.split("/")[1]: r["reason"] for key, r in records.items() if r["state"] != "done"}
