"""Where in the sky the pixels of a frame lie, by the plate solution of its header, distortion included."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import numpy as np

__all__ = ["is_of_solution", "points_of"]

_WORDS = re.compile(
    r"C(TYPE|RVAL|RPIX|DELT|ROTA|UNIT)[12]|(CD|PC|PV)[12]_\d+|[AB]P?_(ORDER|\d_\d)|L(ON|AT)POLE|RADESYS|EQUINOX|WCSAXES"
)
_GRID = 9
"""Points along each side of a sub."""


def is_of_solution(word: str) -> bool:
    """Whether a header word belongs to a plate solution, its distortion included."""
    return _WORDS.fullmatch(word) is not None


def points_of(cards: Sequence[str], shape: tuple[int, int], transform: np.ndarray) -> np.ndarray | None:
    """Points of a sub on the grid and in the sky by the solution of its header; None where it has none.

    Parameters
    ----------
    cards : original header cards, 80 characters each
    transform : (3, 3) float64     reference plane to sub

    Returns
    -------
    (n, 4) float64     x, y in the reference plane (the first pixel is 0); right ascension and declination, degrees
    """
    from astropy.io import fits
    from astropy.wcs import WCS

    ys, xs = np.meshgrid(np.linspace(0, shape[0] - 1, _GRID), np.linspace(0, shape[1] - 1, _GRID), indexing="ij")
    pixels = np.column_stack([xs.ravel(), ys.ravel()])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solution = WCS(fits.Header.fromstring("".join(_of_solution(cards))), naxis=2)
            if not solution.has_celestial:
                return None
            sky = solution.all_pix2world(pixels, 0)
        back = np.linalg.inv(transform)
    except Exception:  # headers are foreign, and a solution is a bonus: what cannot be used is none
        return None
    here = np.column_stack([pixels, np.ones(len(pixels))]) @ back.T
    table = np.column_stack([here[:, :2] / here[:, 2:], sky])
    return table if np.isfinite(table).all() else None


def _of_solution(cards: Sequence[str]) -> list[str]:
    """Cards of a plate solution, the first of each word: those of a packed file's table stand among them."""
    found: dict[str, str] = {}
    for card in cards:
        word = card[:8].strip()
        if is_of_solution(word):
            found.setdefault(word, card.ljust(80)[:80])
    return list(found.values())
