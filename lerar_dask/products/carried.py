"""Header words of an image that hold for what is made of it, too."""

from __future__ import annotations

from lerar_dask.frames.sky_points import is_of_solution

__all__ = ["is_carried"]

_CARRIED = (
    *("OBJECT", "DATE-OBS", "TELESCOP", "INSTRUME", "FILTER", "EXPTIME"),
    *("ROWORDER", "FOCALLEN", "XPIXSZ", "YPIXSZ"),
)


def is_carried(word: str) -> bool:
    """Whether a word tells of the target, the time, the optics, the pixels' place or the plate solution."""
    return word in _CARRIED or is_of_solution(word)
