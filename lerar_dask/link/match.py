"""Match: for every light the best set of calibration frames of each kind, with its reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lerar_dask.frames.frame import Frame
from lerar_dask.frames.header import Kind
from lerar_dask.link.copies import without_copies
from lerar_dask.link.groups import LightGroup, groups_of
from lerar_dask.link.kinds import kind_notes, kind_of, unusable
from lerar_dask.link.one_light import Choice, LightLink, link_light
from lerar_dask.link.pins import Pins, read_pins
from lerar_dask.link.sets import MasterSpec, specs_of, with_pedestals
from lerar_dask.link.units import Units, lights_of_one_unit
from lerar_dask.settings import Link as LinkSettings

__all__ = ["Choice", "LightGroup", "LightLink", "Links", "MasterSpec", "link_frames"]

_CALIBRATION: tuple[Kind, ...] = ("bias", "dark", "flat", "flat-dark")


@dataclass(frozen=True, kw_only=True)
class Links:
    """Everything the link stage has decided."""

    groups: tuple[LightGroup, ...]
    masters: Mapping[str, MasterSpec]
    of: Mapping[Path, LightLink]
    """Link of each light."""
    aside: tuple[tuple[Frame, str], ...]
    notes: tuple[str, ...] = ()
    """What concerns the night as a whole."""

    def explain(self) -> list[dict[str, Any]]:
        """Rows for people: per group and distinct link, the choices, reasons, near misses and notes."""
        rows = []
        for group in self.groups:
            alike: dict[Any, list[LightLink]] = defaultdict(list)
            for frame in group.frames:
                alike[self.of[frame.path].choices].append(self.of[frame.path])
            for links in alike.values():
                rows.append(self._row(group, links))
        return rows

    def _row(self, group: LightGroup, links: Sequence[LightLink]) -> dict[str, Any]:
        """Lights of a group with the same masters; where their reasons differ, those of the lights at both ends."""
        first = links[0]
        lines = [self._line(kind, [getattr(link, kind) for link in links]) for kind in ("dark", "flat", "bias")]
        if first.dark and first.dark_scale != 1.0:
            lines[0] += f"; scaled by {first.dark_scale:.3g}"
        if first.dark and first.dark_less_bias:
            lines[0] += "; less its bias, which is off the lights already"
        near = [m for c in (first.dark, first.flat, first.bias) if c for m in c.near_misses]
        notes = dict.fromkeys(note for link in links for note in link.notes)
        return {
            "group": group.name,
            "n_lights": len(links),
            "lines": lines,
            "near_misses": near,
            "notes": [*group.notes, *notes],
        }

    def _line(self, kind: str, choices: Sequence[Choice | None]) -> str:
        choice = choices[0]
        if choice is None:
            return f"{kind}: none"
        spec = self.masters[choice.master]
        below = f", less {spec.pedestal}" if spec.pedestal else ""
        reasons = sorted({c.reason for c in choices if c})
        reason = choice.reason if len(reasons) == 1 else f"{reasons[0]} ... {reasons[-1]} ({len(reasons)} kinds)"
        return f"{kind}: {choice.master} ({spec.count}{below}): {reason}"


def link_frames(frames: Sequence[Frame], settings: LinkSettings, *, unfit: Mapping[Path, str] | None = None) -> Links:
    """Link all frames of a scan.

    Parameters
    ----------
    unfit : frames that were found to be of no use, with the reason
    """
    pins = read_pins(settings.pins)
    unfit = unfit or {}
    named = [_as_pinned(frame, pins) for frame in frames]
    aside = [(f, reason) for f in named if (reason := f.problem or unfit.get(f.path, "") or unusable(f, settings))]
    barred = {f.path for f, _ in aside}
    whole, copies = without_copies([f for f in named if f.path not in barred])
    by_kind: dict[str, list[Frame]] = defaultdict(list)
    for frame in whole:
        by_kind[kind_of(frame)].append(frame)
    unfit_of_kind: dict[str, list[Frame]] = defaultdict(list)
    for frame in named:
        if frame.path in unfit:
            unfit_of_kind[kind_of(frame)].append(frame)
    units = Units()
    lights, notes = lights_of_one_unit(by_kind["light"], units)
    specs = [s for kind in _CALIBRATION for s in specs_of(kind, by_kind[kind], settings, unfit=unfit_of_kind[kind])]
    masters, of_unit, refused = _masters_by_unit({s.name: s for s in specs}, lights, units, settings)
    groups = groups_of(lights, pins)
    of = {frame.path: link for group in groups for frame, link in _linked(group.frames, of_unit, units, settings, pins)}
    return Links(
        groups=tuple(groups),
        masters=masters,
        of=of,
        aside=tuple([*aside, *copies, *refused]),
        notes=(*notes, *kind_notes(whole)),
    )


def _as_pinned(frame: Frame, pins: Pins) -> Frame:
    """The frame with the kind that the user says it has."""
    kind = pins.kind(frame.path)
    if kind is None or frame.problem:
        return frame
    header = frame.header
    master = header.is_master and kind != "light"
    pinned = replace(
        header,
        kind=kind,  # type: ignore[arg-type]
        named_kind=None,
        is_master=master,
        is_stack=False,
        is_named_result=False,
        strange_kind="",
        sources={**header.sources, "kind": "pin"},
    )
    return replace(frame, header=pinned)


def _masters_by_unit(
    specs: dict[str, MasterSpec], lights: Sequence[Frame], units: Units, settings: LinkSettings
) -> tuple[dict[str, MasterSpec], dict[bool, dict[str, MasterSpec]], list[tuple[Frame, str]]]:
    """All masters, those in the unit of lights in ADU (False) and in fractions (True), and what is refused."""
    kinds = {units.is_fraction(light) for light in lights} or {False}
    of_unit: dict[bool, dict[str, MasterSpec]] = {}
    refused: dict[Path, tuple[Frame, str]] = {}
    for fraction in sorted(kinds):
        own = [light for light in lights if units.is_fraction(light) == fraction]
        converted = units.of_lights(specs, own, fraction=fraction)
        masters, without = with_pedestals(converted.masters, settings)
        refused |= {f.path: (f, reason) for f, reason in [*converted.refused, *without]}
        if fraction and len(kinds) > 1:
            masters = _renamed(masters)
        of_unit[fraction] = masters
    everything = {name: spec for masters in of_unit.values() for name, spec in masters.items()}
    used = {path for spec in everything.values() for path in spec.paths}
    return everything, of_unit, [item for path, item in refused.items() if path not in used]


def _renamed(masters: Mapping[str, MasterSpec]) -> dict[str, MasterSpec]:
    """Masters in fractions beside the same ones in ADU."""
    names = {name: f"{name}_0to1" for name in masters}
    return {
        names[name]: replace(spec, name=names[name], pedestal=names[spec.pedestal] if spec.pedestal else None)
        for name, spec in masters.items()
    }


def _linked(
    lights: Sequence[Frame],
    of_unit: Mapping[bool, Mapping[str, MasterSpec]],
    units: Units,
    settings: LinkSettings,
    pins: Pins,
) -> list[tuple[Frame, LightLink]]:
    """Each light with its link; lights that are alike in all that matters are looked at once."""
    cache: dict[Any, LightLink] = {}
    linked = []
    for light in lights:
        fraction = units.is_fraction(light)
        key = (fraction, *_identity(light))
        if pins.pinned or pins.forbidden or key not in cache:
            cache[key] = link_light(light, of_unit[fraction], settings, pins)
        linked.append((light, cache[key]))
    return linked


def _identity(frame: Frame) -> tuple[Any, ...]:
    """What makes two lights link alike."""
    h = frame.header
    return (
        *(frame.shape, h.camera, h.binning, h.gain, h.offset, h.readout_mode, h.exposure_s, h.filter, h.row_order),
        *(h.set_temp_c, h.sensor_temp_c, h.rotator_deg, h.calibrated, h.night),
        *(h.pedestal_adu, h.sources.get("calibrated")),
    )
