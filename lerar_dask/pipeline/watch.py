"""Watch folders while a camera writes into them, and stack again whenever frames have come.

A file counts once two looks in a row have found it the same: what is still being written is waited for. A folder that
is not there, or empty all of a sudden, is a share that has gone away: it is waited for as well, and nothing is set aside.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lerar_dask.errors import LerarError, LockedError, StoreError, UsageError
from lerar_dask.frames.scan import scan
from lerar_dask.pipeline.bucket_night import near_nights
from lerar_dask.pipeline.prepare import survey_frames
from lerar_dask.pipeline.stack import check_out, stack_night
from lerar_dask.runtime import events
from lerar_dask.settings import Settings
from lerar_dask.summary import Summary

__all__ = ["watch"]

Seen = dict[str, tuple[int, int]]
"""Size and time of each file, by path."""


def watch(
    nights: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    bus: events.Bus,
    every_s: float = 5.0,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[Summary]:
    """Stack what is there, and again each time that more has come; a summary each time, without end.

    Parameters
    ----------
    every_s : seconds between looks
    wait : called between looks

    Raises
    ------
    LerarError
        for what more frames do not mend: wrong usage, a foreign OUT, a full disk.
    """
    out = Path(out).absolute()
    url = Path(check_out(out, settings))
    given, nights = nights, near_nights(nights, out, bus)
    before: Seen = {}
    stacked: set[tuple[str, int, int]] = set()
    told = ""
    while True:
        try:
            near_nights(given, out, bus)  # what has come into a bucket since
            now = _look(nights, [out, url])
        except StoreError:
            now = None
        if now is None or (stacked and not now):
            told = _tell(bus, told, "the folder of the frames has gone away: waiting for it")
            wait(every_s)
            continue
        whole = {(path, *seen) for path, seen in now.items() if before.get(path) == seen}
        before = now
        if not whole - stacked:
            told = _tell(bus, told, "waiting for frames")
            wait(every_s)
            continue
        told = ""
        summary = _stacked(whole, nights, out, settings, bus)
        if summary is not None:
            stacked = whole
            yield summary
        else:
            stacked |= whole


def _stacked(
    whole: set[tuple[str, int, int]], nights: Sequence[Path], out: Path, settings: Settings, bus: events.Bus
) -> Summary | None:
    """A run on files that are whole; None where they do not make a master yet."""
    frames = [
        f
        for f in scan([Path(path) for path, _, _ in sorted(whole)]).frames
        if (str(f.path), f.size, f.mtime_ns) in whole
    ]
    night = survey_frames(frames, settings)
    if not night.lights:
        bus.emit(events.Note(text="no lights yet"))
        return None
    try:
        return stack_night(night, nights, out, settings, bus=bus)
    except (UsageError, LockedError):
        raise
    except LerarError as error:
        if type(error) is not LerarError:
            raise
        bus.emit(events.Note(text=f"{error.message}; more frames may mend it", level="warning"))
        return None


def _look(nights: Sequence[Path], barred: Sequence[Path]) -> Seen | None:
    """All files below the folders; None when a folder is not there."""
    found: Seen = {}
    try:
        for night in nights:
            for folder, folders, files in os.walk(night, onerror=_raise, followlinks=True):
                here = Path(folder)
                folders[:] = [f for f in folders if not f.startswith(".") and here / f not in barred]
                for name in files:
                    if not name.startswith("."):
                        status = os.stat(here / name)
                        found[str(here / name)] = (status.st_size, status.st_mtime_ns)
    except FileNotFoundError as error:
        # a file that was renamed just now is no reason to wait for its folder
        return None if str(error.filename) in {str(n) for n in nights} else found
    except OSError:
        return None
    return found


def _raise(error: OSError) -> None:
    raise error


def _tell(bus: events.Bus, before: str, text: str) -> str:
    """Say something once."""
    if text != before:
        bus.emit(events.Note(text=text))
    return text
