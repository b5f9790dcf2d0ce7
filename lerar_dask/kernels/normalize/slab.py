"""Cells of subs as the joint solution works on them: where they lie on the scene, and the modes of their skies.

In: cells of subs of one frame shape, and transforms. Out: slabs; which subs overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lerar_dask.constants import BLOCK_PX
from lerar_dask.kernels.compiled.kernel import kernel
from lerar_dask.kernels.normalize.cells import cell_edges
from lerar_dask.kernels.normalize.surface import AxisModes, axis_modes, surface_shape

__all__ = ["Scene", "Slab", "components", "make_slab", "scene_canvas"]


@dataclass(frozen=True)
class Scene:
    """Where the scene's cells lie in the reference plane."""

    origin_xy: tuple[float, float]
    """Reference-plane position of cell (0, 0)'s center."""
    shape: tuple[int, int]
    """Cells in y and x."""
    cell_px: int
    """Side of a cell."""


@dataclass
class Slab:
    """Cells of subs with one frame shape, and what the solver knows of them."""

    subs: np.ndarray
    """(n,) int64: numbers of the subs."""
    frame: tuple[int, int]
    """Height and width of the frames, in pixels."""
    value: np.ndarray
    """(n, cy, cx) float32: cell means, less `level`."""
    weight: np.ndarray
    """(n, cy, cx) float32: 1 / variance; 0 = no data."""
    level: np.ndarray
    """(n,) float64: constant taken off the cells of each sub, so that float32 suffices."""
    row: np.ndarray
    """(n, cy, cx) float32: position of each cell center on the scene, in cells."""
    column: np.ndarray
    rows: AxisModes
    """Modes along y."""
    columns: AxisModes
    solve_weight: np.ndarray = field(init=False)
    """(n, cy, cx) float32: weight in force: noise, scene detail, outliers."""
    modes: np.ndarray = field(init=False)
    """(n, my, mx) float64: sky in modes."""
    penalty: np.ndarray = field(init=False)
    """(n, my, mx) float64: inverse prior variance of each mode."""
    variance_ratio: np.ndarray = field(init=False)
    """(n,) float64: measured over formal variance of a sub's cells."""

    def __post_init__(self) -> None:
        n = len(self.subs)
        self.solve_weight = self.weight.copy()
        self.modes = np.zeros((n, len(self.rows.roughness), len(self.columns.roughness)))
        self.penalty = np.zeros_like(self.modes)
        self.variance_ratio = np.ones(n)


def scene_canvas(transforms: np.ndarray, shapes: np.ndarray, *, cell_px: int) -> Scene:
    """Canvas of cells that holds every sub, with a margin of a cell.

    Parameters
    ----------
    transforms : (n, 3, 3) float64     reference plane to sub
    shapes : (n, 2) int                height and width of each sub
    """
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    points = []
    for transform, (height, width) in zip(transforms, np.asarray(shapes, float), strict=True):
        frame = np.column_stack([corners * [width - 1, height - 1], np.ones(4)])
        mapped = frame @ np.linalg.inv(transform).T
        points.append(mapped[:, :2] / mapped[:, 2:])
    low = np.floor(np.min(points, axis=(0, 1))) - cell_px
    high = np.ceil(np.max(points, axis=(0, 1))) + cell_px
    cells = np.ceil((high - low) / cell_px).astype(int) + 1
    return Scene((float(low[0]), float(low[1])), (int(cells[1]), int(cells[0])), cell_px)


def make_slab(
    subs: np.ndarray,
    value: np.ndarray,
    weight: np.ndarray,
    *,
    transforms: np.ndarray,
    frame: tuple[int, int],
    scene: Scene,
    tile_px: int,
) -> Slab:
    """Put cells of subs of one frame shape where the solver wants them.

    Parameters
    ----------
    subs : (n,) int                     numbers of the subs
    value, weight : (n, cy, cx) float32   from `cells.bin_cells`
    transforms : (n, 3, 3) float64      reference plane to sub
    """
    centers, modes = [], []
    for length, n in zip(frame, surface_shape(frame, tile_px), strict=True):
        edges = np.minimum(cell_edges(length, scene.cell_px) * BLOCK_PX, length).astype(float)
        centers.append((edges[:-1] + edges[1:] - 1) / 2)
        modes.append(axis_modes(edges, length, n))
    row = np.empty(value.shape, np.float32)
    column = np.empty(value.shape, np.float32)
    inverse = np.linalg.inv(np.asarray(transforms, np.float64))
    _place(inverse, *centers, *scene.origin_xy, 1.0 / scene.cell_px, row, column)
    level = np.array([np.median(v[w > 0]) if (w > 0).any() else 0.0 for v, w in zip(value, weight, strict=True)], float)
    shifted = (value - level[:, None, None]).astype(np.float32)
    shifted[weight <= 0] = 0.0
    inside = (row >= 0) & (column >= 0) & (row < scene.shape[0] - 1) & (column < scene.shape[1] - 1)
    weight = np.where(inside, weight, 0.0).astype(np.float32)
    row[~inside], column[~inside] = 0.0, 0.0
    return Slab(np.asarray(subs, np.int64), frame, shifted, weight, level, row, column, *modes)


def components(slabs: Sequence[Slab], scene: Scene, *, n_subs: int) -> np.ndarray:
    """Groups of subs that overlap, directly or over others: (n_subs,) int64, 0 = the largest.

    Groups that do not overlap have no common zero; the run must say so.
    """
    seen = np.zeros((n_subs, (-(-scene.shape[0] // 4)) * (-(-scene.shape[1] // 4))), bool)
    wide = -(-scene.shape[1] // 4)
    for slab in slabs:
        for i, k in enumerate(slab.subs):
            good = slab.weight[i] > 0
            seen[k, (slab.row[i][good].astype(int) // 4) * wide + slab.column[i][good].astype(int) // 4] = True
    label = np.full(n_subs, -1)
    found = 0
    for k in range(n_subs):
        if label[k] >= 0:
            continue
        members = np.zeros(n_subs, bool)
        members[k] = True
        area = seen[k].copy()
        while True:
            grown = members | ((seen & area).sum(axis=1) >= 4)
            if (grown == members).all():
                break
            members, area = grown, seen[grown].any(axis=0)
        label[members] = found
        found += 1
    order = np.argsort(-np.bincount(label, minlength=found), kind="stable")
    rank = np.empty(found, np.int64)
    rank[order] = np.arange(found)
    return rank[label]


@kernel(borrows=True)
def _place(
    inverse: np.ndarray,
    ys: np.ndarray,
    xs: np.ndarray,
    x0: float,
    y0: float,
    per_px: float,
    row: np.ndarray,
    column: np.ndarray,
) -> None:
    for k in range(inverse.shape[0]):
        m = inverse[k]
        for i in range(ys.size):
            for j in range(xs.size):
                d = 1.0 / (m[2, 0] * xs[j] + m[2, 1] * ys[i] + m[2, 2])
                column[k, i, j] = ((m[0, 0] * xs[j] + m[0, 1] * ys[i] + m[0, 2]) * d - x0) * per_px
                row[k, i, j] = ((m[1, 0] * xs[j] + m[1, 1] * ys[i] + m[1, 2]) * d - y0) * per_px
