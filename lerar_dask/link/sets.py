"""Sets: calibration frames that may be averaged, ready masters, and what is taken off a flat."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lerar_dask.frames.reader import Frame
from lerar_dask.link.groups import safe_name
from lerar_dask.link.rules import exposure_distance, judge, rules_for
from lerar_dask.settings import Link as LinkSettings

__all__ = ["MasterSpec", "specs_of", "with_pedestals"]


@dataclass(frozen=True, kw_only=True)
class MasterSpec:
    """Frames that are combined to one master, or one file that is a master already."""

    name: str
    kind: str
    frames: tuple[Frame, ...]
    ready: Frame | None
    pedestal: str | None = None
    """Master taken off each frame of a flat: its flat-dark or bias."""
    pedestal_reason: str = ""
    unit: str = ""
    """What was done to bring a ready master's numbers to those of the lights, in words; empty: nothing."""

    @property
    def sample(self) -> Frame:
        """A frame that speaks for all."""
        return self.ready if self.ready is not None else self.frames[0]

    @property
    def paths(self) -> list[Path]:
        """Files of the master."""
        return [f.path for f in self.frames] or [self.sample.path]


def specs_of(kind: str, frames: Iterable[Frame], settings: LinkSettings) -> Iterable[MasterSpec]:
    """Sets of frames that may be averaged; one name each."""
    names: Counter[str] = Counter()
    sets: dict[Any, list[Frame]] = defaultdict(list)
    for frame in frames:
        sets[(frame.path if frame.header.is_master else None, *_set_key(kind, frame, settings))].append(frame)
    for key in sorted(sets, key=str):
        members = sorted(sets[key], key=lambda f: str(f.path))
        name = _set_name(kind, members[0])
        names[name] += 1
        if names[name] > 1:
            name = f"{name}_{names[name]}"
        ready = members[0] if members[0].header.is_master else None
        yield MasterSpec(name=name, kind=kind, frames=() if ready else tuple(members), ready=ready)


def _set_key(kind: str, frame: Frame, settings: LinkSettings) -> tuple[Any, ...]:
    h = frame.header
    base: list[Any] = [frame.shape, (h.camera or "").lower(), h.binning, h.row_order, h.readout_mode, h.gain, h.offset]
    if kind in ("dark", "flat-dark"):
        exposure = h.exposure_s
        base.append(None if exposure is None else round(exposure / max(settings.exposure_tolerance_s, 0.01 * exposure)))
        temperature = h.set_temp_c if h.set_temp_c is not None else h.sensor_temp_c
        base.append(None if temperature is None else round(temperature / max(settings.temperature_tolerance_c, 0.1)))
    if kind == "flat":
        rotator = None if h.rotator_deg is None else round(h.rotator_deg / max(settings.rotator_tolerance_deg, 0.1))
        base += [(h.filter or "").lower(), h.night, rotator]
    return tuple(base)


def _set_name(kind: str, frame: Frame) -> str:
    h = frame.header
    parts = [("master-" if h.is_master else "") + kind]
    if kind == "flat":
        parts += [h.filter or "", h.night or ""]
    if kind in ("dark", "flat-dark") and h.exposure_s is not None:
        parts.append(f"{h.exposure_s:g}s")
    if h.gain is not None and kind != "flat":
        parts.append(f"g{h.gain:g}")
    temperature = h.set_temp_c if h.set_temp_c is not None else h.sensor_temp_c
    if kind in ("dark", "flat-dark") and temperature is not None:
        parts.append(f"{temperature:.0f}C")
    return safe_name("_".join(p for p in parts if p))


def with_pedestals(
    masters: dict[str, MasterSpec], settings: LinkSettings
) -> tuple[dict[str, MasterSpec], list[tuple[Frame, str]]]:
    """Give each flat its flat-dark, or a dark of its exposure, or its bias; refuse flats that have none."""
    out, refused = {}, []
    for name, spec in masters.items():
        if spec.kind != "flat" or spec.ready is not None:
            out[name] = spec
            continue
        pedestal, reason = _pedestal_of(spec, masters, settings)
        if pedestal is None:
            text = "a flat with neither bias nor flat-dark over-corrects: it is not used"
            refused += [(frame, text) for frame in spec.frames]
        else:
            out[name] = replace(spec, pedestal=pedestal, pedestal_reason=reason)
    return out, refused


def _pedestal_of(flat: MasterSpec, masters: Mapping[str, MasterSpec], settings: LinkSettings) -> tuple[str | None, str]:
    for kind, word in (("flat-dark", "flat-dark"), ("dark", "dark of its exposure"), ("bias", "bias")):
        best = None
        for spec in masters.values():
            if spec.kind != kind:
                continue
            verdict = judge(spec.sample, flat.sample, rules_for(kind, settings))
            apart = exposure_distance(spec.sample.header.exposure_s, flat.sample.header.exposure_s, settings)
            if not verdict.fits or (kind != "bias" and apart != 0.0 and not (kind == "flat-dark" and apart is None)):
                continue
            if best is None or verdict.cost < best[0]:
                best = (verdict.cost, spec.name)
        if best:
            return best[1], word
    return None, ""
