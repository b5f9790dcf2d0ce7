"""Saturation: from which number on a sample is a lower bound only, told by the numbers themselves.

In   pixels of a frame, before anything is taken off
Out  the number at which they pile up; the share of the pixels that have it
"""

from __future__ import annotations

import numpy as np

__all__ = ["pile_up", "saturated_share", "top_of"]

_NEAR = 0.98
"""Numbers above this part of the maximum are compared with it."""
_PILE, _RATIO = 3, 2
"""So many pixels at the maximum, and so many times those just below it, are a pile."""
_FULL = {2**bits - 1 for bits in (8, 10, 12, 14, 16)} | {(2**bits - 1) << (16 - bits) for bits in (10, 12, 14)}
"""Largest numbers of converters, also shifted up to 16 bit."""


def _count_top(raw: np.ndarray) -> tuple[float, int, int]:
    """Maximum, pixels that have it, and pixels between 98 % of it and it; NaN and infinities do not count.

    Parameters
    ----------
    raw : any shape
    """
    if raw.dtype.kind == "f":
        finite = raw[np.isfinite(raw)]
        if not finite.size:
            return 0.0, 0, 0
        raw = finite
    largest = raw.max()
    near = int(np.ceil(float(largest) * _NEAR)) if raw.dtype.kind in "ui" else float(largest) * _NEAR
    if not near < largest:
        return float(largest), int(np.count_nonzero(raw == largest)), 0
    high = raw[raw >= near]
    at = int(np.count_nonzero(high == largest))
    return float(largest), at, int(high.size) - at


def _is_pile(top: tuple[float, int, int]) -> bool:
    """Whether numbers end at the maximum because the camera's do: many are equal to it and few lie just below.

    A single pixel is enough at the largest number of a converter.
    """
    largest, at, below = top
    if largest <= 0:
        return False
    return (at >= _PILE and at > _RATIO * below) or (at >= 1 and largest in _FULL and at > below)


def top_of(raw: np.ndarray) -> tuple[float, bool]:
    """Largest number of a frame, and whether its pixels pile up there.

    Parameters
    ----------
    raw : any shape     as stored; NaN and infinities do not count
    """
    top = _count_top(raw)
    return top[0], _is_pile(top)


def pile_up(values: np.ndarray) -> float | None:
    """The number at which pixels pile up, or None."""
    top = _count_top(values)
    return top[0] if _is_pile(top) else None


def saturated_share(values: np.ndarray, *, saturation: float | None = None) -> float:
    """Share of the pixels that are saturated.

    Parameters
    ----------
    saturation : value from which on pixels are saturated, where a header tells it; where they pile up below it, from there
    """
    known = values[np.isfinite(values)]
    limit = min((v for v in (saturation, pile_up(known)) if v is not None), default=np.inf)
    return float(np.mean(known >= limit)) if known.size else 0.0
