"""Lights that their own numbers speak against: no stars where only one word says light, or the noise of a stack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.frames.frame import Frame
from lerar_dask.link.kinds import PIN
from lerar_dask.pipeline.prepare import Light
from lerar_dask.store.access import Store
from lerar_dask.sub import Sub

__all__ = ["doubtful", "earlier_stacks", "no_lights"]

Measured = tuple[Frame, Sub, Mapping[str, Any]]
"""A light, its place in the store, and the summary of its measurements."""
FEWEST_STARS = 6
"""With fewer, a frame cannot be registered."""
_SHARE = 0.2
"""Part of the stars of the undoubted subs that a frame shows at least: warm pixels side by side look like a few stars."""
_STACKED_NOISE = 0.6
"""A frame with less than this part of the others' noise at the same sky is the mean of three subs or more."""
_FEWEST_OTHERS = 3


def doubtful(store: Store, lights: Sequence[Light], subs: Sequence[Sub]) -> dict[str, str]:
    """Subs that are no lights, or no single subs, with the reason, by path.

    Parameters
    ----------
    subs : of the lights, as they were measured
    """
    frames = {str(light.frame.path): light.frame for light in lights}
    measured = [
        (frames[s.path], s, store.measures(s.geometry, s.measure).summary(s.slot)) for s in subs if s.path in frames
    ]
    groups: dict[str, list[Measured]] = defaultdict(list)
    for item in measured:
        groups[item[1].group].append(item)
    found = no_lights(measured)
    for members in groups.values():
        found |= earlier_stacks(members)
    return found


def no_lights(measured: Sequence[Measured]) -> dict[str, str]:
    """Subs that are hardly lights, with the reason, by path."""
    called = [_what_it_is_called(frame) for frame, _, _ in measured]
    n_stars = [int(summary["n_stars"]) for _, _, summary in measured]
    usual = [n for n, words in zip(n_stars, called, strict=True) if not words]
    least = max(FEWEST_STARS, _SHARE * float(np.median(usual))) if usual else FEWEST_STARS
    return {
        sub.path: f"{words}, {n} stars: no light. {PIN}"
        for (_, sub, _), words, n in zip(measured, called, n_stars, strict=True)
        if words and n < least
    }


def earlier_stacks(members: Sequence[Measured]) -> dict[str, str]:
    """Subs of floats that have the noise of a mean of several subs, with the reason, by path.

    They are compared with the other subs of their group that were exposed no longer. A darker sky has less noise too: no
    less than in proportion to its level.

    Parameters
    ----------
    members : of one group
    """
    noise, sky = (np.array([s[name] for _, _, s in members], float) for name in ("noise_adu", "background_adu"))
    exposure_s = np.array([sub.exposure_s for _, sub, _ in members])
    found = {}
    for i, (frame, sub, _) in enumerate(members):
        if not _is_float(frame):
            continue
        others = exposure_s <= 1.05 * sub.exposure_s
        others[i] = False
        if others.sum() < _FEWEST_OTHERS:
            continue
        usual, level = float(np.median(noise[others])), float(np.median(sky[others]))
        darker = sky[i] / level if 0 < sky[i] < level else 1.0
        if 0 < noise[i] < _STACKED_NOISE * darker * usual:
            found[sub.path] = (
                f"its noise is {noise[i]:.3g}, that of the other subs {usual:.3g}: it is a mean of several, no sub"
            )
    return found


def _is_float(frame: Frame) -> bool:
    return frame.pixels is not None and np.dtype(frame.pixels.dtype).kind == "f"


def _what_it_is_called(frame: Frame) -> str:
    """What stands against a frame's being a light; empty: nothing."""
    header = frame.header
    if header.strange_kind:
        return f"header says {header.strange_kind!r}"
    if header.kind == "unknown":
        return "neither header nor folder says what it is"
    if header.named_kind and header.named_kind != "light":
        return f"header says light, folder or name says {header.named_kind}"
    return ""
