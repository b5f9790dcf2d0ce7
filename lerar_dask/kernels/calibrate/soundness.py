"""Soundness of calibration frames: does a frame fit the others of its set, did it see light, does it hold all its rows.

In   some rows of each frame, spread over its height
Out  a few numbers per frame, and which frames of a set do not fit, with the reason in words
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.kernels.calibrate.saturation import saturated_share
from lerar_dask.kernels.robust.medians import median

__all__ = ["Look", "flat_misfits", "look_at", "misfits", "over_the_lights"]

SATURATED_SHARE = 0.02
"""A flat with more saturated pixels than this is of no use."""
_CELLS = 8
"""Cells along each axis in which levels are compared."""
_SPREADS = 8.0
"""Frames of a set that belong together differ by less than this, in robust standard deviations of the set."""
_FEWEST = 3
"""Frames that can tell which of them is the odd one."""
_LITTLE_LIGHT = 0.1
"""A flat with less than this part of the usual light brings its pedestal's errors, times ten, into the master."""
_OTHER_PATTERN = 0.1
"""Relative difference beyond which a flat's light falls otherwise: twilight gradients stay below."""
_OVER_LIGHTS = 0.02
"""Part of the lights' level by which a dark may be above them."""


@dataclass(frozen=True)
class Look:
    """What some rows of a frame tell."""

    level: float
    """Median."""
    mean: float
    noise: float
    """Of a pixel, from differences of pixels of one color side by side: shading and glow do not count."""
    saturated: float
    """Share of the pixels."""
    n_blank: int
    """Rows that hold one value, or what the row before holds."""
    cells: np.ndarray
    """(8, 8) float64 medians; NaN where there is no number."""


def look_at(rows: np.ndarray, *, below: np.ndarray | float = 0.0, saturation: float | None = None) -> Look:
    """Numbers of one frame.

    Parameters
    ----------
    rows : (n, x) float32         NaN where there is no number
    below : (n, x) float32 or 0   pedestal of these rows: levels, noise and cells are without it
    saturation : float or None    value from which on pixels are saturated, where a header tells it
    """
    finite = np.isfinite(rows)
    known, above = rows[finite], rows - below
    bands = np.array_split(above, min(_CELLS, len(rows)))
    cells = np.array([[_median(cell) for cell in np.array_split(band, _CELLS, axis=1)] for band in bands])
    one_value = (~finite).all(axis=1) | (rows == rows[:, :1]).all(axis=1)
    repeated = np.append(False, (rows[1:] == rows[:-1]).all(axis=1))
    steps = above[:, 2:] - above[:, :-2]
    return Look(
        level=_median(above),
        mean=float(np.mean(above[finite], dtype=np.float64)) if known.size else float("nan"),
        noise=MAD_TO_SIGMA * _median(np.abs(steps)) / np.sqrt(2.0),
        saturated=saturated_share(known, saturation=saturation) if known.size else 0.0,
        n_blank=int(np.count_nonzero(one_value | repeated)),
        cells=cells,
    )


def misfits(looks: Sequence[Look]) -> dict[int, str]:
    """Frames of a set of darks, flat-darks or bias that do not fit the others, by index, with the reason.

    A difference of levels counts beyond 8 times the spread of the set and beyond the noise of a pixel, in the whole or
    in one of 8 x 8 cells. Where half of the frames or more would not fit, none is named: the set tells nothing.
    """
    found = _cut(looks)
    if len(looks) >= _FEWEST:
        cells = np.array([look.cells for look in looks])
        away = cells - _median_of(cells)
        limit = max(_spread(away), _median([look.noise for look in looks]), 1e-6)
        usual = _median([look.level for look in looks])
        for i, look in enumerate(looks):
            if abs(look.level - usual) > limit:
                found.setdefault(i, f"its level is {look.level:.5g}, that of its set {usual:.5g}: it does not fit")
            elif abs(largest := _largest(away[i])) > limit:
                kind = "above its set: it saw light" if largest > 0 else "below its set: it does not fit"
                found.setdefault(i, f"a part of it is {abs(largest):.4g} {kind}")
    return _if_few(found, len(looks))


def flat_misfits(looks: Sequence[Look]) -> dict[int, str]:
    """Flats that are of no use, by index, with the reason; their looks are without their pedestal.

    A flat may be brighter or fainter than others of its set, but not fainter than a tenth of the usual; its light falls
    as that of the others, within a tenth and 8 times the spread of the set.
    """
    found: dict[int, str] = {}
    for i, look in enumerate(looks):
        if look.saturated > SATURATED_SHARE:
            found[i] = f"{look.saturated:.0%} of its pixels are saturated: a flat like this cannot be used"
        elif not look.level > look.noise:
            found[i] = "the flat is no brighter than its pedestal: it cannot be used"
    lit = [i for i in range(len(looks)) if i not in found]
    odd = _cut([looks[i] for i in lit])
    if len(lit) >= _FEWEST:
        levels = np.array([looks[i].level for i in lit])
        usual = float(np.median(levels))
        cells = np.array([looks[i].cells for i in lit]) / levels[:, None, None]
        away = cells - _median_of(cells)
        limit = max(_spread(away), _OTHER_PATTERN)
        for k in range(len(lit)):
            if levels[k] < _LITTLE_LIGHT * usual:
                odd.setdefault(k, f"it has little light: {levels[k]:.5g} above its pedestal, its set {usual:.5g}")
            elif abs(largest := _largest(away[k])) > limit:
                odd.setdefault(k, f"its light falls otherwise than in its set: a part of it is {largest:+.0%} off")
    return found | {lit[k]: reason for k, reason in _if_few(odd, len(lit)).items()}


def over_the_lights(looks: Sequence[Look], lights: Sequence[Look]) -> dict[int, str]:
    """Darks or bias that are brighter than the lights they are to be taken off, by index, with the reason."""
    if not lights:
        return {}
    level, noise = _median([look.level for look in lights]), _median([look.noise for look in lights])
    limit = level + max(noise, _OVER_LIGHTS * abs(level))
    why = "it saw light, was warmer, or has another offset"
    return {
        i: f"its level {look.level:.5g} is above that of the lights ({level:.5g}): {why}"
        for i, look in enumerate(looks)
        if look.level > limit
    }


def _cut(looks: Sequence[Look]) -> dict[int, str]:
    """Frames with rows that hold nothing where those of most others do: not read to the end, or sent in part."""
    usual = sorted(look.n_blank for look in looks)[(len(looks) - 1) // 2] if looks else 0
    return {
        i: "a part of its rows hold no picture (one value, or the same row again)"
        for i, look in enumerate(looks)
        if look.n_blank > usual
    }


def _if_few(found: dict[int, str], n: int) -> dict[int, str]:
    return found if 2 * len(found) < n or (len(found) == 1 and n == 2) else {}


def _median_of(cells: np.ndarray) -> np.ndarray:
    """Median of the frames in each cell."""
    return np.array([[_median(cells[:, i, j]) for j in range(cells.shape[2])] for i in range(cells.shape[1])])


def _spread(away: np.ndarray) -> float:
    return _SPREADS * MAD_TO_SIGMA * _median(np.abs(away))


def _largest(away: np.ndarray) -> float:
    """The difference that is furthest from 0; 0 where none is a number."""
    known = away[np.isfinite(away)]
    return float(known[np.abs(known).argmax()]) if known.size else 0.0


def _median(values: np.ndarray | Sequence[float]) -> float:
    """Median of the numbers among the values; NaN where there are none."""
    array = np.asarray(values, np.float32 if isinstance(values, np.ndarray) else float)
    array = array[np.isfinite(array)]
    return float(median(array)) if array.size else float("nan")
