"""What the header of a drizzled master says in place of its first master's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lerar_dask.kernels.drizzle.noise import noise_of_drops
from lerar_dask.settings import Drizzle

__all__ = ["drizzled_facts", "finer_wcs"]


def drizzled_facts(facts: Mapping[str, Any], origin_yx: tuple[int, int], settings: Drizzle) -> dict[str, Any]:
    """Header facts of a drizzled master.

    Parameters
    ----------
    facts : of the first master, see `header_facts`
    origin_yx : reference-plane (y, x) of the first master's first pixel
    """
    scale = settings.drizzle
    scatter, correlation = noise_of_drops(settings.drizzle_kernel, scale * settings.drop)
    first = _first_pixel(origin_yx[0], scale), _first_pixel(origin_yx[1], scale)
    cards = dict(facts["cards"])
    for word in ("XPIXSZ", "YPIXSZ"):
        size, comment = cards.get(word, (None, ""))
        if size:
            cards[word] = (size / scale, comment)
    cards |= {
        "DRZSCALE": (scale, "pixels along one of the first master's"),
        "DRZDROP": (settings.drop, "side of a drop along its pixel's"),
        "DRZKERN": (settings.drizzle_kernel, "shape of a drop"),
    }
    return {
        **facts,
        "noise_kernel": "DRIZZLE",
        "noise_pixel_factor": scatter,
        "noise_correlation": correlation,
        "wcs": finer_wcs(facts["wcs"], first, scale) if facts["wcs"] else None,
        "cards": cards,
        "origin_yx": first,
        "shares": True,
    }


def _first_pixel(origin: int, scale: int) -> float:
    """Reference-plane position of the first fine pixel along an axis."""
    return origin + 0.5 / scale - 0.5


def finer_wcs(wcs: Mapping[str, Any], first_yx: tuple[float, float], scale: int) -> dict[str, Any]:
    """WCS of the reference plane in fine pixels, but for the shift by the first pixel that the writer takes off.

    Parameters
    ----------
    first_yx : reference-plane (y, x) of the first fine pixel
    """
    out = dict(wcs)
    for axis, first in ((1, first_yx[1]), (2, first_yx[0])):
        # FITS counts pixels from 1: plane position p - 1 = first + (fine - 1) / scale
        fine = scale * (float(wcs[f"CRPIX{axis}"]) - 1 - first) + 1
        out[f"CRPIX{axis}"] = fine + first
        for other in (1, 2):
            out[f"CD{axis}_{other}"] = float(wcs[f"CD{axis}_{other}"]) / scale
    for word, value in wcs.items():
        if power := re.fullmatch(r"(A|B|AP|BP)_(\d)_(\d)", word):
            # polynomials of pixel offsets that give pixel offsets
            out[word] = float(value) / scale ** (int(power[2]) + int(power[3]) - 1)
    return out
