"""Measurements of a large image from those of its bands of rows.

In   what `measure` found in bands that overlap, and which rows of each are its own
Out  `Measures` of the whole
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lerar_dask.constants import BLOCK_PX
from lerar_dask.kernels.measure.sub import Measures

__all__ = ["Band", "bands_of", "join_bands"]

_MARGIN_CELLS = 3
"""Cells of its neighbors that a band is measured with: sky and noise are smoothed over one, stars reach less."""


@dataclass(frozen=True)
class Band:
    """Rows of an image."""

    first: int
    last: int
    """Rows that are read, `last` excluded."""
    own_first: int
    own_last: int
    """Rows that are the band's own."""


def bands_of(shape: tuple[int, int], *, cell_px: int, most_px: int) -> list[Band]:
    """Bands of about `most_px` pixels whose own rows are whole cells and blocks; one where the image has no more.

    Parameters
    ----------
    cell_px : side of a cell of the background, even
    """
    height, width = shape
    if height * width <= most_px:
        return [Band(0, height, 0, height)]
    unit = int(np.lcm(cell_px, BLOCK_PX))
    margin = -(-_MARGIN_CELLS * cell_px // unit) * unit
    rows = max(unit, (most_px // width - 2 * margin) // unit * unit)
    starts = range(0, height, rows)
    return [Band(max(0, y - margin), min(height, y + rows + margin), y, min(height, y + rows)) for y in starts]


def join_bands(parts: Sequence[tuple[Band, Measures]], *, cell_px: int, max_stars: int) -> Measures:
    """Put together what was found in bands.

    Parameters
    ----------
    max_stars : so many of the brightest are kept
    """
    if len(parts) == 1:
        return parts[0][1]
    blocks = [_own_rows(m.blocks, band, BLOCK_PX) for band, m in parts]
    grid = np.concatenate([_own_rows(m.grid, band, cell_px) for band, m in parts], axis=1)
    stars = np.concatenate([_own_places(m.stars, band) for band, m in parts])
    spikes = np.concatenate([_own_places(m.spikes, band) for band, m in parts])
    stars = stars[np.argsort(-stars[:, 2], kind="stable")][:max_stars]
    return Measures(np.concatenate(blocks, axis=1), grid, stars, spikes, _summary(parts, len(stars)))


def _own_rows(field: np.ndarray, band: Band, step: int) -> np.ndarray:
    """Rows of a grid of `step` pixels that are the band's own."""
    return field[:, (band.own_first - band.first) // step : -(-(band.own_last - band.first) // step)]


def _own_places(table: np.ndarray, band: Band) -> np.ndarray:
    """Rows (x, y, ...) that lie in the band's own rows, in pixels of the image."""
    table = table.copy()
    table[:, 1] += band.first
    return table[(table[:, 1] >= band.own_first - 0.5) & (table[:, 1] < band.own_last - 0.5)]


def _summary(parts: Sequence[tuple[Band, Measures]], n_stars: int) -> dict[str, float]:
    """Means over bands, weighted by their stars (without any: by their rows)."""
    weights = np.array([m.summary["n_stars"] for _, m in parts], float)
    if not weights.any():
        weights = np.array([band.own_last - band.own_first for band, _ in parts], float)
    names = [name for name in parts[0][1].summary if name != "n_stars"]
    means = {name: float(np.average([m.summary[name] for _, m in parts], weights=weights)) for name in names}
    return {**means, "n_stars": n_stars}
