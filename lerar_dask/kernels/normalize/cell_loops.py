"""Loops over the cells of all subs: the scene sampled at them, residuals, the normal equations, robust weights.

Cells (n, cy, cx) float32 lie at (row, column) of the scene, in its cells; the scene is bilinear between them. Sums over subs
are in a fixed order.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.kernels.compiled.kernel import kernel

__all__ = ["apply_normal", "gather_gradient", "reweight_cells", "sample_scene", "subtract_model"]


@kernel(borrows=True)
def sample_scene(scene: np.ndarray, row: np.ndarray, column: np.ndarray, out: np.ndarray) -> None:
    """Bilinear value of the scene at each cell."""
    for k in range(row.shape[0]):
        for i in range(row.shape[1]):
            for j in range(row.shape[2]):
                r, c = np.int64(row[k, i, j]), np.int64(column[k, i, j])
                fy, fx = row[k, i, j] - r, column[k, i, j] - c
                top = scene[r, c] + fx * (scene[r, c + 1] - scene[r, c])
                low = scene[r + 1, c] + fx * (scene[r + 1, c + 1] - scene[r + 1, c])
                out[k, i, j] = top + fy * (low - top)


@kernel(borrows=True)
def subtract_model(
    value: np.ndarray, scene: np.ndarray, row: np.ndarray, column: np.ndarray, scale: np.ndarray, out: np.ndarray
) -> None:
    """Out (the sky) becomes value - scale * scene - sky."""
    for k in range(row.shape[0]):
        for i in range(row.shape[1]):
            for j in range(row.shape[2]):
                r, c = np.int64(row[k, i, j]), np.int64(column[k, i, j])
                fy, fx = row[k, i, j] - r, column[k, i, j] - c
                top = scene[r, c] + fx * (scene[r, c + 1] - scene[r, c])
                low = scene[r + 1, c] + fx * (scene[r + 1, c + 1] - scene[r + 1, c])
                out[k, i, j] = value[k, i, j] - scale[k] * (top + fy * (low - top)) - out[k, i, j]


@kernel(borrows=True)
def apply_normal(
    scene: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    scale: np.ndarray,
    weight: np.ndarray,
    work: np.ndarray,
    out: np.ndarray,
) -> None:
    """Work (a sky) becomes weight * (scale * scene + sky); its scene part is added to out. Fixed order of subs."""
    for k in range(row.shape[0]):
        s = scale[k]
        for i in range(row.shape[1]):
            for j in range(row.shape[2]):
                w = np.float64(weight[k, i, j])
                r, c = np.int64(row[k, i, j]), np.int64(column[k, i, j])
                fy, fx = np.float64(row[k, i, j] - r), np.float64(column[k, i, j] - c)
                top = scene[r, c] + fx * (scene[r, c + 1] - scene[r, c])
                low = scene[r + 1, c] + fx * (scene[r + 1, c + 1] - scene[r + 1, c])
                v = w * (s * (top + fy * (low - top)) + work[k, i, j])
                work[k, i, j] = v
                g = s * v
                below = fy * g
                above = g - below
                out[r, c + 1] += fx * above
                out[r, c] += above - fx * above
                out[r + 1, c + 1] += fx * below
                out[r + 1, c] += below - fx * below


@kernel(borrows=True)
def gather_gradient(
    residual: np.ndarray,
    weight: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    scale: np.ndarray,
    gradient: np.ndarray,
    diagonal: np.ndarray,
) -> None:
    """Residual becomes weight * residual; gradient and diagonal of the scene are added to."""
    for k in range(row.shape[0]):
        s = scale[k]
        for i in range(row.shape[1]):
            for j in range(row.shape[2]):
                w = np.float64(weight[k, i, j])
                v = w * residual[k, i, j]
                residual[k, i, j] = v
                if w == 0.0:
                    continue
                r, c = np.int64(row[k, i, j]), np.int64(column[k, i, j])
                fy, fx = np.float64(row[k, i, j] - r), np.float64(column[k, i, j] - c)
                for a in range(2):
                    for b in range(2):
                        share = (fy if a else 1.0 - fy) * (fx if b else 1.0 - fx)
                        gradient[r + a, c + b] += share * s * v
                        diagonal[r + a, c + b] += share * s * s * w


@kernel
def reweight_cells(
    residual: np.ndarray,
    weight: np.ndarray,
    detail: np.ndarray,
    scale: np.ndarray,
    edf: np.ndarray,
    cut: float,
    variance_ratio: np.ndarray,
    out: np.ndarray,
) -> None:
    """F = measured over formal variance, from the median |z| of a sub (histogram of 1/256 steps); Tukey weights."""
    n_bins = 256 * 64
    histogram = np.zeros(n_bins + 1, np.int64)
    for k in range(residual.shape[0]):
        histogram[:] = 0
        count = 0
        for i in range(residual.shape[1]):
            for j in range(residual.shape[2]):
                w = weight[k, i, j]
                if w > 0:
                    bump = scale[k] * detail[k, i, j]
                    v = w / (1.0 + w * bump * bump)
                    out[k, i, j] = v
                    z = abs(residual[k, i, j]) * np.sqrt(v)
                    histogram[min(int(z * 256.0), n_bins)] += 1
                    count += 1
                else:
                    out[k, i, j] = 0.0
        if count == 0:
            variance_ratio[k] = 1.0
            continue
        below = 0
        median = 64.0
        for b in range(n_bins):
            if 2 * (below + histogram[b]) >= count:
                median = (b + (0.5 * count - below) / histogram[b]) / 256.0
                break
            below += histogram[b]
        freedom = count / max(count - edf[k], 0.1 * count)
        variance_ratio[k] = max((MAD_TO_SIGMA * median) ** 2 * freedom, 0.5)
        inverse = 1.0 / variance_ratio[k]
        limit = 1.0 / (cut * cut * variance_ratio[k])
        for i in range(residual.shape[1]):
            for j in range(residual.shape[2]):
                v = out[k, i, j]
                if v > 0:
                    t = residual[k, i, j] * residual[k, i, j] * v * limit
                    out[k, i, j] = v * inverse * (1.0 - t) * (1.0 - t) if t < 1.0 else 0.0
