"""Units: masters of other programs in fractions of full scale are brought to the numbers of the lights.

PixInsight, Siril and Astro Pixel Processor write floats in 0..1; raw lights are whole numbers. A bias or dark in fractions
would take nothing off, in silence. Who wrote the file is asked first, then a few rows of pixels; where neither tells, the
master is refused. Flats are relative and need none of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames.reader import Frame, PixelSource, band_of
from lerar_dask.link.sets import MasterSpec

__all__ = ["in_units_of_lights"]

_IN_FRACTIONS = {"pixinsight": "PixInsight", "siril": "Siril", "astro pixel processor": "Astro Pixel Processor"}
"""Programs that write floats in 0..1."""
_FULL_SCALES = {"uint8": 255.0, "uint16": 65535.0, "uint32": 4294967295.0}
_PEDESTALS = ("bias", "dark", "flat-dark")
_EMPTY = "its pixels hold no numbers"
_BANDS, _BAND_ROWS = 8, 8
_AT_MOST = 1.1
"""A pedestal's median over that of the lights: more cannot be."""
_AT_LEAST = 0.01
"""The same for a file of an unknown program: less is no pedestal that could be told."""


@dataclass(frozen=True)
class _Sample:
    """What a few rows tell."""

    median: float
    largest: float


def in_units_of_lights(
    masters: Mapping[str, MasterSpec], lights: Sequence[Frame]
) -> tuple[dict[str, MasterSpec], list[tuple[Frame, str]]]:
    """Masters with numbers like those of the lights, and the files that are refused, with the reason."""
    fitting: dict[str, MasterSpec] = {}
    refused: list[tuple[Frame, str]] = []
    for name, whole in masters.items():
        light = _light_of(whole.sample, lights)
        if light is None or whole.kind not in _PEDESTALS:
            fitting[name] = whole
            continue
        spec, empty = _with_numbers(whole)
        refused += [(frame, _EMPTY) for frame in empty]
        if spec is None:
            continue
        try:
            fitting[name] = _converted(spec, light) if _is_float(spec.sample.pixels) else spec
        except FrameError as error:
            refused += [(frame, error.message) for frame in spec.frames or (spec.sample,)]
    return fitting, refused


def _with_numbers(spec: MasterSpec) -> tuple[MasterSpec | None, list[Frame]]:
    """The master without its first frames as far as they hold no numbers, since the first one speaks for all."""
    frames = [spec.ready] if spec.ready is not None else list(spec.frames)
    n_empty = 0
    while n_empty < len(frames) and _is_float(frames[n_empty].pixels) and _sample(frames[n_empty]) is None:
        n_empty += 1
    if n_empty == len(frames):
        return None, frames
    return replace(spec, frames=spec.frames[n_empty:]) if n_empty else spec, frames[:n_empty]


def _converted(spec: MasterSpec, light: Frame) -> MasterSpec:
    """The master in the lights' numbers; raises FrameError when its unit cannot be told."""
    master = spec.sample
    values = _sample(master)
    if values is None or values.largest > 1.0:
        return spec
    raw = _sample(light)
    if raw is None:
        raise FrameError(f"its numbers lie between 0 and 1, and {light.path.name} does not tell those of the lights")
    if raw.largest <= 1.0:
        return spec
    program = next((name for word, name in _IN_FRACTIONS.items() if word in (master.header.program or "").lower()), "")
    full = _full_scale(light.pixels)
    share = values.median * full / raw.median if raw.median > 0 else np.inf
    if not full or not share <= _AT_MOST or not (program or share >= _AT_LEAST):
        by = f"{program} wrote it, but" if program else "no known program wrote it, and"
        raise FrameError(
            f"its numbers lie between 0 and 1, those of the lights do not; {by} its scale cannot be told "
            f"({values.median:.3g} in the middle, the lights {raw.median:.5g}): make it again in ADU, or from raw frames"
        )
    who = f"{program} writes" if program else "it has"
    return replace(
        spec,
        ready=_times(spec.ready, full) if spec.ready else None,
        frames=tuple(_times(frame, full) for frame in spec.frames),
        unit=f"{who} numbers in 0..1: times {full:.0f}",
    )


def _times(frame: Frame, factor: float) -> Frame:
    pixels = frame.pixels
    if pixels is None or not _is_float(pixels):
        return frame
    return replace(frame, pixels=replace(pixels, scale=pixels.scale * factor, zero=pixels.zero * factor))


def _light_of(master: Frame, lights: Sequence[Frame]) -> Frame | None:
    """A light that could use the master: of its size, whole numbers first."""
    alike = [light for light in lights if light.shape == master.shape and light.pixels is not None]
    return min(alike, key=lambda light: (_is_float(light.pixels), str(light.path)), default=None)


def _is_float(pixels: PixelSource | None) -> bool:
    return pixels is not None and np.dtype(pixels.dtype).kind == "f"


def _full_scale(pixels: PixelSource | None) -> float:
    """Largest number of a light's type; floats are taken for 16 bit ADU; 0 when there is no saying."""
    if pixels is None or pixels.stored_scale != (1.0, 0.0):
        return 0.0
    return 65535.0 if _is_float(pixels) else _FULL_SCALES.get(pixels.stored_dtype, 0.0)


def _sample(frame: Frame) -> _Sample | None:
    """Median and maximum of a few bands of rows, or of one where rows cannot be reached alone; None of NaN alone."""
    height = frame.shape[0]
    rows = min(_BAND_ROWS, height)
    starts = np.linspace(0, height - rows, _BANDS).astype(int)
    if frame.pixels is not None and frame.pixels.layout != "plain":
        rows = min(_BANDS * _BAND_ROWS, height)
        starts = np.array([(height - rows) // 2])
    values = np.concatenate([band_of(frame, int(y), int(y) + rows).ravel() for y in np.unique(starts)])
    values = values[np.isfinite(values)]
    return _Sample(float(np.median(values)), float(values.max())) if values.size else None
