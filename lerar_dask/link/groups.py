"""Groups: lights of one target, filter and camera, which make one master."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerar_dask.frames.reader import Frame

__all__ = ["LightGroup", "groups_of", "safe_name"]


@dataclass(frozen=True, kw_only=True)
class LightGroup:
    """Lights that make one master."""

    name: str
    target: str
    filter: str
    camera: str
    cfa: str | None
    frames: tuple[Frame, ...]


def groups_of(lights: Sequence[Frame]) -> list[LightGroup]:
    """Lights of one target, filter and camera; names as `M31_L`."""
    sets: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frame in lights:
        h = frame.header
        target = h.object or _folder_name(frame.path)
        key = (
            safe_name(target),
            safe_name(h.filter or ""),
            _camera_key(h.camera),
            h.binning or (1, 1),
            h.cfa or "",
            frame.shape,
        )
        sets[key].append(frame)
    plain = Counter((key[0].lower(), key[1].lower()) for key in sets)
    named: list[LightGroup] = []
    taken: Counter[str] = Counter()
    for key in sorted(sets, key=str):
        target, filter_, camera, binning, _, shape = key
        parts = [target, filter_]
        if plain[(target.lower(), filter_.lower())] > 1:
            parts += [safe_name(camera), "" if binning == (1, 1) else f"bin{binning[1]}", f"{shape[1]}x{shape[0]}"]
        name = "_".join(p for p in parts if p)
        taken[name.lower()] += 1
        if taken[name.lower()] > 1:
            name = f"{name}_{taken[name.lower()]}"
        frames = sorted(sets[key], key=lambda f: (f.header.start_unix or 0.0, str(f.path)))
        first = frames[0].header
        named.append(
            LightGroup(
                name=name, target=target, filter=filter_, camera=first.camera or "", cfa=first.cfa, frames=tuple(frames)
            )
        )
    return named


def _folder_name(path: Path) -> str:
    return path.parent.name or "stack"


def _camera_key(camera: str | None) -> str:
    return (camera or "").lower()


def safe_name(text: str) -> str:
    """A name that is safe as a file name: header text is never trusted in paths."""
    name = re.sub(r"[^\w.+-]+", "-", text.strip(), flags=re.UNICODE).strip("-._")[:60]
    return name
