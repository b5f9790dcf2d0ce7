"""Match: for every light the best set of calibration frames of each kind, with its reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lerar_dask.frames.reader import Frame
from lerar_dask.link.groups import LightGroup, groups_of
from lerar_dask.link.pins import Pins, read_pins
from lerar_dask.link.rules import exposure_distance, judge, rules_for
from lerar_dask.link.sets import MasterSpec, specs_of, with_pedestals
from lerar_dask.link.units import in_units_of_lights
from lerar_dask.settings import Link as LinkSettings

__all__ = ["Choice", "LightGroup", "LightLink", "Links", "MasterSpec", "link_frames"]

_CALIBRATION = ("bias", "dark", "flat", "flat-dark")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A master chosen for a light."""

    master: str
    reason: str
    near_misses: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LightLink:
    """What a light is calibrated with."""

    dark: Choice | None = None
    flat: Choice | None = None
    bias: Choice | None = None
    dark_scale: float = 1.0
    """Exposure of the light over that of its dark; not 1 only when a bias allows scaling."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Links:
    """Everything the link stage has decided."""

    groups: tuple[LightGroup, ...]
    masters: Mapping[str, MasterSpec]
    of: Mapping[Path, LightLink]
    """Link of each light."""
    aside: tuple[tuple[Frame, str], ...]

    def explain(self) -> list[dict[str, Any]]:
        """Rows for people: per group and distinct link, the choices, reasons, near misses and notes."""
        rows = []
        for group in self.groups:
            linked: dict[LightLink, int] = Counter(self.of[f.path] for f in group.frames)  # type: ignore[assignment]
            for link, n in linked.items():
                lines = [
                    self._line(kind, choice)
                    for kind, choice in (("dark", link.dark), ("flat", link.flat), ("bias", link.bias))
                ]
                if link.dark and link.dark_scale != 1.0:
                    lines[0] += f"; scaled by {link.dark_scale:.3g}"
                near = [m for c in (link.dark, link.flat, link.bias) if c for m in c.near_misses]
                rows.append(
                    {"group": group.name, "n_lights": n, "lines": lines, "near_misses": near, "notes": list(link.notes)}
                )
        return rows

    def _line(self, kind: str, choice: Choice | None) -> str:
        if choice is None:
            return f"{kind}: none"
        spec = self.masters[choice.master]
        of = f"{len(spec.frames)} frames" if spec.frames else "a master of yours"
        below = f", less {spec.pedestal}" if spec.pedestal else ""
        return f"{kind}: {choice.master} ({of}{below}): {choice.reason}"


def link_frames(frames: Sequence[Frame], settings: LinkSettings) -> Links:
    """Link all frames of a scan."""
    pins = read_pins(settings.pins)
    aside: list[tuple[Frame, str]] = []
    by_kind: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        reason = frame.problem or _unusable(frame, settings)
        if reason:
            aside.append((frame, reason))
        else:
            kind = "light" if frame.header.kind == "unknown" else frame.header.kind
            by_kind[kind].append(frame)
    masters = {s.name: s for kind in _CALIBRATION for s in specs_of(kind, by_kind[kind], settings)}
    masters, of_unknown_unit = in_units_of_lights(masters, by_kind["light"])
    masters, refused = with_pedestals(masters, settings)
    aside += [*of_unknown_unit, *refused]
    groups = groups_of(by_kind["light"])
    of: dict[Path, LightLink] = {}
    cache: dict[Any, LightLink] = {}
    for group in groups:
        for frame in group.frames:
            key = (
                _identity(frame),
                frame.header.night,
                tuple(pins.pins(frame.path, k) for k in ("dark", "flat", "bias")),
            )
            if pins.pinned or pins.forbidden or key not in cache:
                cache[key] = _link(frame, masters, settings, pins)
            of[frame.path] = cache[key]
    return Links(groups=tuple(groups), masters=masters, of=of, aside=tuple(aside))


def _unusable(frame: Frame, settings: LinkSettings) -> str:
    header = frame.header
    if header.is_stack:
        n = f" of {header.n_subs} subs" if header.n_subs else ""
        return f"it is a result of stacking{n}, no sub"
    if header.kind == "unknown" and settings.default_kind == "ask" and not header.exposure_s:
        return "neither its header nor its folder says what kind of frame it is"
    return ""


def _identity(frame: Frame) -> tuple[Any, ...]:
    """What makes two lights link alike."""
    h = frame.header
    return (
        *(frame.shape, h.camera, h.binning, h.gain, h.offset, h.readout_mode, h.exposure_s, h.filter, h.row_order),
        *(None if t is None else round(t) for t in (h.set_temp_c, h.sensor_temp_c, h.rotator_deg)),
    )


# --------------------------------------------------------------------------------------------------------- the lights


def _link(light: Frame, masters: Mapping[str, MasterSpec], settings: LinkSettings, pins: Pins) -> LightLink:
    notes: list[str] = []
    bias = _best("bias", light, masters, settings, pins)
    flat = _best("flat", light, masters, settings, pins)
    dark, scale = _dark(light, masters, settings, pins, bias, notes)
    for kind, choice in (("dark", dark), ("flat", flat), ("bias", bias)):
        if choice is None and not (kind == "bias" and dark is not None):
            notes.append(f"no {kind} fits: the lights go on without{_nearest(kind, light, masters, settings)}")
    return LightLink(dark=dark, flat=flat, bias=bias, dark_scale=scale, notes=tuple(notes))


def _ranked(
    kind: str, light: Frame, masters: Mapping[str, MasterSpec], settings: LinkSettings, pins: Pins
) -> tuple[list[tuple[float, MasterSpec, tuple[str, ...]]], list[str]]:
    """Masters that fit, best first, and those that nearly did, in words."""
    fitting, near = [], []
    for spec in masters.values():
        if spec.kind != kind or not pins.allows(light.path, kind, spec.paths):
            continue
        verdict = judge(spec.sample, light, rules_for(kind, settings))
        if verdict.fits or pins.pins(light.path, kind):
            fitting.append((verdict.cost, spec, verdict.words))
        elif verdict.cost < 4.0:
            near.append(f"{spec.name}: {', '.join(verdict.words)}")
    fitting.sort(key=lambda item: (item[0], -len(item[1].frames), item[1].name))
    return fitting, near[:4]


def _best(
    kind: str, light: Frame, masters: Mapping[str, MasterSpec], settings: LinkSettings, pins: Pins
) -> Choice | None:
    fitting, near = _ranked(kind, light, masters, settings, pins)
    if not fitting:
        return None
    _, spec, words = fitting[0]
    others = tuple(f"{s.name}: {', '.join(w) or 'as good'}" for _, s, w in fitting[1:3])
    return Choice(
        master=spec.name, reason=_reason(spec, words, pins.pins(light.path, kind)), near_misses=(*others, *near)
    )


def _dark(
    light: Frame,
    masters: Mapping[str, MasterSpec],
    settings: LinkSettings,
    pins: Pins,
    bias: Choice | None,
    notes: list[str],
) -> tuple[Choice | None, float]:
    """Dark of the light's exposure; else the nearest one, scaled, when a bias allows it."""
    fitting, near = _ranked("dark", light, masters, settings, pins)
    wanted = light.header.exposure_s
    ranked = []
    for cost, spec, words in fitting:
        apart = exposure_distance(spec.sample.header.exposure_s, wanted, settings)
        ranked.append((apart if apart is not None else 0.05, cost, spec, words))
    ranked.sort(key=lambda item: (item[0], item[1], item[2].name))
    if not ranked:
        return None, 1.0
    apart, _, spec, words = ranked[0]
    reason = _reason(spec, words, pins.pins(light.path, "dark"))
    misses = tuple(f"{s.name}: {', '.join(w) or 'another exposure'}" for _, _, s, w in ranked[1:3])
    choice = Choice(master=spec.name, reason=reason, near_misses=(*misses, *near))
    exposure = spec.sample.header.exposure_s
    if apart <= 0.05 or pins.pins(light.path, "dark") or exposure is None or wanted is None:
        return choice, 1.0
    text = f"dark of {exposure:g} s for lights of {wanted:g} s: nearest there is"
    if bias is not None and settings.scale_darks:
        return replace(choice, reason=f"{text}, {reason}"), wanted / exposure
    notes.append(f"{spec.name} is not used: {text}, and without a bias it cannot be scaled")
    return None, 1.0


def _reason(spec: MasterSpec, words: Sequence[str], pinned: bool) -> str:
    text = f"{', '.join(words)}: nearest there is" if words else "equal in all that is known"
    text = f"{text}; {spec.unit}" if spec.unit else text
    return f"pinned; {text}" if pinned else text


def _nearest(kind: str, light: Frame, masters: Mapping[str, MasterSpec], settings: LinkSettings) -> str:
    """Why the best of the unfitting ones does not fit."""
    best = None
    for spec in masters.values():
        if spec.kind == kind:
            verdict = judge(spec.sample, light, rules_for(kind, settings))
            if not verdict.fits and (best is None or verdict.cost < best[0]):
                best = (verdict.cost, f" ({spec.name}: {', '.join(verdict.words)})")
    return best[1] if best else ""
