"""Ingest: each sub once from its file into the store, and measured in the same touch.

Reads   the file of a light; calibration/<key>/{pedestal,gain,defects}
Writes  raw/<geometry>: the sub's shard and what its header says; measures/<geometry>/<key>: blocks, grid, stars, spikes
Two identities: `raw` (file only) and `measure` (raw pixels, calibration, settings, code). When only the second changes,
the sub is measured from its shard and the file is not touched.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from lerar_dask.errors import FrameError
from lerar_dask.frames.frame import Frame, PixelSource, RawPixels
from lerar_dask.frames.reader import cards_of, has_words, read_pixels, read_words
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.calibrate.light import calibrate, unpack_and_calibrate
from lerar_dask.kernels.calibrate.saturation import top_of
from lerar_dask.kernels.calibrate.voids import find_voids, valid_box
from lerar_dask.kernels.measure.sub import measure, measure_shapes
from lerar_dask.settings import Ingest
from lerar_dask.stages.calibration_maps import calibration_maps
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = [
    "Item",
    "geometry_name",
    "ingest_bytes",
    "ingest_sub",
    "measure_key",
    "plan",
    "prepare_arrays",
    "raw_digest",
    "saturated_from",
]

RAW_VERSION = 4
"""Of what is stored of a file: raised by hand, since nobody wants to read all files again for less."""
MAX_SPIKES = 2000
_STRIP_ROWS = 128
"""Rows of a file that are read at once."""
_SETS = 4
"""Calibration sets that are kept for the lights that come next."""
_buffers = threading.local()


@dataclass(frozen=True, kw_only=True)
class Item:
    """A light that is to be in the store."""

    frame: Frame
    geometry: str
    slot: int
    calibration: str | None
    """Key of its calibration set."""
    raw_done: bool
    """Its pixels are in the store already."""


def geometry_name(frame: Frame) -> str:
    """Name of the array that holds frames like this one."""
    height, width = frame.shape
    dtype = frame.pixels.stored_dtype if frame.pixels else "none"
    return f"{width}x{height}_{dtype}_{frame.header.cfa or 'mono'}"


def measure_key(calibration: str | None, settings: Ingest) -> str:
    """Identity of measurements beyond the pixels themselves."""
    return digest("measure", code_of(__name__), calibration, settings)[:20]


def raw_digest(frame: Frame) -> str:
    """Identity of a file at planning: path, size, time, and how its numbers are taken where that is not as they are."""
    pixels = frame.pixels
    taken = [pixels.factor, pixels.less] if pixels and (pixels.factor, pixels.less) != (1.0, 0.0) else []
    return digest("raw", RAW_VERSION, str(frame.path), frame.size, frame.mtime_ns, *taken)


def prepare_arrays(store: Store, items: Sequence[Item], settings: Ingest, codec: str) -> None:
    """Make or grow the arrays that the tasks write into (driver only)."""
    for name in sorted({item.geometry for item in items}):
        members = [item for item in items if item.geometry == name]
        sample = members[0].frame
        assert sample.pixels is not None
        store.add_geometry(name, sample.shape, sample.pixels.stored_dtype, codec)
        n_slots = 1 + max(item.slot for item in members)
        store.reserve(name, n_slots)
        shapes = measure_shapes(
            sample.shape,
            cfa=sample.header.cfa,
            cell_px=settings.background_cell_px,
            max_stars=settings.max_stars,
            max_spikes=MAX_SPIKES,
        )
        for key in sorted({measure_key(item.calibration, settings) for item in members}):
            store.measures(name, key).create(n_slots, shapes)


def _is_there(store: Store, task: Task) -> bool:
    item = task.arguments["item"]
    measures = store.measures(item.geometry, task.arguments["key"])
    return store.has_sub(item.geometry, item.slot) and measures.has(item.slot)


def plan(store_url: str, items: Sequence[Item], settings: Ingest) -> Step:
    """One task per light."""
    tasks = []
    largest = 0
    for item in items:
        pixels = item.frame.shape[0] * item.frame.shape[1]
        key = measure_key(item.calibration, settings)
        tasks.append(
            Task(
                key=f"ingest/{item.frame.path}",
                digest=digest(raw_digest(item.frame), key),
                function=ingest_sub,
                arguments={"store_url": store_url, "item": item, "key": key, "settings": settings},
                pixels=pixels,
            )
        )
        largest = max(largest, pixels)
    return Step(name="ingest", tasks=tasks, task_bytes=ingest_bytes(largest), is_there=_is_there)


def ingest_bytes(pixels: int) -> int:
    """Memory that one light takes: stored pixels as read and as packed, calibrated pixels and room for detections."""
    return 12 * pixels + (32 << 20)


def ingest_sub(*, store_url: str, item: Item, key: str, settings: Ingest) -> dict[str, Any]:
    """Bring one light into the store (unless it is there) and measure it."""
    store = open_store(store_url)
    pedestal, gain, defects = calibration_maps(store_url, item.calibration, sets=_SETS)
    stored = _buffer("stored", item.frame.shape, np.dtype(_pixels(item.frame).stored_dtype))
    image = _buffer("image", item.frame.shape, np.dtype(np.float32))
    written = 0
    if item.raw_done:
        record = store.frame(item.geometry, item.slot)
        store.raw(item.geometry).window(item.slot, 0, stored.shape[0], 0, stored.shape[1], stored)
        calibrated = False
    else:
        record, calibrated = _take_in(item, pedestal, gain, stored, image)
        written = store.write_raw(item.geometry, item.slot, stored)
        store.write_frame(item.geometry, item.slot, record)
    if not calibrated:
        scale, zero, blank = record["scale"], record["zero"], record["blank"]
        calibrate(stored, pedestal, gain, scale=scale, zero=zero, blank=blank, out=image)
    voids = np.array(record.get("voids") or np.zeros((0, 4)), np.int32)
    found = measure(
        image,
        stored,
        cfa=record["cfa"],
        cell_px=settings.background_cell_px,
        detection_sigma=settings.detection_sigma,
        max_stars=settings.max_stars,
        max_spikes=MAX_SPIKES,
        saturated_raw=saturated_from(record),
        defects=defects,
        voids=voids,
        blank=record["blank"] is not None,
    )
    written += store.measures(item.geometry, key).write(
        item.slot,
        blocks=found.blocks,
        grid=found.grid,
        stars=found.stars,
        spikes=found.spikes,
        summary=found.summary,
    )
    return {
        "id": record["id"],
        "raw": raw_digest(item.frame),
        "geometry": item.geometry,
        "slot": item.slot,
        "measure": key,
        "read_bytes": 0 if item.raw_done else item.frame.size,
        "written_bytes": written,
    }


def _take_in(
    item: Item, pedestal: np.ndarray | None, gain: np.ndarray | None, stored: np.ndarray, image: np.ndarray
) -> tuple[dict[str, Any], bool]:
    """Read the file into `stored` and refuse what holds no picture; its record, and whether `image` was calibrated."""
    frame = item.frame
    direct = has_words(frame)
    if direct:
        raw = RawPixels(stored, 1.0, 0.0, None)
        _read_and_calibrate(frame, pedestal, gain, stored, image)
    else:
        raw = read_pixels(frame)
        stored[...] = raw.data
    _refuse_empty(stored)
    voids = find_voids(stored, blank=raw.blank)
    box = valid_box(voids, stored.shape)
    if box[0] == box[1]:
        raise FrameError("it holds no picture (every row is one value, or the one before it)")
    header = frame.header
    limit = np.iinfo(stored.dtype).max if stored.dtype.kind in "ui" else float("inf")
    saturation = frame.saturation or 0.98 * (limit * raw.scale + raw.zero)
    largest, piled = top_of(stored)
    record = {
        "id": xxhash.xxh3_128_hexdigest(stored.data),
        "path": str(frame.path),
        "scale": raw.scale,
        "zero": raw.zero,
        "blank": raw.blank,
        "saturation_adu": min(saturation, 1e30),
        "largest": largest,
        "piled": piled,
        "origin_yx": [0, 0],
        "cfa": header.cfa,
        "row_order": header.row_order,
        "header": header.to_dict(),
        "cards": cards_of(frame),
    }
    if len(voids):
        record |= {"voids": voids.tolist(), "valid_yx": list(box)}
    return record, direct


def _read_and_calibrate(
    frame: Frame, pedestal: np.ndarray | None, gain: np.ndarray | None, stored: np.ndarray, image: np.ndarray
) -> None:
    """Words of a plain file, some rows at a time: they are calibrated while they lie in the processor's cache."""
    for y in range(0, frame.shape[0], _STRIP_ROWS):
        strip = slice(y, min(y + _STRIP_ROWS, frame.shape[0]))
        read_words(frame, strip.start, strip.stop, stored[strip])
        unpack_and_calibrate(
            stored[strip],
            None if pedestal is None else pedestal[strip],
            None if gain is None else gain[strip],
            flip=0x8000,
            scale=1.0,
            zero=0.0,
            stored=stored[strip],
            out=image[strip],
        )


def saturated_from(record: Mapping[str, Any], *, piled_at: float | None = None) -> float:
    """Stored number from which on the samples of a sub are lower bounds only.

    Parameters
    ----------
    record : of the sub in the store
    piled_at : stored number at which other subs of its camera pile up
    """
    own = record["largest"] if record.get("piled") else None
    told = (record["saturation_adu"] - record["zero"]) / record["scale"]
    return min(v for v in (told, own, piled_at) if v is not None)


def _pixels(frame: Frame) -> PixelSource:
    assert frame.pixels is not None
    return frame.pixels


def _refuse_empty(data: np.ndarray) -> None:
    """Refuse frames without a picture: constant, without numbers, all saturated."""
    sample = data[:: max(1, data.shape[0] // 64)]
    if data.dtype.kind == "f":
        finite = np.isfinite(sample)
        if not finite.any():
            if not np.isfinite(data).any():
                raise FrameError("it holds no numbers (all pixels are NaN)")
            return
        sample = sample[finite]
    if sample.min() != sample.max() or data.min() != data.max():
        return
    value = data.flat[0]
    if data.dtype.kind in "ui" and value == np.iinfo(data.dtype).max:
        raise FrameError("it is white all over (every pixel is saturated)")
    if value == 0:
        raise FrameError("it is black all over (every pixel is 0)")
    raise FrameError(f"it holds no picture (every pixel is {value})")


def _buffer(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Pixels of this thread, reused from task to task: fresh memory costs more than what is done with it."""
    buffer = getattr(_buffers, name, None)
    if buffer is None or buffer.shape != shape or buffer.dtype != dtype:
        buffer = np.empty(shape, dtype)
        setattr(_buffers, name, buffer)
    return buffer
