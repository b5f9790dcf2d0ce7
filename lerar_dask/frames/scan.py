"""Scan: from folders to frames. Every file ends as a usable frame, a frame with its problem, or is counted as foreign."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lerar_dask.errors import FrameError, UsageError
from lerar_dask.frames.formats import format_of
from lerar_dask.frames.frame import Frame
from lerar_dask.frames.header import Header

__all__ = ["Scan", "probe", "scan"]

_FITS = {".fits", ".fit", ".fts", ".fz"}
_LATER = {
    ".xisf",
    ".ser",
    ".tif",
    ".tiff",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
    ".dng",
    ".orf",
    ".rw2",
    ".pef",
    ".kdc",
}


@dataclass(frozen=True)
class Scan:
    """What the folders hold."""

    frames: tuple[Frame, ...]
    """Sorted by path."""
    n_foreign: int
    """Files that are no images."""


def scan(nights: Sequence[Path], *, exclude: Sequence[Path] = ()) -> Scan:
    """All frames below some folders (or files).

    Parameters
    ----------
    exclude : folders not to go into: OUT, when it lies inside a night

    Raises
    ------
    UsageError
        when a night does not exist.
    """
    barred = {Path(p).resolve() for p in exclude}
    paths: list[Path] = []
    troubles: list[Frame] = []
    n_foreign = 0
    for night in nights:
        if not night.exists():
            raise UsageError(f"there is no folder {night}")
        for path in _files(night, barred, troubles):
            if _is_candidate(path):
                paths.append(path)
            else:
                n_foreign += 1
    unique = sorted({os.path.abspath(p): p for p in paths}.values(), key=str)
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(probe, unique, chunksize=16))
    return Scan(tuple(sorted([*frames, *troubles], key=lambda f: str(f.path))), n_foreign)


def probe(path: Path) -> Frame:
    """Frame of one file; never raises: what is wrong stands in `problem`."""
    try:
        stat = os.stat(path)
    except OSError as error:
        return _trouble(path, f"it cannot be read ({error.strerror})")
    try:
        if stat.st_size == 0:
            return _trouble(path, "the file is empty", stat)
        reader = format_of(path)
        if reader is None:
            return _trouble(
                path, f"{_later(path)} files cannot be read yet" if _later(path) else "it is no FITS file", stat
            )
        return _less_pedestal(reader.probe(path, stat))
    except FrameError as error:
        return _trouble(path, error.message, stat)
    except OSError as error:
        return _trouble(path, f"it cannot be read ({error.strerror or error})", stat)
    except (ValueError, OverflowError, EOFError, KeyError, TypeError) as error:
        return _trouble(path, f"its header cannot be understood ({type(error).__name__})", stat)


def _less_pedestal(frame: Frame) -> Frame:
    """The frame without the pedestal that a program added while it calibrated."""
    pedestal = frame.header.pedestal_adu
    if not (pedestal and frame.pixels):
        return frame
    return replace(frame, pixels=replace(frame.pixels, less=pedestal))


def _trouble(path: Path, reason: str, stat: os.stat_result | None = None) -> Frame:
    size, mtime = (stat.st_size, stat.st_mtime_ns) if stat else (0, 0)
    return Frame(path=path, size=size, mtime_ns=mtime, header=Header(), problem=reason)


def _files(top: Path, barred: set[Path], troubles: list[Frame]) -> Iterator[Path]:
    """Files below `top`, without hidden ones and without stores of ours; linked folders too, each folder once."""
    if top.is_file():
        yield top
        return

    def note(error: OSError) -> None:
        troubles.append(_trouble(Path(error.filename), f"the folder cannot be read ({error.strerror})"))

    visited: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(top, onerror=note, followlinks=True):
        here = Path(folder)
        try:
            status = os.stat(here)
        except OSError as error:
            note(error)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(
            f
            for f in folders
            if not f.startswith(".") and not f.endswith(".zarr") and (here / f).resolve() not in barred
        )
        if "lerar.toml" in files and "store.zarr" in os.listdir(here):
            folders.clear()
            continue
        yield from (here / f for f in sorted(files) if not f.startswith("."))


def _is_candidate(path: Path) -> bool:
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    return bool(suffixes) and (suffixes[-1] in _FITS | _LATER or (suffixes[-1] == ".gz" and suffixes[0] in _FITS))


def _later(path: Path) -> str:
    suffix = path.suffix.lower()
    return suffix[1:].upper() if suffix in _LATER else ""
