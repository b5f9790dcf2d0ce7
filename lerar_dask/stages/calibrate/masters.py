"""Masters: combine calibration frames, and make of them what a sub is calibrated with.

Reads   calibration files, straight from the files, in bands of rows
Writes  calibration/<master key>/image                       a master bias, dark, flat-dark (ADU) or flat (mean 1)
        calibration/<set key>/{pedestal,gain,defects}        what is taken off, multiplied with, and left out
Rounds: pedestals (bias, flat-dark, dark), flats (their levels from `stages/soundness`), sets (a task per array)

A *set* is what a light's link says: dark or bias, flat, and how far the dark is scaled. Its pedestal is the dark, or the
bias, or bias + k (dark - bias), without the bias where that is off the light already; its gain is 1 / flat, with the flat's
mean 1 in each color, so that calibrating is (raw - pedestal) * gain. Masters whose rows run the other way are turned over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.frames.frame import Frame
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.calibrate import defects as cosmetic
from lerar_dask.link.match import Links, MasterSpec
from lerar_dask.settings import Ingest, Masters
from lerar_dask.stages.calibrate.bands import (
    BAND_ROWS,
    band_bytes,
    combine_rows,
    has_band,
    read_band,
    read_master,
    write_band,
)
from lerar_dask.stages.calibration_maps import keep_map
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = [
    "CalibrationSet",
    "combine_band",
    "find_defects",
    "is_turned",
    "make_defects",
    "make_gain",
    "make_pedestal",
    "master_key",
    "plan_found",
    "plan_sets",
    "plan_stacks",
    "set_bytes",
]


@dataclass(frozen=True, kw_only=True)
class CalibrationSet:
    """Which masters calibrate a light; equal values are the same set."""

    dark: str | None
    bias: str | None
    flat: str | None
    dark_scale: float
    cfa: str | None
    shape: tuple[int, int]
    dark_less_bias: bool = False
    """The bias is off the lights already: what the dark has above it is taken off."""
    turned: tuple[str, ...] = ()
    """Of dark, bias and flat those whose rows run the other way than the lights'."""
    bare: bool = False
    """The dark is without its bias already."""

    @property
    def needs_bias(self) -> bool:
        """Whether the bias serves: alone, to scale a dark, or to take it off a dark or put it back."""
        if self.dark is not None and self.dark_less_bias == self.bare:
            return self.dark_scale != 1.0 and not self.bare
        return True


def master_key(spec: MasterSpec, links: Links, settings: Masters) -> str:
    """Identity of a master: its files, what is subtracted from it, settings, code."""
    below = master_key(links.masters[spec.pedestal], links, settings) if spec.pedestal else None
    files: list[object] = [(str(f.path), f.size, f.mtime_ns) for f in spec.files]
    files += [spec.unit] if spec.unit else []
    return digest("master", code_of(__name__), spec.kind, files, below, settings)[:20]


def set_key(chosen: CalibrationSet, links: Links, masters: Masters, ingest: Ingest) -> str:
    """Identity of a calibration set."""
    keys = [
        master_key(links.masters[m], links, masters) if m else None for m in (chosen.dark, chosen.bias, chosen.flat)
    ]
    cosmetics = (ingest.cosmetic, ingest.hot_sigma, ingest.cold_sigma)
    use = (round(chosen.dark_scale, 6), chosen.dark_less_bias, chosen.turned, chosen.bare)
    return digest("set", code_of(__name__), keys, use, chosen.cfa, cosmetics)[:20]


# --------------------------------------------------------------------------------------------------- combining frames


def plan_stacks(
    store_url: str, links: Links, settings: Masters, *, flats: bool, levels: Mapping[str, Sequence[float]]
) -> Step:
    """Tasks that combine masters, one per band of rows: the pedestals first, then (`flats`) the flats.

    Parameters
    ----------
    levels : level of each frame of a flat, by master name, as `soundness.flat_levels` returned them
    """
    tasks, task_bytes = [], 0
    for name, spec in links.masters.items():
        if (spec.kind == "flat") is not flats or not spec.files or (flats and name not in levels):
            continue
        key = master_key(spec, links, settings)
        (height, width), n = spec.files[0].shape, len(spec.files)
        pedestal = master_key(links.masters[spec.pedestal], links, settings) if spec.pedestal else None
        for y0 in range(0, height, BAND_ROWS):
            rows = min(BAND_ROWS, height - y0)
            arguments = {
                "store_url": store_url,
                "key": key,
                "frames": tuple(spec.files),
                "rows": (y0, y0 + rows),
                "pedestal_key": pedestal,
                "pedestal_turned": is_turned(spec, links),
                "levels": tuple(levels.get(name, ())),
                "settings": settings,
            }
            tasks.append(
                Task(
                    key=f"master/{name}/{y0}",
                    digest=digest(key, y0),
                    function=combine_band,
                    arguments=arguments,
                    pixels=n * rows * width,
                )
            )
        task_bytes = max(task_bytes, band_bytes(spec.files, width))
    return Step(name="flats" if flats else "masters", tasks=tasks, task_bytes=task_bytes, is_there=_has_rows)


def prepare_arrays(store: Store, links: Links, settings: Masters) -> None:
    """Make the arrays that the bands are written into (driver only)."""
    for spec in links.masters.values():
        path = f"calibration/{master_key(spec, links, settings)}/image"
        if spec.files and not store.has(path):
            shape = spec.files[0].shape
            meaning = f"master {spec.kind}: {spec.name}"
            store.create_array(
                path,
                shape=shape,
                dtype="float32",
                chunks=(BAND_ROWS, shape[1]),
                dims=("y", "x"),
                unit="adu" if spec.kind != "flat" else "1",
                meaning=meaning,
            )


def combine_band(
    *,
    store_url: str,
    key: str,
    frames: tuple[Frame, ...],
    rows: tuple[int, int],
    pedestal_key: str | None,
    pedestal_turned: bool,
    levels: tuple[float, ...],
    settings: Masters,
) -> dict[str, Any]:
    """Combine rows of calibration frames by winsorized mean; flats are brought to mean 1 first."""
    store = open_store(store_url)
    y0 = rows[0]
    below = _below(store, pedestal_key, rows, frames[0].shape, turned=pedestal_turned)
    factors = [1.0 / level for level in levels] or [1.0] * len(frames)
    limits = settings.master_sigma_low, settings.master_sigma_high
    image = combine_rows(frames, rows, below=below, factors=factors, limits=limits)
    read = sum(frame.size * len(image) // frame.shape[0] for frame in frames)
    return {"n": len(frames), "read_bytes": read, "written_bytes": write_band(store, key, y0, image)}


def _has_rows(store: Store, task: Task) -> bool:
    """Whether what a task of `plan_stacks` made still lies in the store."""
    return has_band(store, task.arguments["key"], task.arguments["rows"][0])


def _below(
    store: Store, key: str | None, rows: tuple[int, int], shape: tuple[int, int], *, turned: bool
) -> np.ndarray | None:
    """Rows of the master that is taken off a flat's frames."""
    if not key:
        return None
    if turned:
        return np.ascontiguousarray(read_master(store, key, shape)[::-1][rows[0] : rows[1]])
    return read_band(store, key, rows[0], shape)


def is_turned(spec: MasterSpec, links: Links) -> bool:
    """Whether the rows of a flat's pedestal run the other way than the flat's."""
    if not spec.pedestal:
        return False
    orders = {spec.sample.header.row_order, links.masters[spec.pedestal].sample.header.row_order}
    return len(orders) == 2 and None not in orders


# ------------------------------------------------------------------------------------------------------ calibration sets


def set_bytes(pixels: int) -> int:
    """Memory that the maps of a calibration set take: the masters, what is made of them, and their defects."""
    return 20 * pixels + (32 << 20)


def plan_sets(store_url: str, links: Links, chosen: Sequence[CalibrationSet], masters: Masters, ingest: Ingest) -> Step:
    """Tasks that make gain, pedestal and defects of each calibration set, those that take longest first."""
    tasks, task_bytes = [], 0
    for item in chosen:
        key = set_key(item, links, masters, ingest)
        keys = {
            kind: master_key(links.masters[name], links, masters) if name else None
            for kind, name in (("dark", item.dark), ("bias", item.bias), ("flat", item.flat))
        }
        arguments = {"store_url": store_url, "key": key, "masters": keys, "chosen": item}
        pixels = item.shape[0] * item.shape[1]
        makers: list[tuple[str, Any, dict[str, Any]]] = []
        if item.flat:
            makers.append(("gain", make_gain, {}))
        if item.dark or item.bias:
            makers.append(("pedestal", make_pedestal, {}))
        makers.append(("defects", make_defects, {"settings": ingest}))
        for what, function, more in makers:
            tasks.append(
                Task(
                    key=f"calibration/{key}/{what}",
                    digest=digest("set", key, what),
                    function=function,
                    arguments={**arguments, **more},
                    pixels=pixels,
                )
            )
        task_bytes = max(task_bytes, set_bytes(pixels))
    return Step(name="calibration", tasks=tasks, task_bytes=task_bytes, is_there=_has_array)


def make_gain(*, store_url: str, key: str, masters: dict[str, str | None], chosen: CalibrationSet) -> dict[str, Any]:
    """Write what lights are multiplied with."""
    store = open_store(store_url)
    gain = _gain_of(_master(store, masters, "flat", chosen), chosen.cfa)
    meaning = "multiplied after the pedestal: 1 / flat"
    return {"written_bytes": _write_map(store, key, "gain", gain, "1", meaning)}


def make_pedestal(
    *, store_url: str, key: str, masters: dict[str, str | None], chosen: CalibrationSet
) -> dict[str, Any]:
    """Write what is taken off lights."""
    store = open_store(store_url)
    pedestal = _pedestal(store, masters, chosen)
    return {"written_bytes": _write_map(store, key, "pedestal", pedestal, "adu", "taken off the raw values")}


def make_defects(
    *, store_url: str, key: str, masters: dict[str, str | None], chosen: CalibrationSet, settings: Ingest
) -> dict[str, Any]:
    """Write the defects of one calibration set."""
    store = open_store(store_url)
    defects = np.zeros(0, np.int32)
    if settings.cosmetic and masters["dark"]:
        dark = _master(store, masters, "dark", chosen)
        defects = cosmetic.defects_from_dark(dark, sigma=settings.hot_sigma, cfa=chosen.cfa)
    if settings.cosmetic and masters["flat"]:
        flat = _master(store, masters, "flat", chosen)
        bad = cosmetic.defects_from_flat(flat, sigma=settings.cold_sigma, cfa=chosen.cfa)
        defects = np.union1d(defects, bad).astype(np.int32)
    _write_defects(store, key, defects)
    return {"n_defects": len(defects)}


def _has_array(store: Store, task: Task) -> bool:
    """Whether the array of a task of `plan_sets` still lies in the store; the task is called as its array is."""
    return store.has(task.key)


def plan_found(
    store_url: str, subs: Sequence[tuple[str, int, str]], places: np.ndarray, shape: tuple[int, int], base: str | None
) -> tuple[str, Step]:
    """Key and task of a calibration set whose defects the subs themselves tell, for subs without a dark.

    Parameters
    ----------
    subs : (geometry, slot, measure key) of subs of one sensor
    places : (n, 2) float64     where each sub points, in pixels
    base : key of the set that calibrated them, or None
    """
    key = digest("found", code_of(__name__), list(subs), places.round(1).tolist(), base)[:20]
    arguments = {
        "store_url": store_url,
        "key": key,
        "subs": tuple(subs),
        "places": places,
        "shape": shape,
        "base": base,
    }
    task = Task(key=f"defects/{key}", digest=digest("found", key), function=find_defects, arguments=arguments)
    return key, Step(
        name="defects",
        tasks=[task],
        task_bytes=16 * shape[0] * shape[1],
        is_there=lambda store, _: store.has(f"calibration/{key}/defects"),
    )


def find_defects(
    *,
    store_url: str,
    key: str,
    subs: tuple[tuple[str, int, str], ...],
    places: np.ndarray,
    shape: tuple[int, int],
    base: str | None,
) -> dict[str, Any]:
    """Write a calibration set with the defects that stay at one place of the sensor while the sky moves."""
    store = open_store(store_url)
    spikes = [store.measures(geometry, measure).read_spikes(slot) for geometry, slot, measure in subs]
    found = cosmetic.defects_from_subs(spikes, places, shape=shape)
    for name in ("pedestal", "gain") if base else ():
        if store.has(f"calibration/{base}/{name}"):
            store.write_array(
                f"calibration/{key}/{name}", store.read_array(f"calibration/{base}/{name}"), dims=("y", "x")
            )
    known = store.read_array(f"calibration/{base}/defects") if base else np.zeros(0, np.int32)
    defects = np.union1d(known, found).astype(np.int32)
    _write_defects(store, key, defects)
    return {"n_defects": len(defects), "n_found": len(found)}


def _pedestal(store: Store, masters: Mapping[str, str | None], chosen: CalibrationSet) -> Any:
    """What is taken off the lights of a set that has a dark or a bias."""
    dark = _master(store, masters, "dark", chosen)
    bias = _master(store, masters, "bias", chosen) if chosen.needs_bias else None
    if dark is None or (bias is None and chosen.dark_scale == 1.0):
        return bias if dark is None else dark
    if bias is not None and not chosen.bare:
        dark = dark - bias
    dark = dark * np.float32(chosen.dark_scale)
    return dark if chosen.dark_less_bias or bias is None else bias + dark


def _master(store: Store, masters: Mapping[str, str | None], kind: str, chosen: CalibrationSet) -> Any:
    """Pixels of a master as the lights' rows lie, or None."""
    key = masters[kind]
    if not key:
        return None
    image = read_master(store, key, chosen.shape)
    return np.ascontiguousarray(image[::-1]) if kind in chosen.turned else image


def _write_map(store: Store, key: str, name: str, image: np.ndarray, unit: str, meaning: str) -> int:
    array = np.ascontiguousarray(image, np.float32)
    written = store.write_array(f"calibration/{key}/{name}", array, dims=("y", "x"), unit=unit, meaning=meaning)
    keep_map(store.url, key, name, array)
    return written


def _write_defects(store: Store, key: str, defects: np.ndarray) -> None:
    meaning = "flat indices of bad pixels, sorted"
    store.write_array(f"calibration/{key}/defects", defects, dims=("defect",), meaning=meaning)
    keep_map(store.url, key, "defects", defects)


def _gain_of(flat: np.ndarray, cfa: str | None) -> np.ndarray:
    """1 / flat with mean 1 in each color; pixels without light get gain 1 (they are defects)."""
    gain = np.ones_like(flat)
    cells = [(slice(None), slice(None))]
    if cfa:
        cells = [(slice(i // 2, None, 2), slice(i % 2, None, 2)) for i in range(4)]
    for color in sorted(set(cfa)) if cfa else [None]:
        where = cells if color is None else [c for c, letter in zip(cells, cfa or "", strict=True) if letter == color]
        good = [np.isfinite(flat[c]) & (flat[c] > 0.02) for c in where]
        whole = [bool(g.all()) for g in good]  # to leave pixels out costs three times what is done with them
        lit = [flat[c].reshape(-1) if w else flat[c][g] for c, g, w in zip(where, good, whole, strict=True)]
        mean = sum(float(v.sum(dtype=np.float64)) for v in lit) / max(sum(v.size for v in lit), 1)
        for c, g, w in zip(where, good, whole, strict=True):
            np.divide(np.float32(mean), flat[c], out=gain[c], where=w or g)
    return gain
