"""Soundness: which calibration frames must stay out of their masters, told before and while they are combined.

Reads   some rows of calibration files and of lights; the masters that are taken off flats
Tasks   look over (one per set of bias, darks, flat-darks, before they are combined), levels (one per set of flats, when its
        pedestal is there), check (one per master that failed: every frame to its end)
Each answers with the frames that are of no use, and why; the links are made again without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames.frame import Frame
from lerar_dask.frames.reader import band_of
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.calibrate.soundness import Look, flat_misfits, look_at, misfits, over_the_lights
from lerar_dask.link.match import Links, MasterSpec
from lerar_dask.settings import Masters
from lerar_dask.stages.calibrate.bands import read_master
from lerar_dask.stages.calibrate.masters import is_turned, master_key
from lerar_dask.stages.side_by_side import side_by_side
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = ["check_frames", "flat_levels", "look_over", "plan_checks", "plan_levels", "plan_looks"]

_ROWS = 64
"""So many rows, spread over the height and with the last one, tell a frame's level: to 1e-4 and better."""
_LIGHTS = 5
"""So many lights tell whether a dark is above them."""


def plan_looks(store_url: str, links: Links, settings: Masters) -> Step:
    """Tasks that look for frames that do not fit, one per set of bias, darks or flat-darks."""
    tasks = []
    for name, spec in links.masters.items():
        if spec.kind != "flat" and spec.files:
            lights = _lights_of(spec, links)
            arguments = {"frames": tuple(spec.files), "lights": tuple(lights)}
            files = [(str(f.path), f.size, f.mtime_ns) for f in lights]
            key = digest("look", code_of(__name__), master_key(spec, links, settings), files)
            tasks.append(Task(key=f"look/{name}", digest=key, function=look_over, arguments=arguments))
    return Step(name="look over", tasks=tasks, task_bytes=64 << 20)


def _lights_of(spec: MasterSpec, links: Links) -> list[Frame]:
    """Some of the lights that a dark or bias is taken off as it is, evenly picked."""
    own = []
    for frame in (frame for group in links.groups for frame in group.frames):
        link = links.of[frame.path]
        whole = link.dark or link.bias
        if whole and whole.master == spec.name and link.dark_scale == 1.0 and not link.dark_less_bias:
            own.append(frame)
    return [own[i] for i in np.unique(np.linspace(0, len(own) - 1, _LIGHTS).round().astype(int))] if own else []


def look_over(*, frames: tuple[Frame, ...], lights: tuple[Frame, ...]) -> dict[str, list[tuple[str, str]]]:
    """Path and reason of every bias, dark or flat-dark that cannot be read, does not fit, or is above the lights.

    Parameters
    ----------
    frames : of one set
    lights : some of those that the master is taken off
    """
    looks, bad = _looks(frames)
    beside, _ = _looks(lights)
    known = list(looks)
    odd = misfits([looks[i] for i in known])
    odd |= over_the_lights([looks[i] for i in known], list(beside.values()))
    return {"bad": _named(frames, bad | {known[k]: reason for k, reason in odd.items()})}


def plan_levels(store_url: str, links: Links, settings: Masters) -> Step:
    """Tasks that measure the level of each flat's frames."""
    tasks = []
    for name, spec in links.masters.items():
        if spec.kind == "flat" and spec.files:
            arguments = {"frames": tuple(spec.files), **_pedestal(store_url, spec, links, settings)}
            key = digest("levels", code_of(__name__), master_key(spec, links, settings))
            tasks.append(Task(key=f"levels/{name}", digest=key, function=flat_levels, arguments=arguments))
    return Step(name="flat levels", tasks=tasks, task_bytes=64 << 20)


def flat_levels(
    *, store_url: str, frames: tuple[Frame, ...], pedestal_key: str | None, pedestal_turned: bool
) -> dict[str, Any]:
    """Mean level of each flat above its pedestal (0 where it is of no use), and those of no use with the reason."""
    below = _below(open_store(store_url), pedestal_key, frames[0].shape, turned=pedestal_turned)
    looks, bad = _looks(frames, below)
    known = list(looks)
    bad |= {known[k]: reason for k, reason in flat_misfits([looks[i] for i in known]).items()}
    levels = [0.0 if i in bad else looks[i].mean for i in range(len(frames))]
    return {"levels": levels, "bad": _named(frames, bad)}


def plan_checks(store_url: str, links: Links, settings: Masters, names: Sequence[str]) -> Step:
    """Tasks that look for the frames that spoil the masters of these names, one per master."""
    tasks, task_bytes = [], 0
    for name in names:
        spec = links.masters[name]
        key = digest("check", code_of(__name__), master_key(spec, links, settings))
        arguments = {"frames": tuple(spec.files)}
        tasks.append(Task(key=f"check/{name}", digest=key, function=check_frames, arguments=arguments))
        task_bytes = max(task_bytes, 16 * spec.sample.shape[0] * spec.sample.shape[1])
    return Step(name="check", tasks=tasks, task_bytes=task_bytes)


def check_frames(*, frames: tuple[Frame, ...]) -> dict[str, list[tuple[str, str]]]:
    """Path and reason of every frame that cannot be read to its end."""
    bad = {}
    for i, frame in enumerate(frames):
        try:
            band_of(frame, 0, frame.shape[0])
        except FrameError as error:
            bad[i] = error.message
    return {"bad": _named(frames, bad)}


# ---------------------------------------------------------------------------------------------------------------- rows


def _looks(frames: Sequence[Frame], below: np.ndarray | float = 0.0) -> tuple[dict[int, Look], dict[int, str]]:
    """What some rows of each frame tell, and why those that cannot be read cannot, by index."""

    def look(frame: Frame) -> Look | str:
        try:
            return look_at(_rows(frame), below=below, saturation=frame.saturation)
        except FrameError as error:
            return error.message

    found = dict(enumerate(side_by_side(look, frames)))
    bad = {i: reason for i, reason in found.items() if isinstance(reason, str)}
    return {i: seen for i, seen in found.items() if not isinstance(seen, str)}, bad


def _rows(frame: Frame) -> np.ndarray:
    """Rows of a frame that tell its level."""
    first, step = _spread(frame.shape[0])
    return band_of(frame, first, frame.shape[0], step=step)


def _spread(height: int) -> tuple[int, int]:
    """First row and step, so that the last row is one of them, and rows of both colors of a pattern are."""
    step = max(1, height // _ROWS) | 1
    return (height - 1) % step, step


def _pedestal(store_url: str, spec: MasterSpec, links: Links, settings: Masters) -> Mapping[str, Any]:
    """Arguments that say what is taken off a flat."""
    key = master_key(links.masters[spec.pedestal], links, settings) if spec.pedestal else None
    return {"store_url": store_url, "pedestal_key": key, "pedestal_turned": is_turned(spec, links)}


def _below(store: Store, key: str | None, shape: tuple[int, int], *, turned: bool) -> np.ndarray | float:
    """Rows of a flat's pedestal that tell its level."""
    if not key:
        return 0.0
    first, step = _spread(shape[0])
    return read_master(store, key, shape)[:: -1 if turned else 1][first::step]


def _named(frames: Sequence[Frame], bad: Mapping[int, str]) -> list[tuple[str, str]]:
    return [(str(frames[i].path), bad[i]) for i in sorted(bad)]
