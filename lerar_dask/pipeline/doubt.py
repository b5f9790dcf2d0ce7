"""Frames that are lights by one word only, and show no stars: what their folder, their name or nobody says is believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lerar_dask.frames.reader import Frame
from lerar_dask.link.kinds import PIN
from lerar_dask.pipeline.prepare import Light
from lerar_dask.run import Sub
from lerar_dask.store.access import Store

__all__ = ["no_lights"]

FEWEST_STARS = 6
"""With fewer, a frame cannot be registered."""
_SHARE = 0.2
"""Part of the stars of the undoubted subs that a frame shows at least: warm pixels side by side look like a few stars."""


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


def _what_it_is_called(frame: Frame) -> str:
    """What stands against a frame's being a light; empty: nothing."""
    header = frame.header
    if header.kind == "unknown":
        return "neither header nor folder says what it is"
    if header.named_kind and header.named_kind != "light":
        return f"header says light, folder or name says {header.named_kind}"
    return ""
