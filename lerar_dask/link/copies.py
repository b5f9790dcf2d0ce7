"""Copies: a sub is its exposure, whatever was made of it. Converted, calibrated and registered copies are set aside.

Frames of one camera that began in the same millisecond are one exposure. The rawest of its files is taken: whole numbers
before floats, no marks of a program in the name before marks, all pixels before binned ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lerar_dask.frames import names
from lerar_dask.frames.frame import Frame
from lerar_dask.link.meaning import camera_classes

__all__ = ["without_copies"]


def without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], list[tuple[Frame, str]]]:
    """One file of each exposure, and the others with the reason why they are set aside.

    A copy whose original is not here stands for it; what its name says was done to it is not done again.
    """
    classes = camera_classes(f.header.camera for f in frames)
    exposures: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        exposures[_exposure_of(frame, classes)].append(frame)
    kept, aside = [], []
    for same in exposures.values():
        same.sort(key=_rank)
        original = same[0]
        for frame in same:
            if frame is original or _rank(frame)[:-1] == _rank(original)[:-1]:
                # Two files that nothing tells apart may be of two cameras; the same pixels are noticed when they are read.
                kept.append(_as_made(frame))
            else:
                aside.append((frame, f"the same exposure as {original.path.name}: {_made(frame)}"))
    return kept, aside


def _exposure_of(frame: Frame, classes: dict[str | None, str]) -> tuple[Any, ...]:
    """What makes files one exposure; a file whose header tells no start is one by itself."""
    header = frame.header
    if header.start_unix is None or header.sources.get("start") == "name" or header.is_master:
        return (str(frame.path),)
    return header.kind, classes[header.camera], round(header.start_unix * 1000)


def _rank(frame: Frame) -> tuple[Any, ...]:
    marks = names.copy_marks(frame.path) + (("named a result",) if frame.header.is_named_result else ())
    return (
        len(marks) > 0,
        _is_float(frame),
        -frame.shape[0] * frame.shape[1],
        bool(frame.header.calibrated),
        str(frame.path),
    )


def _made(frame: Frame) -> str:
    """What a copy is, in words."""
    marks = names.copy_marks(frame.path)
    if frame.header.is_named_result:
        return "its name says that it is a result of stacking"
    if marks:
        return f"its name says that a program made it ({', '.join(marks)})"
    if _is_float(frame):
        return "its numbers are floats, those of the original are whole"
    if frame.header.calibrated:
        return f"it is calibrated (CALSTAT {frame.header.calibrated})"
    return "it has fewer pixels"


def _as_made(frame: Frame) -> Frame:
    """A copy that stands for its exposure, marked with the calibration that its name tells."""
    if frame.header.calibrated or frame.header.kind != "light" or not names.is_calibrated(frame.path):
        return frame
    return replace(
        frame, header=replace(frame.header, calibrated="BDF", sources={**frame.header.sources, "calibrated": "name"})
    )


def _is_float(frame: Frame) -> bool:
    return frame.pixels is not None and np.dtype(frame.pixels.dtype).kind == "f"
