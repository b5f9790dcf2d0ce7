"""Units: lights and masters in fractions of full scale are brought together with those in ADU.

PixInsight, Siril, Astro Pixel Processor and converters write floats in 0..1; raw frames are whole numbers. A bias or dark
of the other kind would take nothing off, or everything, in silence. What a file's numbers are is told by the numbers: a
few rows of each float file are read. The full scale is told by them too where they were whole numbers once (every one is
k / 65535, say); else by who wrote the file, or by the frames beside it. Masters are brought to their lights; lights in
fractions beside lights of the same sensor in ADU are brought to these. What cannot be told is refused. Flats are relative:
raw ones follow their pedestals, ready ones stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames.frame import Frame, PixelSource
from lerar_dask.frames.reader import band_of
from lerar_dask.kernels.robust.medians import median
from lerar_dask.link.sets import MasterSpec

__all__ = ["Converted", "Units", "lights_of_one_unit"]

_IN_FRACTIONS = {"pixinsight": "PixInsight", "siril": "Siril", "astro pixel processor": "Astro Pixel Processor"}
"""Programs that write floats in 0..1."""
_FULL_SCALES = {"uint8": 255.0, "uint16": 65535.0, "uint32": 4294967295.0}
_LATTICES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""Full scales of cameras, smallest first."""
_PEDESTALS = ("bias", "dark", "flat-dark")
_EMPTY = "its pixels hold no numbers"
_BANDS, _BAND_ROWS = 8, 8
_AT_MOST = 1.1
"""A pedestal's median over that of the lights: more cannot be."""
_AT_LEAST = 0.01
"""The same for a file of an unknown program: less is no pedestal that could be told."""
_FRACTION_AT_MOST = 1.5
"""Largest number of a file in fractions; calibration may lift some a little above 1."""
_WHOLE = 0.02
"""How far from a whole number a float32 in 0..1 times a full scale may lie."""


@dataclass(frozen=True)
class _Sample:
    """What a few rows tell."""

    median: float
    largest: float
    lattice: float
    """Smallest full scale of which every number is a whole part; 0: none."""

    @property
    def is_fraction(self) -> bool:
        """Whether the numbers are parts of a full scale."""
        return self.largest <= _FRACTION_AT_MOST


@dataclass(frozen=True)
class Converted:
    """Masters with numbers like those of the lights of one unit, and the files that are refused, with the reason."""

    masters: dict[str, MasterSpec]
    refused: list[tuple[Frame, str]]


class Units:
    """Samples of the files of a night, each read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], _Sample | None] = {}

    def is_fraction(self, frame: Frame) -> bool:
        """Whether a frame's numbers are parts of a full scale."""
        if not _is_float(frame.pixels):
            return False
        sample = self.sample(frame)
        return sample is not None and sample.is_fraction

    def sample(self, frame: Frame) -> _Sample | None:
        """What a few rows of a frame tell; None of NaN alone, and of what cannot be read.

        Of compressed files, which must be unpacked whole, one speaks for all of its kind and program.
        """
        key: tuple[object, ...] = (str(frame.path), frame.pixels.factor if frame.pixels else 1.0)
        if frame.pixels is not None and frame.pixels.layout != "plain" and not frame.header.is_master:
            h = frame.header
            key = (frame.shape, frame.pixels.dtype, h.kind, h.program, h.camera, h.calibrated, frame.pixels.factor)
        if key not in self._known:
            try:
                self._known[key] = _sample(frame)
            except FrameError:
                self._known[key] = None
        return self._known[key]

    def of_lights(self, masters: Mapping[str, MasterSpec], lights: Sequence[Frame], *, fraction: bool) -> Converted:
        """Masters in the unit of some lights.

        Parameters
        ----------
        fraction : whether these lights are in fractions
        """
        lights = [light for light in lights if "D" not in light.header.calibrated]
        if not lights and (raw := [s.sample for s in masters.values() if s.kind == "flat" and s.frames]):
            # Lights without dark current need no pedestal any more; those of the flats are brought to the flats.
            lights, fraction = raw, self.is_fraction(raw[0])
        fitting: dict[str, MasterSpec] = {}
        refused: list[tuple[Frame, str]] = []
        for name, whole in masters.items():
            light = _light_of(whole.sample, lights)
            if light is None or whole.kind not in _PEDESTALS:
                # A flat is relative, but what is taken off its frames must be in their unit.
                fitting[name] = self._flat(whole, light, fraction=fraction) if light and whole.frames else whole
                continue
            spec, empty = self._with_numbers(whole)
            refused += [(frame, _EMPTY) for frame in empty]
            if spec is None:
                continue
            try:
                fitting[name] = self._converted(spec, light, fraction=fraction)
            except FrameError as error:
                refused += [(frame, error.message) for frame in spec.files]
        return Converted(fitting, refused)

    def _with_numbers(self, spec: MasterSpec) -> tuple[MasterSpec | None, list[Frame]]:
        """The master without its frames that hold no numbers, since the one in the middle speaks for all."""
        empty = [f for f in spec.files if _is_float(f.pixels) and self.sample(f) is None]
        if len(empty) == len(spec.files):
            return None, empty
        return replace(spec, frames=tuple(f for f in spec.frames if f not in empty)) if empty else spec, empty

    def _converted(self, spec: MasterSpec, light: Frame, *, fraction: bool) -> MasterSpec:
        """The master in the lights' numbers; raises FrameError when its unit cannot be told."""
        own = self.is_fraction(spec.sample)
        if own == fraction:
            return spec
        if own:
            return self._to_adu(spec, light)
        return self._to_fractions(spec, light)

    def _flat(self, spec: MasterSpec, light: Frame, *, fraction: bool) -> MasterSpec:
        """Raw flats in the unit that their flat-darks and bias get."""
        own, other = self.sample(spec.sample), self.sample(light)
        if own is None or other is None or self.is_fraction(spec.sample) == fraction:
            return spec
        if fraction:
            full = other.lattice or _full_scale(spec.sample.pixels) or 65535.0
            return _scaled(spec, 1.0 / full, f"divided by {full:.0f} as the lights are")
        full = _full_scale(light.pixels) or own.lattice or 65535.0
        return _scaled(spec, full, f"it has numbers in 0..1: times {full:.0f}")

    def _to_adu(self, spec: MasterSpec, light: Frame) -> MasterSpec:
        master, values, raw = spec.sample, self.sample(spec.sample), self.sample(light)
        assert values is not None
        if raw is None:
            raise FrameError(
                f"its numbers lie between 0 and 1, and {light.path.name} does not tell those of the lights"
            )
        program = _writer_of(master)
        full = values.lattice if not _is_average(master) else 0.0
        full = max(full, _full_scale(light.pixels)) if _full_scale(light.pixels) else full
        share = values.median * full / raw.median if raw.median > 0 else np.inf
        if not full or not share <= _AT_MOST or not (program or share >= _AT_LEAST):
            by = f"{program} wrote it, but" if program else "no known program wrote it, and"
            raise FrameError(
                f"its numbers lie between 0 and 1, those of the lights do not; {by} its scale cannot be told "
                f"({values.median:.3g} in the middle, the lights {raw.median:.5g}): make it again in ADU, or from raw frames"
            )
        who = f"{program} writes" if program else "it has"
        return _scaled(spec, full, f"{who} numbers in 0..1: times {full:.0f}")

    def _to_fractions(self, spec: MasterSpec, light: Frame) -> MasterSpec:
        values, raw = self.sample(spec.sample), self.sample(light)
        if values is None or raw is None:
            raise FrameError(f"the lights are in 0..1 and it is not; {light.path.name} does not tell by how much")
        own = _full_scale(spec.sample.pixels)
        full = raw.lattice or own
        if raw.lattice and own and raw.lattice < own and values.largest > 1.02 * raw.lattice:
            full = own
        share = values.median / (raw.median * full) if raw.median > 0 and full else np.inf
        if not full or not _AT_LEAST <= share <= _AT_MOST:
            raise FrameError(
                f"the lights are in 0..1 (the middle of {light.path.name} is {raw.median:.3g}) and it is not "
                f"({values.median:.5g}): by how much cannot be told; bring them to one unit"
            )
        return _scaled(spec, 1.0 / full, f"the lights are in 0..1: divided by {full:.0f}")


def lights_of_one_unit(lights: Sequence[Frame], units: Units) -> tuple[list[Frame], list[str]]:
    """Lights in fractions brought to ADU where others of the same sensor are in ADU; what was done, in words."""
    in_parts = [f for f in lights if units.is_fraction(f)]
    paths = {f.path for f in in_parts}
    whole = [f for f in lights if f.path not in paths]
    factors: dict[Path, float] = {}
    for frame in in_parts:
        sample = units.sample(frame)
        others = [_full_scale(f.pixels) for f in whole if f.shape == frame.shape]
        if sample is not None and others:
            factors[frame.path] = sample.lattice or max(others) or 65535.0
    out = [_times(f, factors[f.path]) if f.path in factors else f for f in lights]
    notes = []
    for full in sorted(set(factors.values())):
        names = sorted(path.name for path, own in factors.items() if own == full)
        notes.append(
            f"{len(names)} light{'s' * (len(names) != 1)} in 0..1 beside others in ADU: times {full:.0f} ({names[0]} ...)"
        )
    return out, notes


def _scaled(spec: MasterSpec, factor: float, words: str) -> MasterSpec:
    return replace(
        spec,
        ready=_times(spec.ready, factor) if spec.ready else None,
        frames=tuple(_times(frame, factor) for frame in spec.frames),
        unit=words,
    )


def _times(frame: Frame, factor: float) -> Frame:
    if frame.pixels is None:
        return frame
    return replace(frame, pixels=replace(frame.pixels, factor=frame.pixels.factor * factor))


def _light_of(master: Frame, lights: Iterable[Frame]) -> Frame | None:
    """A light that could use the master: of its size, whole numbers first."""
    alike = [light for light in lights if light.shape == master.shape and light.pixels is not None]
    return min(alike, key=lambda light: (_is_float(light.pixels), str(light.path)), default=None)


def _is_float(pixels: PixelSource | None) -> bool:
    return pixels is not None and np.dtype(pixels.dtype).kind == "f"


def _is_average(frame: Frame) -> bool:
    """Whether numbers of several frames were averaged: they are no whole parts of the full scale any more."""
    return frame.header.is_master or (frame.header.n_subs or 1) > 1


def _writer_of(frame: Frame) -> str:
    """The known program that wrote a file in fractions."""
    program = (frame.header.program or "").lower()
    return next((name for word, name in _IN_FRACTIONS.items() if word in program), "")


def _full_scale(pixels: PixelSource | None) -> float:
    """Largest number of a frame's type; floats are taken for 16 bit ADU; 0 when there is no saying."""
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
    if not values.size:
        return None
    return _Sample(float(median(values)), float(values.max()), _lattice_of(values))


def _lattice_of(values: np.ndarray) -> float:
    """Smallest full scale of which all numbers in 0..1 are whole parts; 0: none, or they are no fractions."""
    if values.min() < 0 or values.max() > 1 or values.max() == values.min():
        return 0.0
    parts = np.unique(values)
    for full in _LATTICES:
        times = parts.astype(np.float64) * full
        if np.abs(times - np.rint(times)).max() < _WHOLE:
            return full
    return 0.0
