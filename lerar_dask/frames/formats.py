"""Formats that can be read: a module each, found by a file's first bytes.

A format's module has NAME, `is_one(head)`, `probe(path, stat)`, `cards(path, hdu)` and, for what is not plain rows at an
offset, `rows(frame, source, y0, y1, step, plane)`. To add one: write the module, and name it in FORMATS.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames import fits
from lerar_dask.frames.frame import Frame, PixelSource

__all__ = ["FORMATS", "Format", "format_named", "format_of"]

_HEAD_BYTES = 32


class Format(Protocol):
    """What a format's module offers."""

    NAME: str

    def is_one(self, head: bytes) -> bool:
        """Whether a file with these first bytes (unpacked, where it is gzipped) is of this format."""

    def probe(self, path: Path, stat: os.stat_result) -> Frame:
        """Frame of a file; raises FrameError with the reason for a refusal."""

    def cards(self, path: Path, hdu: int) -> list[str]:
        """What the file says of itself, verbatim."""

    def rows(self, frame: Frame, source: PixelSource, y0: int, y1: int, step: int, plane: int) -> np.ndarray:
        """Rows y0, y0 + step, ... below y1 as they lie in the file; raises FrameError."""


FORMATS: tuple[Format, ...] = (fits,)


def format_of(path: Path) -> Format | None:
    """The format of a file by its first bytes; None for an unknown one.

    Raises
    ------
    OSError
        when it cannot be read.
    FrameError
        when it is gzipped and cannot be unpacked.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as unpacked:
                head = unpacked.read(_HEAD_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise FrameError(f"it cannot be unpacked ({(str(error).splitlines() or ['damaged'])[0][:120]})") from error
    return next((one for one in FORMATS if one.is_one(head)), None)


def format_named(name: str) -> Format:
    """The format of this NAME."""
    return next(one for one in FORMATS if name == one.NAME)
