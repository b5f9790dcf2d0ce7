"""Transforms between frames: fit, apply, invert, describe, and the choice of the simplest model that suffices.

A transform is a 3x3 float64 matrix that takes (x, y, 1) of one frame to another; T[2, 2] = 1. Pixel centers lie at whole
numbers. Models: shift (2 parameters), similarity (4, or its mirror image), affine (6), homography (8).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["MODELS", "Described", "aicc", "apply", "describe", "fit", "invert", "robust_fit"]

MODELS = {"shift": 2, "similarity": 4, "affine": 6, "homography": 8}
"""Number of parameters of each model, simplest first."""


class Described(NamedTuple):
    """What a transform does at a frame's center."""

    shift_x: float
    shift_y: float
    rotation_deg: float
    scale: float
    mirrored: bool


def apply(transform: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Map points (n, 2)."""
    moved = xy @ transform[:2, :2].T + transform[:2, 2]
    w = xy @ transform[2, :2] + transform[2, 2]
    return moved / w[:, None]


def invert(transform: np.ndarray) -> np.ndarray:
    """The transform that goes back."""
    back = np.linalg.inv(transform)
    return back / back[2, 2]


def describe(transform: np.ndarray, shape: tuple[int, int]) -> Described:
    """Shift at the frame's center, rotation, scale and parity.

    Parameters
    ----------
    shape : rows and columns of the frame that the transform starts from
    """
    center = np.array([[(shape[1] - 1) / 2, (shape[0] - 1) / 2]])
    ends = apply(transform, np.concatenate([center, center + [[1.0, 0]], center + [[0, 1.0]]]))
    a, b = ends[1] - ends[0], ends[2] - ends[0]
    determinant = a[0] * b[1] - a[1] * b[0]
    shift = ends[0] - center[0]
    return Described(
        float(shift[0]),
        float(shift[1]),
        float(np.degrees(np.arctan2(a[1], a[0]))),
        float(np.sqrt(abs(determinant))),
        bool(determinant < 0),
    )


def fit(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray, *, model: str, mirrored: bool = False
) -> np.ndarray:
    """Weighted least squares for a transform that takes `source` to `target`.

    Parameters
    ----------
    source, target : (n, 2) float64
    weight : (n,) float64     >= 0, inverse variances
    model : one of MODELS
    mirrored : for `similarity`: fit the mirror-image kind

    Notes
    -----
    Points are centered and scaled first (Hartley 1997), so that the normal equations are well conditioned.
    """
    here, there = _normalizer(source), _normalizer(target)
    a, b = apply(here, source), apply(there, target)
    n = len(a)
    root = np.sqrt(weight)
    if model == "shift":
        move = np.average(target - source, axis=0, weights=weight)
        return np.array([[1, 0, move[0]], [0, 1, move[1]], [0, 0, 1.0]])
    zero, one = np.zeros(n), np.ones(n)
    x, y = a[:, 0], a[:, 1]
    if model == "similarity":
        s = -1.0 if mirrored else 1.0
        rows = np.concatenate([np.stack([x, -s * y, one, zero], 1), np.stack([s * y, x, zero, one], 1)])
        p = _solve(rows, b, root)
        found = np.array([[p[0], -s * p[1], p[2]], [p[1], s * p[0], p[3]], [0, 0, 1.0]])
    elif model == "affine":
        rows = np.concatenate([np.stack([x, y, one, zero, zero, zero], 1), np.stack([zero, zero, zero, x, y, one], 1)])
        p = _solve(rows, b, root)
        found = np.array([[p[0], p[1], p[2]], [p[3], p[4], p[5]], [0, 0, 1.0]])
    else:
        u, v = b[:, 0], b[:, 1]
        rows = np.concatenate(
            [
                np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], 1),
                np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], 1),
            ]
        )
        p = _solve(rows, b, root)
        found = np.append(p, 1.0).reshape(3, 3)
    whole = np.linalg.inv(there) @ found @ here
    return whole / whole[2, 2]


def robust_fit(
    source: np.ndarray, target: np.ndarray, sigma: np.ndarray, *, model: str, mirrored: bool = False, rounds: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Fit with Cauchy weights whose scale is annealed; transform and residuals in sigma (n,).

    A fixed gate around a poor start would reject everything; the scale therefore follows the residuals' median down
    to 1.
    """
    weight = 1.0 / sigma**2
    transform = fit(source, target, weight, model=model, mirrored=mirrored)
    for _ in range(rounds):
        r = np.hypot(*(apply(transform, source) - target).T) / sigma
        scale = max(1.0, float(np.median(r)) / 1.18)
        transform = fit(source, target, weight / (1.0 + (r / (2.4 * scale)) ** 2), model=model, mirrored=mirrored)
    return transform, np.hypot(*(apply(transform, source) - target).T) / sigma


def aicc(residuals: np.ndarray, n_parameters: int) -> float:
    """Corrected Akaike criterion of robust residuals with known sigmas; infinite with too few points.

    Parameters
    ----------
    residuals : (n,) float     distances in sigma
    """
    n = 2 * len(residuals)
    if len(residuals) < n_parameters / 2 + 4 or n - n_parameters - 1 <= 0:
        return float("inf")
    return float(np.sum(np.minimum(residuals, 6.0) ** 2)) + 2.0 * n_parameters * n / (n - n_parameters - 1)


def _normalizer(points: np.ndarray) -> np.ndarray:
    """Transform that brings points to mean 0 and unit size."""
    middle = points.mean(axis=0)
    size = max(float(np.sqrt(((points - middle) ** 2).sum(axis=1).mean())), 1e-9)
    return np.array([[1 / size, 0, -middle[0] / size], [0, 1 / size, -middle[1] / size], [0, 0, 1.0]])


def _solve(rows: np.ndarray, target: np.ndarray, root: np.ndarray) -> np.ndarray:
    scale = np.concatenate([root, root])
    return np.linalg.lstsq(rows * scale[:, None], np.concatenate([target[:, 0], target[:, 1]]) * scale, rcond=None)[0]
