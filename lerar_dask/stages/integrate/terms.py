"""What a chunk needs to know of its subs: their skies at the nodes around it, and the noise of their samples.

Reads   the stack table
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import NOISE_CELL_PX
from lerar_dask.grid import SURFACE_NODE_PX, Window
from lerar_dask.kernels.combine.noise import blur_terms, cell_weights, phase_factor, sample_variance
from lerar_dask.kernels.normalize.surface import evaluate_surfaces, surface_shape
from lerar_dask.settings import Integrate
from lerar_dask.stages.integrate.sources import mapped
from lerar_dask.stages.integrate.stack_table import StackTable

__all__ = ["noise_models", "skies"]


def skies(
    table: StackTable, members: np.ndarray, window: Window, origin_yx: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Skies of subs at the canvas nodes around a window.

    Returns
    -------
    values : (len(members), channel, ny, nx) float32
    first : row and column of the first node
    """
    first = (window.y0 - 1) // SURFACE_NODE_PX, (window.x0 - 1) // SURFACE_NODE_PX
    ny, nx = window.y1 // SURFACE_NODE_PX + 2 - first[0], window.x1 // SURFACE_NODE_PX + 2 - first[1]
    out = np.zeros((len(members), table.n_channels, ny, nx), np.float32)
    if table.ln_coefficients.shape[2] == 0 or len(members) == 0:
        return out, first
    ys = (np.arange(first[0], first[0] + ny) * float(SURFACE_NODE_PX))[:, None]
    xs = (np.arange(first[1], first[1] + nx) * float(SURFACE_NODE_PX))[None, :]
    y, x = mapped(_matrices(table, members, origin_yx), ys, xs)
    shapes = table.shape[members]
    for shape in {(int(h), int(w)) for h, w in shapes}:
        own = np.flatnonzero((shapes == shape).all(axis=1))
        py, px = (v + 3 for v in surface_shape(shape, table.tile_px))
        for c in range(table.n_channels):
            tables = table.ln_coefficients[members[own], c, :py, :px]
            out[own, c] = evaluate_surfaces(tables, shape, table.tile_px, y[own], x[own])
    return out, first


def noise_models(
    table: StackTable, members: np.ndarray, window: Window, origin_yx: tuple[int, int], settings: Integrate
) -> list[tuple[np.ndarray, np.ndarray]]:
    """By channel: cells' (weight, variance, growth, resampling), (gx, gy, 4, n) float32, and blur terms (2, n)."""
    kernel = settings.interpolation
    cells_y = np.arange(window.y0 // NOISE_CELL_PX, (window.y1 - 1) // NOISE_CELL_PX + 1)
    cells_x = np.arange(window.x0 // NOISE_CELL_PX, (window.x1 - 1) // NOISE_CELL_PX + 1)
    inside = (np.arange(4) + 0.5) / 4 * NOISE_CELL_PX - 0.5
    ys = (cells_y[:, None] * NOISE_CELL_PX + inside).ravel()[:, None]
    xs = (cells_x[:, None] * NOISE_CELL_PX + inside).ravel()[None, :]
    y, x = mapped(_matrices(table, members, origin_yx), ys, xs)
    step = np.array([2 if table.patterns[i] else 1 for i in members])[:, None, None]
    factor = phase_factor(y / step, kernel=kernel) * phase_factor(x / step, kernel=kernel)
    factor = _cell_means(factor, len(cells_y), len(cells_x))
    blur = blur_terms(table.fwhm, table.registration_px, lattice=bool(table.patterns[0]))[:, members]
    out = []
    for c in range(table.n_channels):
        lattices = table.n_lattices[members, c, None, None]
        variance = sample_variance(table.variance[members, c], y, x, cell_px=table.noise_cell_px)
        variance = _cell_means(variance, len(cells_y), len(cells_x)) / table.ln_scale[members, c, None, None] ** 2
        weight = cell_weights(
            variance, table.typical_variance[:, c], table.weight_factor, members=members, mode=settings.weights
        )
        growth = np.broadcast_to(table.growth[members, c][:, None, None], weight.shape)
        model = np.stack([weight, variance / lattices, growth / lattices, factor], axis=1).transpose(3, 2, 1, 0)
        out.append((np.ascontiguousarray(model, np.float32), np.ascontiguousarray(blur, np.float32)))
    return out


def _matrices(table: StackTable, members: np.ndarray, origin_yx: tuple[int, int]) -> np.ndarray:
    """Canvas to sub of each member, (3, 3, n, 1, 1)."""
    matrices = np.stack([table.planes(int(i), origin_yx)[0] for i in members])
    return np.moveaxis(matrices, 0, -1)[..., None, None]


def _cell_means(values: np.ndarray, ny: int, nx: int) -> np.ndarray:
    """Means of the 4 x 4 positions of each cell, (n, ny, nx)."""
    return values.reshape(-1, ny, 4, nx, 4).mean(axis=(2, 4))
