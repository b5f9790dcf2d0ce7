"""Corners: does the sky of calibrated subs grow with the flat's correction, as it does where a pedestal was left in.

In   background level and gain (1 / flat) on cells of the sensor
Out  how much brighter each corner is than it should be, in parts of the sky

A pedestal P that stays in the lights becomes P * gain: the sky follows the gain, with the slope P / (sky + P). A plane
is fitted beside it, since a sky may have a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA

__all__ = ["Corners", "gain_cells", "over_corrected"]

_FEWEST_CELLS = 24
_CLIP = 3.0
_ROUNDS = 4
_SURE = 5.0
"""Standard errors that the slope is above 0 at least."""
_SLOPE = 0.08
"""Sky per gain, both relative, from which on corners are called over-corrected."""


@dataclass(frozen=True)
class Corners:
    """What is too bright, in parts of the sky in the middle."""

    slope: float
    """Sky that follows the gain, over the sky."""
    excess: tuple[float, float, float, float]
    """First row left and right, last row left and right."""


def gain_cells(gain: np.ndarray, cell_px: int) -> np.ndarray:
    """Mean gain of each cell.

    Parameters
    ----------
    gain : (y, x) float32

    Returns
    -------
    (gy, gx) float64
    """
    rows = np.arange(0, gain.shape[0], cell_px)
    columns = np.arange(0, gain.shape[1], cell_px)
    bands = np.stack([gain[y : y + cell_px].sum(axis=0, dtype=np.float64) for y in rows])
    sums = np.add.reduceat(bands, columns, axis=1)
    heights = np.diff(np.append(rows, gain.shape[0]))
    widths = np.diff(np.append(columns, gain.shape[1]))
    return np.asarray(sums / (heights[:, None] * widths[None, :]), np.float64)


def over_corrected(sky: np.ndarray, gain: np.ndarray) -> Corners | None:
    """How much too bright the corners are; None where the sky does not follow the gain.

    Parameters
    ----------
    sky : (gy, gx) level of the calibrated background, NaN where it is not known
    gain : (gy, gx)
    """
    known = np.isfinite(sky) & np.isfinite(gain)
    middle = float(np.median(sky[known])) if known.any() else 0.0
    if known.sum() < _FEWEST_CELLS or middle <= 0:
        return None
    y, x = np.mgrid[-1 : 1 : sky.shape[0] * 1j, -1 : 1 : sky.shape[1] * 1j]
    terms = np.stack([np.ones_like(sky), x, y, gain - gain[known].min()], axis=-1)[known]
    values = sky[known] / middle
    good = np.ones(len(values), bool)
    for _ in range(_ROUNDS):
        fitted, *_ = np.linalg.lstsq(terms[good], values[good], rcond=None)
        rest = values - terms @ fitted
        scatter = MAD_TO_SIGMA * float(np.median(np.abs(rest[good])))
        good = np.abs(rest) <= max(_CLIP * scatter, 1e-9)
        if good.sum() < _FEWEST_CELLS:
            return None
    covariance = np.linalg.pinv(terms[good].T @ terms[good])
    error = float(np.std(rest[good]) * np.sqrt(covariance[3, 3]))
    slope = float(fitted[3])
    if slope < _SLOPE or slope < _SURE * error:
        return None
    low = float(gain[known].min())
    corners = [gain[i, j] for i in (0, -1) for j in (0, -1)]
    return Corners(slope, tuple(slope * (float(c) - low) if np.isfinite(c) else 0.0 for c in corners))  # type: ignore[arg-type]
