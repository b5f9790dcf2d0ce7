"""Where channels do not cover the same: what is missing taken from the others, so that no edge is of one color.

In   balanced channels (channel, y, x), NaN where one has no data
Out  the same with gaps filled where some other channel has data
"""

from __future__ import annotations

import numpy as np

__all__ = ["fill_missing"]


def fill_missing(colors: np.ndarray) -> np.ndarray:
    """Channels without data get the mean of those with data: gray, as bright as these are.

    Parameters
    ----------
    colors : (channel, y, x) float32     sky at 0, white balanced

    Examples
    --------
    >>> fill_missing(np.array([[[2.0]], [[np.nan]], [[4.0]]], np.float32)).ravel().tolist()
    [2.0, 3.0, 4.0]
    """
    there = np.isfinite(colors)
    count = there.sum(axis=0)
    total = np.where(there, colors, np.float32(0)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, total / count, np.nan)
    return np.where(there, colors, mean).astype(np.float32)
