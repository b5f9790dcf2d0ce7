"""Room: frames that are too large for the memory of the run are set aside by name, before anything is read."""

from __future__ import annotations

from lerar_dask.errors import MemoryBudgetError
from lerar_dask.frames.frame import Frame
from lerar_dask.pipeline.prepare import Night, without_frames
from lerar_dask.runtime.memory import RESERVED_BYTES, format_bytes
from lerar_dask.settings import Settings
from lerar_dask.stages.calibrate.masters import set_bytes
from lerar_dask.stages.ingest import ingest_bytes
from lerar_dask.stages.solve_memory import agree_bytes, solve_bytes

__all__ = ["within_memory"]


def within_memory(night: Night, budget_bytes: int, settings: Settings) -> Night:
    """The night without the frames of which not one fits into the memory.

    Raises
    ------
    MemoryBudgetError
        when no light is left, or the subs of a target cannot be solved together; with the memory that would do.
    """
    large = {f.path: f for f in night.frames if not f.problem and _bytes_of(f) > budget_bytes}
    lights = [light.frame for light in night.lights]
    if large and all(frame.path in large for frame in lights):
        least = min(map(_bytes_of, lights))
        raise MemoryBudgetError(
            f"the smallest of the lights needs {format_bytes(least)}, {format_bytes(budget_bytes)} are given",
            f"give --memory {_in_words(least)} or more",
        )
    reasons = {str(path): _reason(frame, budget_bytes) for path, frame in large.items()}
    if reasons:
        night = without_frames(night, reasons, settings)
    _check_solves(night, budget_bytes)
    return night


def _check_solves(night: Night, budget_bytes: int) -> None:
    """Refuse what takes the numbers of all subs at once and does not fit, whatever the size of a frame."""
    for group in night.links.groups:
        shapes = [frame.shape for frame in group.frames]
        same_target = sum(len(other.frames) for other in night.links.groups if other.target == group.target)
        least = RESERVED_BYTES + max(solve_bytes(shapes), agree_bytes(same_target))
        if least > budget_bytes:
            raise MemoryBudgetError(
                f"solving the {len(shapes)} subs of {group.name} needs {format_bytes(least)}, {format_bytes(budget_bytes)} "
                "are given",
                f"give --memory {_in_words(least)} or more",
            )


def _bytes_of(frame: Frame) -> int:
    """Memory of a run that works on a frame of this size."""
    pixels = frame.shape[0] * frame.shape[1]
    return RESERVED_BYTES + max(ingest_bytes(pixels), set_bytes(pixels))


def _reason(frame: Frame, budget_bytes: int) -> str:
    height, width = frame.shape
    need = _bytes_of(frame)
    return (
        f"its {width} x {height} pixels need {format_bytes(need)} of memory, {format_bytes(budget_bytes)} are given: "
        f"--memory {_in_words(need)} takes it in"
    )


def _in_words(n: int) -> str:
    return format_bytes(1.02 * n).replace(" ", "")
