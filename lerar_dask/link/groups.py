"""Groups: lights of one target, filter and camera, which make one master.

What programs and people spell differently is one (link/meaning.py); the spelling of most frames names it, and a note
says what was put together.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerar_dask.frames.frame import Frame
from lerar_dask.link.meaning import camera_classes, filter_key, most_frequent, target_key
from lerar_dask.link.pins import Pins

__all__ = ["LightGroup", "groups_of", "safe_name"]

_NAME_BYTES = 60
"""Of a part of a file name."""


@dataclass(frozen=True, kw_only=True)
class LightGroup:
    """Lights that make one master."""

    name: str
    target: str
    filter: str
    camera: str
    cfa: str | None
    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()
    """What was put together or taken for what, in words."""


def groups_of(lights: Sequence[Frame], pins: Pins | None = None) -> list[LightGroup]:
    """Lights of one target, filter and camera; names as `M31_L`."""
    pins = pins or Pins()
    targets = _spellings(lights, _target_of, target_key)
    filters = _spellings(lights, lambda f: f.header.filter or "", filter_key)
    cameras = _camera_of(lights)
    sets: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frame in lights:
        h = frame.header
        key = (
            targets[target_key(_target_of(frame))],
            filters[filter_key(h.filter)],
            cameras[frame.path],
            h.binning or (1, 1),
            h.cfa or "",
            frame.shape,
            pins.apart(frame.path),
        )
        sets[key].append(frame)
    return _named(sets)


def _spellings(
    lights: Sequence[Frame], name_of: Callable[[Frame], str], key_of: Callable[[str], str]
) -> dict[str, str]:
    """The safe name of each meaning: its most frequent spelling; different meanings have different names."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for frame in lights:
        counts[key_of(name_of(frame))][name_of(frame)] += 1
    names: dict[str, str] = {}
    for key in sorted(counts):
        name = safe_name(most_frequent(counts[key]))
        taken = {other.casefold() for other in names.values()}
        n = 2
        plain = name
        while name.casefold() in taken:
            name, n = f"{plain}-{n}", n + 1
        names[key] = name
    return names


def _camera_of(lights: Sequence[Frame]) -> dict[Path, str]:
    """One name for all names of a camera, among frames of one size and color pattern."""
    alike: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frame in lights:
        alike[(frame.shape, frame.header.binning or (1, 1), frame.header.cfa)].append(frame)
    of: dict[Path, str] = {}
    for frames in alike.values():
        classes = camera_classes(f.header.camera for f in frames)
        of |= {f.path: classes[f.header.camera] for f in frames}
    return of


def _named(sets: Mapping[tuple[Any, ...], list[Frame]]) -> list[LightGroup]:
    plain = Counter((key[0].casefold(), key[1].casefold()) for key in sets)
    named: list[LightGroup] = []
    taken: Counter[str] = Counter()
    for key in sorted(sets, key=str):
        target, filter_, camera, binning, _, shape, apart = key
        parts = [target, filter_]
        if plain[(target.casefold(), filter_.casefold())] > 1:
            parts += [safe_name(camera) if camera else "", "" if binning == (1, 1) else f"bin{binning[1]}"]
            parts += [f"{shape[1]}x{shape[0]}", apart]
        name = "_".join(p for p in parts if p)
        taken[name.casefold()] += 1
        if taken[name.casefold()] > 1:
            name = f"{name}_{taken[name.casefold()]}"
        frames = sorted(sets[key], key=lambda f: (f.header.start_unix or 0.0, str(f.path)))
        named.append(
            LightGroup(
                name=name,
                target=target,
                filter=filter_,
                camera=camera,
                cfa=frames[0].header.cfa,
                frames=tuple(frames),
                notes=tuple(_put_together(name, frames)),
            )
        )
    return named


def _put_together(name: str, frames: Sequence[Frame]) -> list[str]:
    """What is spelled in several ways in a group."""
    notes = []
    for what, value in (
        ("OBJECT", lambda f: f.header.object),
        ("FILTER", lambda f: f.header.filter),
        ("camera", lambda f: f.header.camera),
    ):
        counts = Counter(value(f) for f in frames if value(f))
        if len(counts) > 1:
            said = ", ".join(
                f"{word!r} ({n})" for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            )
            notes.append(f"{name}: {what} {said} are taken for the same; a pin keeps apart what is not")
    return notes


def _target_of(frame: Frame) -> str:
    return frame.header.object or frame.path.parent.name or "stack"


def safe_name(text: str) -> str:
    """A name that is safe as a file name: header text is never trusted in paths; of punctuation alone, `unnamed`."""
    name = re.sub(r"[^\w.+-]+", "-", text.strip(), flags=re.UNICODE).strip("-._")
    name = name.encode()[:_NAME_BYTES].decode(errors="ignore")
    return name or ("unnamed" if text.strip() else "")
