"""Plate solution of a header as numbers: finite, in range, invertible, or none at all.

In   first value of each keyword
Out  a `Solution`: reference point, reference pixel, and the matrix of degrees per pixel

Written as CD, as PC and CDELT, or as CDELT and CROTA2 (Calabretta & Greisen 2002, sections 2.1 and 6.1). Distortion
terms (SIP) are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.frames.values import number_of, text_of

__all__ = ["Solution", "solution_of"]

_FAR_PX = 1e7
"""Reference pixels further out are no numbers of a camera."""
_COARSE_DEG = 10.0
"""Degrees per pixel that no camera has."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Where a frame points and how it is turned."""

    projection: str
    """Three letters, as in CTYPE1: TAN, SIN ..."""
    sky_deg: tuple[float, float]
    """Right ascension and declination of the reference point."""
    pixel: tuple[float, float]
    """x and y of the reference pixel; the first pixel is 1, as FITS counts."""
    matrix: tuple[float, float, float, float]
    """CD1_1, CD1_2, CD2_1, CD2_2, degrees per pixel."""
    system: str = "ICRS"

    @property
    def parity(self) -> int:
        """+1: from x to y is from east to north; -1: the other way."""
        a, b, c, d = self.matrix
        return int(np.sign(a * d - b * c))


def solution_of(cards: Mapping[str, Any]) -> Solution | None:
    """The solution of a header; None where it is not complete, not finite, or cannot be inverted."""
    first, second = str(cards.get("CTYPE1", "")), str(cards.get("CTYPE2", ""))
    if not (first.startswith("RA---") and second.startswith("DEC--")):
        return None
    ra, dec = number_of(cards.get("CRVAL1")), number_of(cards.get("CRVAL2"))
    x, y = number_of(cards.get("CRPIX1")), number_of(cards.get("CRPIX2"))
    if ra is None or dec is None or x is None or y is None:
        return None
    if not (-360 <= ra <= 720 and -90 <= dec <= 90 and max(abs(x), abs(y)) < _FAR_PX):
        return None
    matrix = _matrix_of(cards)
    if matrix is None or not np.isfinite(matrix).all() or np.abs(matrix).max() > _COARSE_DEG:
        return None
    if abs(np.linalg.det(matrix)) < 1e-20:
        return None
    return Solution(
        projection=first[5:8],
        sky_deg=(ra % 360.0, dec),
        pixel=(x, y),
        matrix=tuple(float(v) for v in matrix.ravel()),  # type: ignore[arg-type]
        system=(text_of(cards.get("RADESYS", "ICRS")) or "ICRS")[:16],
    )


def _matrix_of(cards: Mapping[str, Any]) -> np.ndarray | None:
    """Degrees per pixel, (2, 2)."""
    if any(f"CD{i}_{j}" in cards for i in (1, 2) for j in (1, 2)):
        return _square(cards, "CD", np.zeros((2, 2)))
    steps = [number_of(cards.get(f"CDELT{i}")) for i in (1, 2)]
    if None in steps:
        return None
    scale = np.diag(np.array(steps, float))
    if "CROTA2" in cards and not any(f"PC{i}_{j}" in cards for i in (1, 2) for j in (1, 2)):
        turn = number_of(cards["CROTA2"])
        if turn is None:
            return None
        c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        return np.asarray(np.array([[c, -s], [s, c]]) @ scale)  # Calabretta & Greisen 2002, eq. 188
    turned = _square(cards, "PC", np.eye(2))
    return None if turned is None else scale @ turned


def _square(cards: Mapping[str, Any], word: str, default: np.ndarray) -> np.ndarray | None:
    """A matrix of four cards; those that are not there have their default, those that are no numbers spoil it."""
    matrix = default.copy()
    for i in (1, 2):
        for j in (1, 2):
            name = f"{word}{i}_{j}"
            if name in cards:
                value = number_of(cards[name])
                if value is None:
                    return None
                matrix[i - 1, j - 1] = value
    return matrix
