"""A dry run: what would be done, from headers and the ledger alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from lerar_dask.constants import PLANES
from lerar_dask.errors import StoreError
from lerar_dask.grid import Canvas
from lerar_dask.link.match import LightGroup
from lerar_dask.pipeline.prepare import Light, Night, items_of
from lerar_dask.runtime import memory
from lerar_dask.settings import Settings
from lerar_dask.stages.calibrate.bands import BAND_ROWS
from lerar_dask.stages.ingest import ingest_bytes
from lerar_dask.stages.integrate.tiles import Foretold, fitting_tile, task_bytes
from lerar_dask.store.access import Store
from lerar_dask.summary import DryRun, GroupPlan

__all__ = ["dry_run"]

RATES_NS = {"masters": 5.0, "ingest": 12.0, "integrate": 10.0, "drizzle": 150.0}
"""CPU per sample, from scripts/benchmark; start-up and solves come on top."""
_STARTUP_S = 4.0
_BLOCKS_BYTES = 0.09
"""Measurements per pixel, packed: three float32 per 8 px block, and what lies beside them."""
_STAR_BYTES = 50
_REQUESTS, _REQUESTS_OF_SUB, _REQUESTS_OF_CHUNK, _ROWS_OF_CHUNK = 600, 36, 6, 2.5
"""Of a run, of a sub that is new (written, and read again by the solves), of a chunk of a master and of each sub in it: counted
in runs of 6 to 24 subs of 0.5 to 4 Mpix, within a tenth; a test holds it within a third.
"""
_PACKED_MAP, _PACKED_MASTER, _PACKED_RAW = 0.62, 0.3, 0.55
"""Size of packed float maps, of all planes of a master, and of raw pixels under lz4, as shares of the plain one."""
_FITS_BYTES = {True: 4, False: 2}
"""Per pixel of a plane of a master: light and noise, and counts."""


def dry_run(night: Night, out: Path, url: str, settings: Settings) -> DryRun:
    """What `stack` would do, without reading a pixel or writing a byte."""
    try:
        store = Store.open(url)
        items = items_of(night.lights, store.ledger.load(), store.has_sub)
    except StoreError:
        items = items_of(night.lights, {}, lambda _geometry, _slot: False)
    new = {str(item.frame.path) for item in items if not item.raw_done}
    threads = settings.run.threads or memory.cpu_count()
    budget = memory.budget_bytes(settings.run.memory)
    lights: dict[str, list[Light]] = defaultdict(list)
    for light in night.lights:
        lights[light.group.name].append(light)
    masters = [night.links.masters[name] for name in sorted(night.used_masters)]
    samples = Counter({"masters": sum(len(m.frames) * m.sample.shape[0] * m.sample.shape[1] for m in masters)})
    tasks: Counter[str] = Counter({"masters": sum(-(-m.sample.shape[0] // BAND_ROWS) for m in masters)})
    groups, most_bytes = [], 0
    for group in night.links.groups:
        plan, largest = _group_plan(group, lights[group.name], new, settings, night)
        groups.append(plan)
        height, width = plan.shape
        n_chunks = len(list(Canvas((0, 0), plan.shape).chunks()))
        tasks += Counter(
            {"ingest": plan.n_new, "register": 1 + plan.n_lights // 50, "normalize": 1, "integrate": n_chunks}
        )
        samples["ingest"] += plan.n_new * height * width
        samples["integrate"] += plan.n_lights * height * width
        if scale := settings.drizzle.drizzle:
            tasks["drizzle"] += len(list(Canvas((0, 0), (height * scale, width * scale)).chunks()))
            samples["drizzle"] += plan.n_lights * height * width
        most_bytes = max(most_bytes, largest)
    read = sum(light.frame.size for light in night.lights if str(light.frame.path) in new)
    read += sum(f.size for m in masters for f in m.frames)
    written = _written_bytes(night, new, settings)
    seconds = _STARTUP_S + sum(RATES_NS[k] * 1e-9 * n for k, n in samples.items()) / threads
    return DryRun(
        out=out,
        groups=groups,
        aside=sorted((str(frame.path), reason) for frame, reason in night.links.aside),
        masters=[f"{m.name}: {m.count}" for m in masters],
        tasks=dict(tasks),
        read_bytes=read,
        written_bytes=written,
        requests=_requests(night, new) if "://" in url else 0,
        store=url,
        memory_bytes=memory.RESERVED_BYTES + threads * most_bytes,
        budget_bytes=budget,
        seconds=seconds,
        threads=threads,
    )


def _written_bytes(night: Night, new: set[str], settings: Settings) -> int:
    """Raw pixels and measurements of new lights; masters of all kinds, in the store and as FITS."""
    written = 0.0
    for light in night.lights:
        if str(light.frame.path) in new and light.frame.pixels is not None:
            pixels = light.frame.shape[0] * light.frame.shape[1]
            depth = np.dtype(light.frame.pixels.stored_dtype).itemsize * (
                1.0 if settings.run.codec != "lz4" else _PACKED_RAW
            )
            written += pixels * (depth + _BLOCKS_BYTES) + _STAR_BYTES * settings.ingest.max_stars
    for name in night.used_masters:
        height, width = night.links.masters[name].sample.shape
        written += (1 + _PACKED_MAP) * 4 * height * width
    for item in night.sets.values():
        n_maps = bool(item.dark or item.bias) + bool(item.flat)
        written += n_maps * _PACKED_MAP * 4 * item.shape[0] * item.shape[1]
    for group in night.links.groups:
        height, width = group.frames[0].shape
        channels = 3 if group.frames[0].header.cfa else 1
        images = 1 + settings.drizzle.drizzle**2 + settings.products.lnref
        as_fits = sum(_FITS_BYTES[plane in ("image", "noise")] for plane in PLANES)
        written += images * channels * height * width * (_PACKED_MASTER * 4 * len(PLANES) + as_fits)
    return int(written)


def _requests(night: Night, new: set[str]) -> int:
    """Requests to a bucket: what a sub writes, and for each chunk of a master the rows of inner chunks of each sub."""
    total: float = _REQUESTS + len(new) * _REQUESTS_OF_SUB
    for group in night.links.groups:
        n_chunks = len(list(Canvas((0, 0), group.frames[0].shape).chunks()))
        total += n_chunks * (len(group.frames) * _ROWS_OF_CHUNK + _REQUESTS_OF_CHUNK)
    return round(total)


def _group_plan(
    group: LightGroup, lights: list[Light], new: set[str], settings: Settings, night: Night
) -> tuple[GroupPlan, int]:
    """Plan of one group, and the bytes of one of its tasks."""
    height, width = lights[0].frame.shape
    threads = settings.run.threads or memory.cpu_count()
    room = max(memory.budget_bytes(settings.run.memory) - memory.RESERVED_BYTES, 64 << 20) // threads
    extent = Foretold.of(lights[0].frame.header.cfa)
    tile = fitting_tile(extent, len(lights), room, settings.integrate)
    links = [
        line
        for row in night.links.explain()
        if row["group"] == group.name
        for line in (*row["lines"], *(f"near miss: {m}" for m in row["near_misses"]), *row["notes"])
    ]
    plan = GroupPlan(
        name=group.name,
        n_lights=len(lights),
        n_new=sum(str(light.frame.path) in new for light in lights),
        shape=(height, width),
        exposure_s=sum(light.frame.header.exposure_s or 0.0 for light in lights),
        links=links,
        strip_rows=tile[0],
    )
    integration = task_bytes(extent, len(lights), tile, settings.integrate)
    return plan, max(ingest_bytes(height * width), integration)
