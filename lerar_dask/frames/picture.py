"""Picture: an image that the user points at: a sub, or a master of any program, of one plane or of three colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lerar_dask.errors import FrameError
from lerar_dask.frames.frame import Frame
from lerar_dask.frames.reader import band_of
from lerar_dask.frames.scan import probe

__all__ = ["LIGHT", "Picture", "light_of", "open_picture"]

LIGHT = (0.25, 0.5, 0.25)
"""Share of red, green and blue in the light of a star as a color sensor gathers it."""


@dataclass(frozen=True)
class Picture:
    """An image whose pixels can be read."""

    frame: Frame
    n_planes: int
    """1, or 3 for an unpacked color image."""

    @property
    def cfa(self) -> str | None:
        """Color pattern of the pixels; None for planes of their own and for stacks."""
        return None if self.n_planes > 1 or self.frame.header.is_stack else self.frame.header.cfa

    def planes(self, first: int, last: int) -> list[np.ndarray]:
        """Rows first..last-1 of each plane, (y, x) float32; missing pixels NaN.

        Raises
        ------
        FrameError
            when they cannot be read.
        """
        planes = [np.ascontiguousarray(band_of(self.frame, first, last, plane=k)) for k in range(self.n_planes)]
        for plane in planes:
            plane[~np.isfinite(plane)] = np.nan
        return planes


def open_picture(path: Path) -> Picture:
    """Look at an image.

    Raises
    ------
    FrameError
        when the file is no image of one plane or of three.
    """
    frame = probe(path)
    if frame.pixels is None or frame.n_planes not in (1, 3):
        raise FrameError(frame.problem or "it is no image of one plane or of three")
    return Picture(frame, frame.n_planes)


def light_of(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Light of all planes together, (y, x) float32."""
    if len(planes) == 1:
        return planes[0]
    return np.asarray(sum(np.float32(share) * plane for share, plane in zip(LIGHT, planes, strict=True)))
