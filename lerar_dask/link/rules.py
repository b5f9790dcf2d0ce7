"""Rules as data: which differences are allowed between two frames, and what a difference costs.

An unknown value is not a different value: it passes with a small cost and a word in the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lerar_dask.frames.reader import Frame
from lerar_dask.settings import Link

__all__ = ["Rule", "Verdict", "judge", "rules_for", "same_camera"]

FAR_TEMPERATURE_C = 10.0
"""A dark further away than this is of no use."""
_UNKNOWN_COST = 0.5


@dataclass(frozen=True)
class Verdict:
    """What the rules say of a candidate for a frame."""

    fits: bool
    cost: float
    """Smaller is better; 0 = equal in everything known."""
    words: tuple[str, ...]
    """Differences, in words."""


@dataclass(frozen=True)
class Rule:
    """One property of the pair (candidate, wanted)."""

    name: str
    value: Callable[[Frame], Any]
    distance: Callable[[Any, Any], float]
    """0 = equal; at most 1 = allowed with a remark; above = refused."""
    text: Callable[[Any], str]
    scale_cost: float = 1.0


def judge(candidate: Frame, wanted: Frame, rules: Sequence[Rule]) -> Verdict:
    """Judge a candidate by all rules."""
    fits, cost, words = True, 0.0, []
    for rule in rules:
        a, b = rule.value(candidate), rule.value(wanted)
        if a is None or b is None:
            cost += _UNKNOWN_COST if (a is None) != (b is None) else 0.0
            continue
        distance = rule.distance(a, b)
        if distance > 0:
            words.append(f"{rule.name} {rule.text(a)} for {rule.text(b)}")
        fits &= distance <= 1.0
        cost += distance * rule.scale_cost
    return Verdict(fits, cost, tuple(words))


def rules_for(kind: str, settings: Link) -> tuple[Rule, ...]:
    """Rules for a dark, bias or flat-dark (to a frame), or for a flat (to a light)."""
    sensor = (
        Rule("size", lambda f: f.shape, _equal, lambda v: f"{v[1]}x{v[0]}"),
        Rule("camera", lambda f: f.header.camera, lambda a, b: 0.0 if same_camera(a, b) else 2.0, str),
        Rule("binning", lambda f: f.header.binning, _equal, lambda v: f"{v[1]}x{v[0]}"),
        Rule("row order", _row_order, _equal, str),
    )
    electronics = (
        Rule("gain", lambda f: f.header.gain, _within(settings.gain_tolerance), lambda v: f"{v:g}"),
        Rule("offset", lambda f: f.header.offset, _within(settings.offset_tolerance), lambda v: f"{v:g}"),
        Rule("readout mode", lambda f: f.header.readout_mode, _equal, str),
    )
    if kind == "flat":
        return (
            *sensor,
            Rule("filter", lambda f: f.header.filter, lambda a, b: 0.0 if a.lower() == b.lower() else 2.0, str),
            Rule(
                "rotator",
                lambda f: f.header.rotator_deg,
                _turned(settings.rotator_tolerance_deg),
                lambda v: f"{v:g} deg",
            ),
            Rule("night", _day, lambda a, b: min(abs(a - b) / 365.0, 1.0), lambda v: _date(v), 3.0),
        )
    thermal = Rule(
        "temperature", _temperature, _temperatures(settings.temperature_tolerance_c), lambda v: f"{v:g} C", 5.0
    )
    nights = Rule("night", _day, lambda a, b: min(abs(a - b) / 3650.0, 0.9), lambda v: _date(v))
    if kind == "bias":
        return (*sensor, *electronics, nights)
    return (*sensor, *electronics, thermal, nights)


def exposure_distance(a: float | None, b: float | None, settings: Link) -> float | None:
    """0 for equal exposures within the tolerance, else their relative difference; None when unknown."""
    if a is None or b is None:
        return None
    if abs(a - b) <= max(settings.exposure_tolerance_s, 0.01 * b):
        return 0.0
    return abs(a - b) / max(a, b)


def same_camera(a: str, b: str) -> bool:
    """Whether two names may mean one camera: drivers add words to a name, so one may contain the other."""
    words_a, words_b = (
        set(re.findall(r"[a-z]*\d+[a-z]*|[a-z]+", n.lower())) - {"zwo", "ccd", "camera", "ascom", "asi"} for n in (a, b)
    )
    return not words_a or not words_b or words_a <= words_b or words_b <= words_a


def _equal(a: Any, b: Any) -> float:
    return 0.0 if a == b else 2.0


def _within(tolerance: float) -> Callable[[float, float], float]:
    return lambda a, b: 0.0 if abs(a - b) <= tolerance else 2.0


def _temperatures(tolerance: float) -> Callable[[float, float], float]:
    def distance(a: float, b: float) -> float:
        far = abs(a - b)
        return 0.0 if far <= tolerance else (far / FAR_TEMPERATURE_C if far <= FAR_TEMPERATURE_C else 2.0)

    return distance


def _turned(tolerance: float) -> Callable[[float, float], float]:
    def distance(a: float, b: float) -> float:
        far = abs((a - b + 180.0) % 360.0 - 180.0)
        return 0.0 if far <= tolerance else 0.2 + 0.8 * far / 180.0

    return distance


def _temperature(frame: Frame) -> float | None:
    header = frame.header
    return header.sensor_temp_c if header.sensor_temp_c is not None else header.set_temp_c


def _row_order(frame: Frame) -> str | None:
    return frame.header.row_order


def _day(frame: Frame) -> float | None:
    import datetime

    return float(datetime.date.fromisoformat(frame.header.night).toordinal()) if frame.header.night else None


def _date(day: float) -> str:
    import datetime

    return datetime.date.fromordinal(int(day)).isoformat()
