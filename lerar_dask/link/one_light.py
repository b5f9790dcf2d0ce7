"""One light: which dark, flat and bias it gets, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lerar_dask.frames.frame import Frame
from lerar_dask.link.pins import Pins
from lerar_dask.link.rules import exposure_distance, judge, rules_for
from lerar_dask.link.sets import MasterSpec
from lerar_dask.settings import Link as LinkSettings

__all__ = ["Choice", "LightLink", "link_light"]

_NEAR_COST = 4.0
"""Masters that do not fit and cost less than this are near misses."""
_EXPOSURE_UNKNOWN = 0.05
"""What a dark of unknown exposure counts as, in relative difference; up to here no scaling is needed."""
_MOST_SCALED = 4.0
"""Exposure of a light over that of its dark: beyond it the dark's noise, and what is not linear in it, count for more."""
_SHORT_DARK = 0.1
"""A dark of at most this part of a light's exposure holds hardly more than the bias."""


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
    dark_less_bias: bool = False
    """The bias is off the light already: of the dark only what it has above its bias is taken off."""
    notes: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[Any, ...]:
        """Which masters, and how they are used."""
        names = (c.master if c else None for c in (self.dark, self.flat, self.bias))
        return (*names, self.dark_scale, self.dark_less_bias)


def link_light(light: Frame, masters: Mapping[str, MasterSpec], settings: LinkSettings, pins: Pins) -> LightLink:
    """The best masters for a light, with reasons, near misses and notes.

    What the header says is done already is not done again. A flat is used only where the light's pedestal comes off, or is
    off: else it would brighten the corners with the pedestal as well.
    """
    return _OneLight(light, masters, settings, pins).link()


class _OneLight:
    def __init__(self, light: Frame, masters: Mapping[str, MasterSpec], settings: LinkSettings, pins: Pins) -> None:
        self.light, self.masters, self.settings, self.pins = light, masters, settings, pins
        self.done = set(light.header.calibrated) & set("BDF")
        self.notes: list[str] = []

    def link(self) -> LightLink:
        if self.done:
            self.notes.append(self._said_of_done())
        if self.light.header.pedestal_adu:
            self.notes.append(f"PEDESTAL {self.light.header.pedestal_adu:g} of the header is taken off")
        bias = self._bias()
        less_bias = "B" in self.done and "D" not in self.done
        dark, scale = (None, 1.0) if "D" in self.done else self._dark(bias)
        if less_bias and dark is not None and bias is None:
            self.notes.append(
                f"{dark.master} is not used: the light has no bias any more, and none is there for the dark"
            )
            dark, scale = None, 1.0
        flat = None if "F" in self.done else self._best("flat")
        flat = self._guarded(flat, dark, bias)
        used_bias = bias if "D" not in self.done and ("B" not in self.done or dark is not None) else None
        if dark is None and used_bias is not None and self.masters[used_bias.master].kind != "bias":
            self.notes.append(f"neither bias nor dark fits: {used_bias.master} serves as bias")
        self._say_what_lacks(dark, flat, bias)
        return LightLink(
            dark=dark,
            flat=flat,
            bias=used_bias,
            dark_scale=scale,
            dark_less_bias=less_bias and dark is not None,
            notes=tuple(self.notes),
        )

    def _said_of_done(self) -> str:
        letters = self.light.header.calibrated
        words = {"B": "bias", "D": "dark", "F": "flat"}
        what = ", ".join(words[letter] for letter in "BDF" if letter in self.done)
        told_by = self.light.header.sources.get("calibrated", "")
        source = {"name": "its name", "panel": "it is a master"}.get(told_by, f"CALSTAT {letters}")
        return f"calibrated before ({source}): no {what} again"

    # -------------------------------------------------------------------------------------------------------- choices

    def _ranked(self, kind: str) -> tuple[list[tuple[float, MasterSpec, tuple[str, ...]]], list[str]]:
        """Masters that fit, best first, and those that nearly did, in words."""
        fitting, near = [], []
        for spec in self.masters.values():
            if spec.kind != kind or not self.pins.allows(self.light.path, kind, spec.paths):
                continue
            verdict = judge(spec.sample, self.light, rules_for(kind, self.settings))
            if verdict.fits or self.pins.pins(self.light.path, kind):
                fitting.append((verdict.cost, spec, verdict.words))
            elif verdict.cost < _NEAR_COST:
                near.append(f"{spec.name}: {', '.join(verdict.words)}")
        fitting.sort(key=lambda item: (item[0], -len(item[1].frames), item[1].name))
        return fitting, near[:4]

    def _best(self, kind: str) -> Choice | None:
        fitting, near = self._ranked(kind)
        if not fitting:
            return None
        _, spec, words = fitting[0]
        others = tuple(f"{s.name}: {', '.join(w) or 'as good'}" for _, s, w in fitting[1:3])
        return Choice(master=spec.name, reason=self._reason(kind, spec, words), near_misses=(*others, *near))

    def _bias(self) -> Choice | None:
        """Bias, or a flat-dark or short dark that may serve as one."""
        if "D" in self.done:
            return None
        fitting = [item for item in self._ranked("bias")[0] if "B" not in item[1].done]
        if fitting or self.pins.pins(self.light.path, "bias"):
            return self._best("bias")
        stand_ins = []
        for kind in ("flat-dark", "dark"):
            for cost, spec, words in self._ranked(kind)[0]:
                if self._is_short(spec):
                    stand_ins.append((cost, spec.sample.header.exposure_s or 0.0, spec.name, spec, words))
        if not stand_ins:
            return None
        *_, spec, words = min(stand_ins, key=lambda item: item[:3])
        what = "flat-dark" if spec.kind == "flat-dark" else "short dark"
        equal = ", ".join(words) or "gain and offset are equal"
        return Choice(master=spec.name, reason=f"no bias is there: this {what} serves as bias ({equal})")

    def _is_short(self, spec: MasterSpec) -> bool:
        """Whether a dark holds hardly more than the bias, beside the light's own dark current."""
        own, wanted = spec.sample.header.exposure_s, self.light.header.exposure_s
        if "B" in spec.done:
            return False
        if own is None or wanted is None:
            return spec.kind == "flat-dark"
        return own <= max(_SHORT_DARK * wanted, 0.5) or (spec.kind == "flat-dark" and own <= wanted)

    def _dark(self, bias: Choice | None) -> tuple[Choice | None, float]:
        """Dark of the light's exposure; else the nearest one, scaled, when a bias allows it."""
        fitting, near = self._ranked("dark")
        wanted = self.light.header.exposure_s
        ranked = []
        for cost, spec, words in fitting:
            apart = exposure_distance(spec.sample.header.exposure_s, wanted, self.settings)
            ranked.append((_EXPOSURE_UNKNOWN if apart is None else apart, cost, spec, words))
        ranked.sort(key=lambda item: (item[0], item[1], item[2].name))
        ranked = [item for item in ranked if not (bias and item[2].name == bias.master)]
        if not ranked:
            return None, 1.0
        apart, _, spec, words = ranked[0]
        reason = self._reason("dark", spec, words)
        misses = tuple(f"{s.name}: {', '.join(w) or 'another exposure'}" for _, _, s, w in ranked[1:3])
        choice = Choice(master=spec.name, reason=reason, near_misses=(*misses, *near))
        exposure = spec.sample.header.exposure_s
        if apart <= _EXPOSURE_UNKNOWN or self.pins.pins(self.light.path, "dark") or not exposure or wanted is None:
            return choice, 1.0
        text = f"dark of {exposure:g} s for lights of {wanted:g} s: nearest there is"
        if (bias is None and "B" not in spec.done) or not self.settings.scale_darks:
            self.notes.append(f"{spec.name} is not used: {text}, and without a bias it cannot be scaled")
            return None, 1.0
        if wanted > _MOST_SCALED * exposure:
            self.notes.append(
                f"{spec.name} is not used: {text}, and more than {_MOST_SCALED:g} times its dark is noise"
            )
            return None, 1.0
        self.notes.append(f"{text}: scaled by {wanted / exposure:.3g}")
        return replace(choice, reason=f"{text}, {reason}"), wanted / exposure

    def _is_bare(self, dark: Choice) -> bool:
        """Whether a dark is without its bias."""
        return "B" in self.masters[dark.master].done

    def _guarded(self, flat: Choice | None, dark: Choice | None, bias: Choice | None) -> Choice | None:
        """The flat, unless the light keeps its pedestal."""
        if flat is None or dark is not None or bias is not None or self.done & set("BD"):
            return flat
        if self.pins.pins(self.light.path, "flat"):
            self.notes.append(
                f"{flat.master} is pinned, but neither dark nor bias takes the pedestal off: it over-corrects the corners"
            )
            return flat
        self.notes.append(
            f"{flat.master} is not used: neither dark nor bias takes the light's pedestal off, and the flat would "
            "over-correct the corners; give darks, bias or flat-darks of this gain and offset"
        )
        return None

    # -------------------------------------------------------------------------------------------------------- in words

    def _reason(self, kind: str, spec: MasterSpec, words: Sequence[str]) -> str:
        text = f"{', '.join(words)}: nearest there is" if words else "equal in all that is known"
        orders = spec.sample.header.row_order, self.light.header.row_order
        if all(orders) and orders[0] != orders[1]:
            text += "; its rows are turned over"
        text = f"{text}; {spec.unit}" if spec.unit else text
        return f"pinned; {text}" if self.pins.pins(self.light.path, kind) else text

    def _say_what_lacks(self, dark: Choice | None, flat: Choice | None, bias: Choice | None) -> None:
        said = " ".join(self.notes)
        for kind, choice, letter in (("dark", dark, "D"), ("flat", flat, "F"), ("bias", bias, "B")):
            needless = letter in self.done or (kind == "bias" and (dark is not None or "D" in self.done))
            if choice is None and not needless and not (kind == "flat" and "over-correct" in said):
                self.notes.append(f"no {kind} fits: the lights go on without{self._nearest(kind)}")

    def _nearest(self, kind: str) -> str:
        """Why the best of the unfitting ones does not fit."""
        best = None
        for spec in self.masters.values():
            if spec.kind == kind:
                verdict = judge(spec.sample, self.light, rules_for(kind, self.settings))
                if not verdict.fits and (best is None or verdict.cost < best[0]):
                    best = (verdict.cost, f" ({spec.name}: {', '.join(verdict.words)})")
        return best[1] if best else ""
