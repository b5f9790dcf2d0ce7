"""Lights that their own numbers speak against: no stars where only one word says light, or the noise of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lerar_dask.frames.reader import Frame
from lerar_dask.link.kinds import PIN
from lerar_dask.pipeline.prepare import Light
from lerar_dask.run import Sub
from lerar_dask.store.access import Store

__all__ = ["doubtful", "earlier_stacks", "no_lights"]

FEWEST_STARS = 6
"""With fewer, a frame cannot be registered."""
_SHARE = 0.2
"""Part of the stars of the undoubted subs that a frame shows at least: warm pixels side by side look like a few stars."""


_STACKED_NOISE = 0.6
"""A frame with less than this part of the others' noise at the same sky is the mean of three subs or more."""
_FEWEST_OTHERS = 3


def doubtful(store: Store, lights: Sequence[Light], subs: Sequence[Sub]) -> dict[str, str]:
    """Subs that are no lights, or no single subs, with the reason, by path."""
    return no_lights(store, lights, subs) | earlier_stacks(store, lights, subs)


def no_lights(store: Store, lights: Sequence[Light], subs: Sequence[Sub]) -> dict[str, str]:
    """Subs that are hardly lights, with the reason, by path.

    Parameters
    ----------
    subs : of the lights, as they were measured
    """
    called = {str(light.frame.path): _what_it_is_called(light.frame) for light in lights}
    n_stars = {s.path: int(store.measures(s.geometry, s.measure).summary(s.slot)["n_stars"]) for s in subs}
    usual = [n for path, n in n_stars.items() if not called[path]]
    least = max(FEWEST_STARS, _SHARE * float(np.median(usual))) if usual else FEWEST_STARS
    return {
        path: f"{called[path]}, {n} stars: no light. {PIN}" for path, n in n_stars.items() if called[path] and n < least
    }


def earlier_stacks(store: Store, lights: Sequence[Light], subs: Sequence[Sub]) -> dict[str, str]:
    """Subs of floats that have the noise of a mean of several subs, with the reason, by path.

    They are compared with the other subs of their group that were exposed no longer. A darker sky has less noise too: no
    less than in proportion to its level.
    """
    summaries = {s.path: store.measures(s.geometry, s.measure).summary(s.slot) for s in subs}
    floats = {str(light.frame.path) for light in lights if _is_float(light.frame)}
    found = {}
    for sub in (s for s in subs if s.path in floats):
        others = [
            summaries[s.path]
            for s in subs
            if s.group == sub.group and s.path != sub.path and s.exposure_s <= 1.05 * sub.exposure_s
        ]
        if len(others) < _FEWEST_OTHERS:
            continue
        noise, sky = (float(np.median([s[name] for s in others])) for name in ("noise_adu", "background_adu"))
        own = summaries[sub.path]
        darker = own["background_adu"] / sky if 0 < own["background_adu"] < sky else 1.0
        if 0 < own["noise_adu"] < _STACKED_NOISE * darker * noise:
            found[sub.path] = (
                f"its noise is {own['noise_adu']:.3g}, that of the other subs {noise:.3g}: it is a mean of several, no sub"
            )
    return found


def _is_float(frame: Frame) -> bool:
    return frame.pixels is not None and np.dtype(frame.pixels.dtype).kind == "f"


def _what_it_is_called(frame: Frame) -> str:
    """What stands against a frame's being a light; empty: nothing."""
    header = frame.header
    if header.kind == "unknown":
        return "neither header nor folder says what it is"
    if header.named_kind and header.named_kind != "light":
        return f"header says light, folder or name says {header.named_kind}"
    return ""
