"""Smooth surfaces on a frame: tensor-product cubic B-splines, their evaluation, and their natural modes.

A surface covers one frame of (height, width) pixels. Each axis is cut into `n = max(1, round(length / tile_px))` equal
intervals between -0.5 and length - 0.5; the n + 3 uniform cubic B-splines on them are the basis, so that coefficients
have shape (ny + 3, nx + 3). Outside the frame a surface continues linearly. Pixel centers lie at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array

from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = [
    "AxisModes",
    "axis_matrix",
    "axis_modes",
    "evaluate_surface",
    "evaluate_surfaces",
    "fit_surface",
    "surface_shape",
]


@dataclass(frozen=True)
class AxisModes:
    """Demmler-Reinsch modes of one axis: from the flat ones to the wiggly ones."""

    values: np.ndarray
    """(cells, p) float64: each mode averaged over each cell; orthonormal under the cells' widths."""
    to_splines: np.ndarray
    """(p, p) float64: spline coefficients = to_splines @ mode coefficients."""
    roughness: np.ndarray
    """(p,) float64: curvature of each mode, 0 for the constant and the linear one."""


def surface_shape(shape: tuple[int, int], tile_px: int) -> tuple[int, int]:
    """Intervals in y and x of a surface over a frame; coefficients have three more of each."""
    return max(1, round(shape[0] / tile_px)), max(1, round(shape[1] / tile_px))


def evaluate_surface(
    coefficients: np.ndarray, shape: tuple[int, int], tile_px: int, ys: np.ndarray, xs: np.ndarray
) -> np.ndarray:
    """Value of a surface at any positions of its frame.

    Parameters
    ----------
    coefficients : (ny + 3, nx + 3) float     see `surface_shape`
    shape : (height, width)                   the frame, in pixels
    tile_px : int                             wanted length of an interval
    ys, xs : float arrays of one shape        positions; outside the frame the surface is continued linearly

    Returns
    -------
    values : float32, shape of `ys`
    """
    ny, nx = surface_shape(shape, tile_px)
    flat_y = np.ascontiguousarray(ys, np.float64).ravel()
    flat_x = np.ascontiguousarray(xs, np.float64).ravel()
    table = np.ascontiguousarray(coefficients, np.float64)
    if table.shape != (ny + 3, nx + 3):
        raise ValueError(f"coefficients are {table.shape}, the frame asks for {(ny + 3, nx + 3)}")
    out = np.empty(flat_y.size, np.float32)
    _evaluate(table, ny / shape[0], nx / shape[1], flat_y, flat_x, out)
    return out.reshape(np.shape(ys))


def evaluate_surfaces(
    coefficients: np.ndarray, shape: tuple[int, int], tile_px: int, ys: np.ndarray, xs: np.ndarray
) -> np.ndarray:
    """As `evaluate_surface` for surfaces of equal frames, each at positions of its own.

    Parameters
    ----------
    coefficients : (n, ny + 3, nx + 3) float
    ys, xs : (n, ...) float

    Returns
    -------
    values : float32, shape of `ys`
    """
    ny, nx = surface_shape(shape, tile_px)
    out = np.empty(ys.shape, np.float32)
    tables = np.ascontiguousarray(coefficients, np.float64)
    flat = (np.ascontiguousarray(v, np.float64).reshape(len(tables), -1) for v in (ys, xs))
    _evaluate_all(tables, ny / shape[0], nx / shape[1], *flat, out.reshape(len(tables), -1))
    return out


def surface_on_grid(
    coefficients: np.ndarray, shape: tuple[int, int], tile_px: int, ys: np.ndarray, xs: np.ndarray
) -> np.ndarray:
    """As `evaluate_surface` on a grid of rows and columns.

    Parameters
    ----------
    coefficients : (ny + 3, nx + 3) float
    ys, xs : 1-D float

    Returns
    -------
    values : (len(ys), len(xs)) float32
    """
    ny, nx = surface_shape(shape, tile_px)
    half = axis_matrix(ys, shape[0], ny) @ np.asarray(coefficients, np.float64)
    columns = csr_array(axis_matrix(xs, shape[1], nx))  # four of a row are not zero
    return np.ascontiguousarray((columns @ half.T).T, np.float32)


def fit_surface(values: np.ndarray, shape: tuple[int, int], tile_px: int, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """Spline coefficients of surfaces given on a grid of rows and columns, by least squares per axis.

    Parameters
    ----------
    values : (..., len(ys), len(xs)) float    exact for polynomials up to third order
    ys, xs : 1-D float                        at least as many as coefficients, spread over the frame

    Returns
    -------
    coefficients : (..., ny + 3, nx + 3) float64
    """
    ny, nx = surface_shape(shape, tile_px)
    rows = np.linalg.pinv(axis_matrix(ys, shape[0], ny))
    columns = np.linalg.pinv(axis_matrix(xs, shape[1], nx))
    return rows @ np.asarray(values, np.float64) @ columns.T


def axis_matrix(points: np.ndarray, length: int, n: int) -> np.ndarray:
    """Weights of the n + 3 splines of one axis at points, (len(points), n + 3) float64."""
    out = np.zeros((len(points), n + 3))
    _axis_rows(np.ascontiguousarray(points, np.float64), n / length, n, out)
    return out


def axis_modes(edges: np.ndarray, length: int, n: int) -> AxisModes:
    """Modes of one axis for data that are averages over cells.

    Parameters
    ----------
    edges : (cells + 1,) float     pixel borders of the cells, from 0 to `length` (cell i holds edges[i]..edges[i+1]-1)
    n : int                        spline intervals

    Notes
    -----
    P u = e G u with P = penalty of second differences and G = the cells' scalar product: with uniform weights the modes
    are orthonormal, so that a diagonal is a perfect preconditioner, and e orders them by curvature.
    """
    edges = np.asarray(edges, np.float64)
    widths = np.diff(edges)
    inside = (np.arange(8) + 0.5) / 8
    points = edges[:-1, None] + widths[:, None] * inside - 0.5
    splines = axis_matrix(points.ravel(), length, n).reshape(len(widths), 8, n + 3).mean(axis=1)
    gram = splines.T @ (splines * (widths / widths.sum())[:, None])
    second = np.diff(np.eye(n + 3), 2, axis=0)
    roughness, vectors = eigh(second.T @ second, gram)
    roughness = np.maximum(roughness, 0)
    # The two flat modes come out mixed in any order; make them the constant and the line.
    vectors[:, :2] = _flat_modes(gram, n)
    roughness[:2] = 0
    return AxisModes(splines @ vectors, vectors, roughness)


def _flat_modes(gram: np.ndarray, n: int) -> np.ndarray:
    """Constant and linear mode as spline coefficients, orthonormal under `gram`."""
    one = np.ones(n + 3)
    line = np.arange(n + 3) - (n + 2) / 2
    one /= np.sqrt(one @ gram @ one)
    line = line - one * (one @ gram @ line)
    return np.stack([one, line / np.sqrt(line @ gram @ line)], axis=1)


@part(borrows=True)
def _axis_weights(position: float, per_px: float, n: int, weights: np.ndarray) -> int:
    """First spline and the four weights at a position; continued linearly beyond the ends."""
    u = (position + 0.5) * per_px
    inside = min(max(u, 0.0), float(n))
    first = min(int(inside), n - 1)
    t = inside - first
    s = 1.0 - t
    beyond = u - inside
    weights[0] = s * s * s / 6.0 - beyond * s * s / 2.0
    weights[1] = (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0 + beyond * (1.5 * t * t - 2.0 * t)
    weights[2] = (4.0 - 6.0 * s * s + 3.0 * s * s * s) / 6.0 - beyond * (1.5 * s * s - 2.0 * s)
    weights[3] = t * t * t / 6.0 + beyond * t * t / 2.0
    return first


@kernel
def _axis_rows(points: np.ndarray, per_px: float, n: int, out: np.ndarray) -> None:
    weights = np.empty(4)
    for i in range(points.size):
        first = _axis_weights(points[i], per_px, n, weights)
        for a in range(4):
            out[i, first + a] = weights[a]


@kernel
def _evaluate(
    table: np.ndarray, y_per_px: float, x_per_px: float, ys: np.ndarray, xs: np.ndarray, out: np.ndarray
) -> None:
    wy = np.empty(4)
    wx = np.empty(4)
    for i in range(ys.size):
        y = _axis_weights(ys[i], y_per_px, table.shape[0] - 3, wy)
        x = _axis_weights(xs[i], x_per_px, table.shape[1] - 3, wx)
        total = 0.0
        for a in range(4):
            row = 0.0
            for b in range(4):
                row += wx[b] * table[y + a, x + b]
            total += wy[a] * row
        out[i] = total


@kernel(borrows=True)
def _evaluate_all(
    tables: np.ndarray, y_per_px: float, x_per_px: float, ys: np.ndarray, xs: np.ndarray, out: np.ndarray
) -> None:
    for i in range(tables.shape[0]):
        _evaluate(tables[i], y_per_px, x_per_px, ys[i], xs[i], out[i])
