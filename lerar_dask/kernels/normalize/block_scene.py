"""The scene on blocks: what all subs show, at 8 px, and how much more or less a sub's blocks hold.

In: 8 px blocks of each sub (mean, count, flux clipped high), its star mask, its sky at block centers and its transform.
Out: the scene, a mean over subs from which blocks far off a first round are left out; where light is clipped in many
subs; residuals of a sub over their noise. Where another sub has a trail, the scene holds a faint ghost of it.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import BLOCK_PX
from lerar_dask.kernels.compiled.kernel import kernel

__all__ = ["add_clipped", "add_to_scene", "block_residuals", "lasting_light", "scene_of"]

_LASTING = 0.35
"""Share of the subs from which on light clipped at one place belongs to the scene."""


def add_to_scene(
    blocks: np.ndarray,
    masked: np.ndarray,
    sky: np.ndarray,
    reference_to_sub: np.ndarray,
    *,
    scale: float,
    sigma: float,
    origin_xy: tuple[float, float],
    total: np.ndarray,
    weight: np.ndarray,
    known: np.ndarray | None = None,
) -> None:
    """Add a sub's normalized blocks to the scene's sums.

    Parameters
    ----------
    blocks : (by, bx, 3) float32     one channel
    masked : (by, bx) bool           True = under a star
    sky : (by, bx) float32           sky at block centers
    reference_to_sub : (3, 3) float64            reference plane to sub
    sigma : float                    noise of a pixel, ADU
    total, weight : (sy, sx) float64 sums, in place
    known : (sy, sx) float64, optional   scene of a first round: blocks 4 sigma away from it are left out
    """
    first = np.zeros((1, 1)) if known is None else known
    inverse = np.linalg.inv(reference_to_sub)
    _splat(blocks, masked, sky, inverse, scale, sigma, *origin_xy, first, known is not None, total, weight)


def scene_of(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Scene at block scale; NaN where nothing fell."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan)


def add_clipped(
    blocks: np.ndarray,
    masked: np.ndarray,
    reference_to_sub: np.ndarray,
    *,
    origin_xy: tuple[float, float],
    clipped: np.ndarray,
    seen: np.ndarray,
) -> None:
    """Count a sub where blocks of the scene lie beside blocks of its own, and beside such that had light clipped.

    Parameters
    ----------
    blocks, masked, reference_to_sub : as in `add_to_scene`
    clipped, seen : (sy, sx) int32    counts of subs, in place
    """
    own = np.zeros((2, *clipped.shape), np.bool_)
    _touch(blocks, masked, np.linalg.inv(reference_to_sub), *origin_xy, own[0], own[1])
    clipped += own[0]
    seen += own[1]


def lasting_light(clipped: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Blocks of the scene where many subs had light clipped: unmasked stars, and knots of nebula; bool.

    A trail clips one sub's light; among few subs one of them is a large share.
    """
    limit = np.minimum(np.maximum(_LASTING, 1.2 / np.maximum(seen, 1)), 0.9)
    return clipped > limit * seen


def block_residuals(
    blocks: np.ndarray,
    masked: np.ndarray,
    sky: np.ndarray,
    reference_to_sub: np.ndarray,
    scene: np.ndarray,
    *,
    scale: float,
    noise: np.ndarray,
    noise_cell_px: int,
    origin_xy: tuple[float, float],
) -> np.ndarray:
    """Flux of each block beyond scene and sky, over its noise; (by, bx) float32, NaN where unknown or masked.

    Parameters
    ----------
    noise : (gy, gx) float32     sigma of a pixel on cells of `noise_cell_px`
    """
    out = np.empty(blocks.shape[:2], np.float32)
    inverse = np.linalg.inv(reference_to_sub)
    _excess(blocks, masked, sky, inverse, scene, scale, noise, noise_cell_px // BLOCK_PX, *origin_xy, out)
    return out


@kernel(borrows=True)
def _splat(
    blocks: np.ndarray,
    masked: np.ndarray,
    sky: np.ndarray,
    inverse: np.ndarray,
    scale: float,
    sigma: float,
    x0: float,
    y0: float,
    known: np.ndarray,
    clip: bool,
    total: np.ndarray,
    weight: np.ndarray,
) -> None:
    limit = 4.0 * sigma / (8.0 * scale)
    inv_scale = 1.0 / scale
    for i in range(blocks.shape[0]):
        for j in range(blocks.shape[1]):
            n = blocks[i, j, 1]
            if masked[i, j] or n <= 0:
                continue
            y, x = i * BLOCK_PX + (BLOCK_PX - 1) / 2, j * BLOCK_PX + (BLOCK_PX - 1) / 2
            d = 1.0 / (inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2])
            column = ((inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) * d - x0) / BLOCK_PX
            row = ((inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) * d - y0) / BLOCK_PX
            r, c = int(np.floor(row)), int(np.floor(column))
            if r < 0 or c < 0 or r + 1 >= total.shape[0] or c + 1 >= total.shape[1]:
                continue
            fy, fx = row - r, column - c
            v = (blocks[i, j, 0] - sky[i, j]) * inv_scale
            if clip:
                # Values of one side only: a clipped scene must not fall below what the first round saw.
                top = known[r, c] + fx * (known[r, c + 1] - known[r, c])
                low = known[r + 1, c] + fx * (known[r + 1, c + 1] - known[r + 1, c])
                if abs(v - top - fy * (low - top)) > limit:
                    continue
            for a in range(2):
                for b in range(2):
                    share = (fy if a else 1.0 - fy) * (fx if b else 1.0 - fx)
                    total[r + a, c + b] += share * v
                    weight[r + a, c + b] += share


@kernel(borrows=True)
def _touch(
    blocks: np.ndarray,
    masked: np.ndarray,
    inverse: np.ndarray,
    x0: float,
    y0: float,
    clipped: np.ndarray,
    seen: np.ndarray,
) -> None:
    """Mark the four blocks of the scene around each block of a sub."""
    for i in range(blocks.shape[0]):
        for j in range(blocks.shape[1]):
            if masked[i, j] or blocks[i, j, 1] <= 0:
                continue
            y, x = i * BLOCK_PX + (BLOCK_PX - 1) / 2, j * BLOCK_PX + (BLOCK_PX - 1) / 2
            d = 1.0 / (inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2])
            c = int(np.floor(((inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) * d - x0) / BLOCK_PX))
            r = int(np.floor(((inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) * d - y0) / BLOCK_PX))
            if r < 0 or c < 0 or r + 1 >= seen.shape[0] or c + 1 >= seen.shape[1]:
                continue
            light = blocks[i, j, 2] > 0
            for a in range(2):
                for b in range(2):
                    seen[r + a, c + b] = True
                    clipped[r + a, c + b] |= light


@kernel(borrows=True)
def _excess(
    blocks: np.ndarray,
    masked: np.ndarray,
    sky: np.ndarray,
    inverse: np.ndarray,
    scene: np.ndarray,
    scale: float,
    noise: np.ndarray,
    per_noise: int,
    x0: float,
    y0: float,
    out: np.ndarray,
) -> None:
    for i in range(blocks.shape[0]):
        for j in range(blocks.shape[1]):
            out[i, j] = np.nan
            n = blocks[i, j, 1]
            if masked[i, j] or n <= 0:
                continue
            y, x = i * BLOCK_PX + (BLOCK_PX - 1) / 2, j * BLOCK_PX + (BLOCK_PX - 1) / 2
            d = 1.0 / (inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2])
            column = ((inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) * d - x0) / BLOCK_PX
            row = ((inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) * d - y0) / BLOCK_PX
            r, c = int(np.floor(row)), int(np.floor(column))
            if r < 0 or c < 0 or r + 1 >= scene.shape[0] or c + 1 >= scene.shape[1]:
                continue
            fy, fx = row - r, column - c
            top = scene[r, c] + fx * (scene[r, c + 1] - scene[r, c])
            low = scene[r + 1, c] + fx * (scene[r + 1, c + 1] - scene[r + 1, c])
            model = scale * (top + fy * (low - top)) + sky[i, j]
            sigma = noise[min(i // per_noise, noise.shape[0] - 1), min(j // per_noise, noise.shape[1] - 1)]
            value = ((blocks[i, j, 0] - model) * n + blocks[i, j, 2]) / (sigma * np.sqrt(n) + 1e-30)
            out[i, j] = value
