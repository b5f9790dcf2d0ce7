"""Rules as data: which properties of two frames must agree, how closely, and what a difference costs.

The same rules say which frames make one set and which set a light gets: each property has one definition and one
tolerance. An unknown value is not a different value: it passes with a small cost.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lerar_dask.frames.frame import Frame
from lerar_dask.link.meaning import filter_key, same_camera
from lerar_dask.settings import Link

__all__ = ["Rule", "Verdict", "agree_within", "exposure_distance", "judge", "rules_for", "temperature_of"]

FAR_TEMPERATURE_C = 10.0
"""A dark further away than this is of no use."""
_UNKNOWN_COST = 0.5
_REFUSED = 2.0


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
    apart: Callable[[Any, Any], float]
    """Difference in units of the tolerance: at most 1 agrees."""
    text: Callable[[Any], str]
    beyond: Callable[[Any, Any], float] = lambda a, b: _REFUSED
    """Of values that do not agree: at most 1 is allowed with a remark, above is refused."""
    weight: float = 1.0
    """Of a difference in the cost."""
    splits: bool = True
    """Whether frames of one set must agree in it."""
    scale: bool = False
    """Whether values are numbers on a scale, so that a set has a range."""
    period: float = 0.0
    """Of numbers that go round, as angles do."""

    def distance(self, a: Any, b: Any) -> float:
        """0 = agrees; at most 1 = allowed with a remark; above = refused."""
        return 0.0 if self.apart(a, b) <= 1.0 else self.beyond(a, b)


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
        cost += distance * rule.weight
    return Verdict(fits, cost, tuple(words))


def agree_within(frame: Frame, other: Frame, rules: Sequence[Rule]) -> bool:
    """Whether two frames may be of one set: they agree in all that splits, and know the same of it."""
    for rule in rules:
        if rule.splits:
            a, b = rule.value(frame), rule.value(other)
            if (a is None) != (b is None) or (a is not None and rule.apart(a, b) > 1.0):
                return False
    return True


def rules_for(kind: str, settings: Link) -> tuple[Rule, ...]:
    """Rules for a dark, bias or flat-dark (to a frame), or for a flat (to a light).

    The exposure of a dark splits sets and is no part of the verdict: see `exposure_distance`.
    """
    sensor = (
        Rule("size", lambda f: f.shape, _equal, lambda v: f"{v[1]}x{v[0]}"),
        Rule("camera", lambda f: f.header.camera or None, lambda a, b: 0.0 if same_camera(a, b) else 2.0, str),
        Rule("binning", lambda f: f.header.binning, _equal, lambda v: f"{v[1]}x{v[0]}"),
        # Rows in the other order are turned over where they are used: both orders are known.
        Rule("row order", lambda f: f.header.row_order, _equal, str, beyond=lambda a, b: 0.1),
        Rule("calibration done", lambda f: f.header.calibrated, _equal, str, beyond=lambda a, b: 0.0),
    )
    electronics = (
        Rule("gain", lambda f: f.header.gain, _within(settings.gain_tolerance), _short, scale=True),
        Rule("offset", lambda f: f.header.offset, _within(settings.offset_tolerance), _short, scale=True),
        Rule("readout mode", lambda f: f.header.readout_mode, _same_words, str),
    )
    if kind == "flat":
        return (
            *sensor,
            Rule("filter", lambda f: f.header.filter, _same_filter, str),
            Rule(
                "rotator",
                lambda f: f.header.rotator_deg,
                _turned(settings.rotator_tolerance_deg),
                lambda v: f"{v:g} deg",
                beyond=lambda a, b: 0.2 + 0.8 * _turned(180.0)(a, b),
                scale=True,
                period=360.0,
            ),
            Rule("night", _day, _equal, _date, beyond=lambda a, b: min(abs(a - b) / 365.0, 1.0), weight=3.0),
            # The electronics of a flat need not be the lights', but its own frames' must be one another's.
            *(_of_sets_only(rule) for rule in electronics),
        )
    nights = Rule("night", _day, _equal, _date, beyond=lambda a, b: min(abs(a - b) / 3650.0, 0.9), splits=False)
    if kind == "bias":
        return (*sensor, *electronics, nights)
    thermal = Rule(
        "temperature",
        temperature_of,
        _within(settings.temperature_tolerance_c),
        lambda v: f"{v:g} C",
        beyond=lambda a, b: abs(a - b) / FAR_TEMPERATURE_C if abs(a - b) <= FAR_TEMPERATURE_C else _REFUSED,
        weight=5.0,
        scale=True,
    )
    exposure = Rule("exposure", lambda f: f.header.exposure_s, _exposures(settings), lambda v: f"{v:g} s", scale=True)
    return (*sensor, *electronics, thermal, nights, _of_sets_only(exposure))


def exposure_distance(a: float | None, b: float | None, settings: Link) -> float | None:
    """0 for equal exposures within the tolerance, else their relative difference; None when unknown."""
    if a is None or b is None:
        return None
    return 0.0 if _exposures(settings)(a, b) <= 1.0 else abs(a - b) / max(a, b)


def temperature_of(frame: Frame) -> float | None:
    """What the sensor had: its reading goes before the set point, which may not have been reached."""
    header = frame.header
    return header.sensor_temp_c if header.sensor_temp_c is not None else header.set_temp_c


def _of_sets_only(rule: Rule) -> Rule:
    """The rule as one that splits sets and costs a candidate nothing."""
    return Rule(**{**vars(rule), "beyond": lambda a, b: 0.0})


def _equal(a: Any, b: Any) -> float:
    return 0.0 if a == b else 2.0


def _same_words(a: str, b: str) -> float:
    return _equal("".join(a.casefold().split()), "".join(b.casefold().split()))


def _same_filter(a: str, b: str) -> float:
    return _equal(filter_key(a), filter_key(b))


def _within(tolerance: float) -> Callable[[float, float], float]:
    return lambda a, b: abs(a - b) / max(tolerance, 1e-6)


def _exposures(settings: Link) -> Callable[[float, float], float]:
    return lambda a, b: abs(a - b) / max(settings.exposure_tolerance_s, 0.01 * max(a, b), 1e-6)


def _turned(tolerance: float) -> Callable[[float, float], float]:
    return lambda a, b: abs((a - b + 180.0) % 360.0 - 180.0) / max(tolerance, 1e-6)


def _short(value: float) -> str:
    return f"{value:g}"


def _day(frame: Frame) -> float | None:
    return float(datetime.date.fromisoformat(frame.header.night).toordinal()) if frame.header.night else None


def _date(day: float) -> str:
    return datetime.date.fromordinal(int(day)).isoformat()
