"""Panels: the planes of masters as files of their own, all of one size, so that they stack as subs do.

In: pictures of any program, of one plane or of three. Out: `{folder}/{name}.fits` per plane: float32, no data where the
panel has none, with the header words that tell filter, time, optics and plate solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lerar_dask.frames.picture import Picture
from lerar_dask.frames.reader import band_of, cards_of
from lerar_dask.products.carried import is_carried
from lerar_dask.products.hdus import FitsWriter, atomic_path, image_header

__all__ = ["write_panel"]

_BAND_ROWS = 256


def write_panel(path: Path, picture: Picture, plane: int, shape: tuple[int, int], filter_name: str) -> None:
    """Write one plane, with rows and columns without data behind it up to `shape`.

    Parameters
    ----------
    filter_name : what the plane shows, as FILTER; empty: the header says nothing

    Raises
    ------
    FrameError
        when its pixels cannot be read.
    """
    frame, (height, width) = picture.frame, picture.frame.shape
    header = image_header(shape, primary=True, name="PANEL")
    for card in _cards(cards_of(frame)):
        header.append(card)
    header["IMAGETYP"] = "Light Frame"
    if filter_name:
        header["FILTER"] = filter_name
    with atomic_path(path) as partial, FitsWriter(partial) as writer:
        index = writer.add_image(header, shape)
        for y0 in range(0, shape[0], _BAND_ROWS):
            rows = np.full((min(_BAND_ROWS, shape[0] - y0), shape[1]), np.nan, np.float32)
            n = min(len(rows), height - y0)
            if n > 0:
                rows[:n, :width] = band_of(frame, y0, y0 + n, plane=plane)
            writer.write_rows(index, y0, rows)


def _cards(lines: Sequence[str]) -> list[object]:
    from astropy.io import fits

    found: dict[str, object] = {}
    for line in lines:
        word = line[:8].strip()
        if is_carried(word) or word == "SATURATE":
            found.setdefault(word, fits.Card.fromstring(line))
    return list(found.values())
