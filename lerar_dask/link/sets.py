"""Sets: calibration frames that may be averaged, ready masters, and what is taken off a flat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lerar_dask.frames.frame import Frame
from lerar_dask.link.groups import safe_name
from lerar_dask.link.rules import Rule, agree_within, exposure_distance, judge, rules_for, temperature_of
from lerar_dask.settings import Link as LinkSettings

__all__ = ["MasterSpec", "agreeing", "specs_of", "with_pedestals"]


@dataclass(frozen=True, kw_only=True)
class MasterSpec:
    """Frames that are combined to one master, or one file that is a master already."""

    name: str
    kind: str
    frames: tuple[Frame, ...]
    """Sorted by path."""
    ready: Frame | None
    span: str = ""
    """Ranges of what differs among the frames, in words."""
    n_unfit: int = 0
    """Frames of this set that were set aside."""
    pedestal: str | None = None
    """Master taken off each frame of a flat: its flat-dark or bias."""
    pedestal_reason: str = ""
    unit: str = ""
    """What was done to bring its numbers to those of the lights, in words; empty: nothing."""

    @property
    def sample(self) -> Frame:
        """A frame that speaks for all: the ready master, or the one in the middle of the set's range."""
        if self.ready is not None:
            return self.ready
        order = sorted(self.frames, key=lambda f: (temperature_of(f) or 0.0, f.header.exposure_s or 0.0, str(f.path)))
        return order[len(order) // 2]

    @property
    def files(self) -> tuple[Frame, ...]:
        """Its raw frames, or the one file that is a master already."""
        return self.frames or ((self.ready,) if self.ready is not None else ())

    @property
    def paths(self) -> list[Path]:
        """Files of the master."""
        return [f.path for f in self.files]

    @property
    def done(self) -> str:
        """Letters of the calibration that its frames have had: B, D, F."""
        return "".join(letter for letter in "BDF" if letter in self.sample.header.calibrated)

    @property
    def count(self) -> str:
        """How many frames, of how many, in words."""
        if not self.frames:
            return "a master of yours"
        n, offered = len(self.frames), len(self.frames) + self.n_unfit
        counted = f"{n} frame{'s' * (n != 1)}" if n == offered else f"{n} of {offered} frames"
        return f"{counted}, {self.span}" if self.span else counted


def specs_of(
    kind: str, frames: Iterable[Frame], settings: LinkSettings, *, unfit: Sequence[Frame] = ()
) -> list[MasterSpec]:
    """Sets of frames that may be averaged, and ready masters; one name each.

    Parameters
    ----------
    unfit : frames of the kind that were set aside: counted with the set that they would be in
    """
    rules = rules_for(kind, settings)
    frames = sorted(frames, key=lambda f: str(f.path))
    raw = [f for f in frames if not f.header.is_master]
    specs = [
        MasterSpec(
            name="",
            kind=kind,
            frames=tuple(members),
            ready=None,
            span=_span(members, rules),
            n_unfit=sum(agree_within(f, members[len(members) // 2], rules) for f in unfit),
        )
        for members in agreeing(raw, rules)
    ]
    specs += [MasterSpec(name="", kind=kind, frames=(), ready=f) for f in frames if f.header.is_master]
    return _named(specs)


def agreeing(frames: Sequence[Frame], rules: Sequence[Rule]) -> list[list[Frame]]:
    """Frames in sets of which any two agree in every property that splits, each set in the order of `frames`.

    A set whose range of a property is wider than its tolerance is cut where the gap is widest, again and again: so no
    value is near a border, and frames that belong together are not parted by rounding.
    """
    parts = [list(frames)] if frames else []
    for rule in rules:
        if rule.splits:
            parts = [part for whole in parts for part in _split(whole, rule)]
    return parts


def _split(frames: list[Frame], rule: Rule) -> list[list[Frame]]:
    """Parts of a set that agree in one property; frames that do not tell it are a part of their own."""
    values = [rule.value(f) for f in frames]
    known = sorted({v for v in values if v is not None}, key=lambda v: v if rule.scale else str(v))
    classes = _ranges(known, rule) if rule.scale else _classes(known, Counter(v for v in values if v is not None), rule)
    of = {value: i for i, members in enumerate(classes) for value in members}
    parts: dict[int, list[Frame]] = {}
    for frame, value in zip(frames, values, strict=True):
        parts.setdefault(-1 if value is None else of[value], []).append(frame)
    return [parts[i] for i in sorted(parts)]


def _classes(known: Sequence[Any], counts: Mapping[Any, int], rule: Rule) -> list[list[Any]]:
    """Words that mean the same: each joins the first class that it agrees with throughout, the most frequent first."""
    classes: list[list[Any]] = []
    for value in sorted(known, key=lambda v: (-counts[v], str(v))):
        own = next((c for c in classes if all(rule.apart(value, other) <= 1.0 for other in c)), None)
        if own is None:
            classes.append([value])
        else:
            own.append(value)
    return classes


def _ranges(known: list[float], rule: Rule) -> list[list[float]]:
    """Sorted numbers in runs no wider than the tolerance."""
    if rule.period and len(known) > 1:
        # Round a circle, the widest gap is where it is cut open.
        gaps = [(b - a) % rule.period for a, b in zip(known, known[1:] + known[:1], strict=True)]
        at = max(range(len(known)), key=lambda i: gaps[i]) + 1
        known = known[at:] + known[:at]
    done, todo = [], [known] if known else []
    while todo:
        run = todo.pop()
        if len(run) == 1 or rule.apart(run[0], run[-1]) <= 1.0:
            done.append(run)
            continue
        middle = (len(run) - 2) / 2
        # Of gaps as wide as one another the one in the middle.
        cut = max(range(len(run) - 1), key=lambda i: (round(rule.apart(run[i], run[i + 1]), 9), -abs(i - middle)))
        todo += [run[cut + 1 :], run[: cut + 1]]
    return done


def _span(frames: Sequence[Frame], rules: Sequence[Rule]) -> str:
    """Ranges of numbers that are not the same in all frames."""
    words = []
    for rule in rules:
        values = {rule.value(f) for f in frames} - {None}
        if rule.scale and rule.splits and len(values) > 1:
            first, *_, last = sorted(values)
            words.append(f"{rule.name} {rule.text(first)} to {rule.text(last)}")
    return ", ".join(words)


def _named(specs: list[MasterSpec]) -> list[MasterSpec]:
    """The sets with a name each, in the order of their first files."""
    names: Counter[str] = Counter()
    named = []
    for spec in sorted(specs, key=lambda s: (_set_name(s.kind, s.sample), str(s.paths[0]))):
        name = _set_name(spec.kind, spec.sample)
        names[name] += 1
        named.append(replace(spec, name=f"{name}_{names[name]}" if names[name] > 1 else name))
    return named


def _set_name(kind: str, frame: Frame) -> str:
    h = frame.header
    parts = [("master-" if h.is_master else "") + kind]
    if kind == "flat":
        parts += [h.filter or "", h.night or ""]
    if kind in ("dark", "flat-dark") and h.exposure_s is not None:
        parts.append(f"{h.exposure_s:g}s")
    if h.gain is not None and kind != "flat":
        parts.append(f"g{h.gain:g}")
    temperature = temperature_of(frame)
    if kind in ("dark", "flat-dark") and temperature is not None:
        parts.append(f"{temperature:.0f}C")
    return safe_name("_".join(p for p in parts if p))


def with_pedestals(
    masters: Mapping[str, MasterSpec], settings: LinkSettings
) -> tuple[dict[str, MasterSpec], list[tuple[Frame, str]]]:
    """Give each flat its flat-dark, or a dark of its exposure, or its bias; refuse flats that have none.

    Flats whose header says that bias or dark are off already need none.
    """
    out, refused = {}, []
    for name, spec in masters.items():
        if spec.kind != "flat" or spec.ready is not None or set(spec.done) & set("BD"):
            out[name] = spec
            continue
        pedestal, reason = _pedestal_of(spec, masters, settings)
        if pedestal is None:
            text = "a flat with neither bias nor flat-dark keeps its pedestal, and corrects too little: it is not used"
            refused += [(frame, text) for frame in spec.frames]
        else:
            out[name] = replace(spec, pedestal=pedestal, pedestal_reason=reason)
    return out, refused


def _pedestal_of(flat: MasterSpec, masters: Mapping[str, MasterSpec], settings: LinkSettings) -> tuple[str | None, str]:
    for kind, word in (("flat-dark", "flat-dark"), ("dark", "dark of its exposure"), ("bias", "bias")):
        best = None
        for spec in masters.values():
            if spec.kind != kind or "B" in spec.done:
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
