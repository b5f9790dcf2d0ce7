"""What a frame is taken for, and what is to be said where header, folder and name do not agree."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lerar_dask.frames.frame import Frame
from lerar_dask.settings import Link as LinkSettings

__all__ = ["PIN", "kind_notes", "kind_of", "unusable"]

PIN = '[[kind]] frame = "pattern" is = "kind" in a file given by --pins says what they are'

_NO_SUBS = {
    *("acquisition", "acquire", "arc", "comp", "comparison", "engineering", "focus", "focusing", "autofocus", "guide"),
    *("guiding", "junk", "lamp", "platesolve", "pointing", "tracking", "wavelength"),
}
"""Words of headers for frames that are neither subs nor calibration frames."""


def kind_of(frame: Frame) -> str:
    """Kind of a frame that can be used: what is unknown is a light."""
    return "light" if frame.header.kind == "unknown" else frame.header.kind


def unusable(frame: Frame, settings: LinkSettings) -> str:
    """Why a frame is no raw light, no calibration frame and no master of calibration frames; empty: it is one."""
    header = frame.header
    if header.is_stack:
        n = f" of {header.n_subs} subs" if header.n_subs else ""
        return f"it is a result of stacking{n}, no sub"
    if header.is_named_result and frame.pixels is not None and np.dtype(frame.pixels.dtype).kind == "f":
        return f"its name says that it is a result of stacking, no sub, and its numbers are floats ({frame.path.name})"
    if re.sub(r"[\W_]", "", header.strange_kind.lower()) in _NO_SUBS:
        return f"its header says {header.strange_kind!r}: neither a sub nor a calibration frame. If it is one, {PIN}"
    if header.kind == "unknown" and settings.default_kind == "ask" and not header.exposure_s:
        return f"neither its header nor its folder says what kind of frame it is; {PIN}, or --default-kind light"
    return ""


def kind_notes(frames: Sequence[Frame]) -> list[str]:
    """Sentences on frames whose header, folder and name disagree, and on those of unknown kind."""
    unknown = [f for f in frames if f.header.kind == "unknown"]
    apart: dict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.header.named_kind:
            apart[(frame.header.kind, frame.header.named_kind)].append(frame)
    notes = [
        f"{_count(members)}: the header says {told}, folder or name say {named}; the header is believed. "
        f"If it is wrong, {PIN}"
        for (told, named), members in sorted(apart.items())
    ]
    strange: dict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.header.strange_kind:
            strange[(frame.header.strange_kind, kind_of(frame))].append(frame)
    notes += [
        f"{_count(members)}: the header says {word!r}, which is no kind that lerar knows; taken for a {kind}. "
        f"If that is wrong, {PIN}"
        for (word, kind), members in sorted(strange.items())
    ]
    if unknown := [f for f in unknown if not f.header.strange_kind]:
        notes.append(
            f"{_count(unknown)}: nothing says what kind of frame it is; taken for a light, since it tells an exposure. "
            f"If that is wrong, {PIN}"
        )
    named = [f for f in frames if f.header.is_named_result]
    if named:
        notes.append(f"{_count(named)}: the name says a result of stacking, the header a light; taken for a light")
    return notes


def _count(frames: Sequence[Frame]) -> str:
    first = sorted(str(f.path.name) for f in frames)[0]
    return first if len(frames) == 1 else f"{len(frames)} frames ({first} ...)"
