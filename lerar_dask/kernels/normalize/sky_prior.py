"""The prior of a sub's sky, chosen by evidence, and the error that is left.

In: what the data say of each mode, and how rough the modes are. Out: slope and variance of the prior's spectrum; posterior
error on tiles.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.normalize.slab import Slab

__all__ = ["evidence", "roughness", "tile_error"]

EXPONENTS = (0.75, 1.0, 1.5, 2.0)
"""Slopes of the prior's spectrum that the evidence may choose from."""


def roughness(slab: Slab) -> np.ndarray:
    """(my, mx): thin-plate-like roughness of each product mode, smallest positive one = 1; 0 = {1, x, y, xy}."""
    e = (np.sqrt(slab.rows.roughness)[:, None] + np.sqrt(slab.columns.roughness)[None, :]) ** 2
    positive = e > 1e-12 * e.max()
    e[~positive] = 0.0
    return e / e[positive].min() if positive.any() else e


def evidence(d: np.ndarray, rough: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponent and variance of each sub's prior, by maximum evidence on a grid.

    Modes of similar roughness are taken together: 30 bins in ln e change the optimum by less than a grid step.
    """
    n = len(d)
    curved = rough.ravel() > 0
    e = rough.ravel()[curved]
    if not len(e):
        return np.ones(n), np.ones(n)
    power = d.reshape(n, -1)[:, curved] ** 2 * total[:, None]
    ln_e = np.log(e)
    n_bins = 30
    which = np.minimum((ln_e / (ln_e.max() + 1e-9) * n_bins).astype(int), n_bins - 1)
    used, which = np.unique(which, return_inverse=True)
    counts = np.bincount(which).astype(float)
    centers = np.bincount(which, ln_e) / counts
    sums = np.stack([power[:, which == b].sum(axis=1) for b in range(len(used))], axis=1)
    ln_t = np.arange(-8.0, 30.5, 0.5)
    best = np.full(n, -np.inf)
    exponent, ln_best = np.ones(n), np.full(n, ln_t[0])
    for q in EXPONENTS:
        gain = 1.0 + np.exp(ln_t[:, None] - q * centers[None, :])
        score = -0.5 * (sums @ (1.0 / gain).T + (np.log(gain) @ counts)[None, :])
        top = score.argmax(axis=1)
        value = score[np.arange(n), top]
        better = value > best
        best[better], exponent[better], ln_best[better] = value[better], q, ln_t[top[better]]
    return exponent, np.exp(ln_best) / total


def tile_error(slab: Slab) -> np.ndarray:
    """Posterior sigma at tile centers, larger where cells are missing around."""
    splines = [len(axis.roughness) - 3 for axis in (slab.rows, slab.columns)]
    squares = []
    for axis, n in zip((slab.rows, slab.columns), splines, strict=True):
        # Uniform cubic splines at the middle of an interval: 1/48, 23/48, 23/48, 1/48.
        middle = np.zeros((n, n + 3))
        for a, w in enumerate((1 / 48, 23 / 48, 23 / 48, 1 / 48)):
            middle[np.arange(n), np.arange(n) + a] = w
        squares.append((middle @ axis.to_splines) ** 2)
    total = slab.solve_weight.sum(axis=(1, 2), dtype=np.float64)[:, None, None]
    variance = squares[0] @ (1.0 / np.maximum(total + slab.penalty, 1e-30)) @ squares[1].T
    local = _tile_means(slab.solve_weight, *splines)
    mean = local.mean(axis=(1, 2), keepdims=True)
    return np.sqrt(variance * np.maximum(1.0, mean / np.maximum(local, 0.02 * mean + 1e-30)))


def _tile_means(field_: np.ndarray, ny: int, nx: int) -> np.ndarray:
    """Mean of cells over each tile and half a tile around it."""
    out = np.empty((field_.shape[0], ny, nx))
    cy, cx = field_.shape[1:]
    for i in range(ny):
        y0, y1 = max(0, int((i - 0.5) * cy / ny)), min(cy, max(int((i + 1.5) * cy / ny), 1))
        for j in range(nx):
            x0, x1 = max(0, int((j - 0.5) * cx / nx)), min(cx, max(int((j + 1.5) * cx / nx), 1))
            out[:, i, j] = field_[:, y0:y1, x0:x1].mean(axis=(1, 2), dtype=np.float64)
    return out
