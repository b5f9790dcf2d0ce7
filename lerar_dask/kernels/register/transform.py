"""Transforms between frames: fit, apply, invert, describe, and the choice of the simplest model that suffices.

A transform is a 3x3 float64 matrix that takes (x, y, 1) of one frame to another; T[2, 2] = 1. Pixel centers lie at whole
numbers. Models: shift (2 parameters), similarity (4, or its mirror image), affine (6), homography (8).
Fits take star positions with known errors and return plain matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.robust.medians import upper_median

__all__ = ["MODELS", "Described", "aicc", "apply", "compose", "describe", "fit", "invert", "robust_fit"]

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


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The transform that does `inner` first, then `outer`."""
    both = outer @ inner
    return both / both[2, 2]


def describe(transform: np.ndarray, shape: tuple[int, int]) -> Described:
    """Shift at the frame's center, rotation, scale and parity.

    Parameters
    ----------
    shape : rows and columns of the frame that the transform starts from
    """
    center = np.array([[(shape[1] - 1) / 2, (shape[0] - 1) / 2]])
    ends = apply(transform, center + np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
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

    Returns
    -------
    transform : (3, 3) float64, NaN when the points do not determine it
    """
    return _fit(*_columns(source, target, weight), MODELS[model], mirrored)


def robust_fit(
    source: np.ndarray, target: np.ndarray, sigma: np.ndarray, *, model: str, mirrored: bool = False, rounds: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Fit with Cauchy weights whose scale is annealed; transform and residuals in sigma (n,).

    A fixed gate around a poor start would reject everything; the scale therefore follows the residuals' median down
    to 1.

    Parameters
    ----------
    source, target : (n, 2) float64
    sigma : (n,) float64      position errors in pixels of `target`, per axis
    """
    return _robust(*_columns(source, target, sigma), MODELS[model], mirrored, rounds)


def _columns(*columns: np.ndarray) -> list[np.ndarray]:
    """The one type that the compiled functions take."""
    return [np.ascontiguousarray(c, np.float64) for c in columns]


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


# ------------------------------------------------------------------------------------------------------------ compiled


@kernel
def _robust(source, target, sigma, n_parameters, mirrored, rounds):  # pragma: no cover
    n = len(source)
    weight = np.empty(n)
    for i in range(n):
        weight[i] = 1.0 / (sigma[i] * sigma[i])
    transform = _fit(source, target, weight, n_parameters, mirrored)
    r = np.empty(n)
    for k in range(rounds + 1):
        for i in range(n):
            w = transform[2, 0] * source[i, 0] + transform[2, 1] * source[i, 1] + transform[2, 2]
            x = (transform[0, 0] * source[i, 0] + transform[0, 1] * source[i, 1] + transform[0, 2]) / w
            y = (transform[1, 0] * source[i, 0] + transform[1, 1] * source[i, 1] + transform[1, 2]) / w
            r[i] = np.sqrt((x - target[i, 0]) ** 2 + (y - target[i, 1]) ** 2) / sigma[i]
        if k == rounds:
            break
        # 1.18: median distance of a two-dimensional Gaussian of width 1
        scale = max(1.0, upper_median(r) / 1.18)
        for i in range(n):
            # 2.4: Cauchy weights lose 5 % of the precision there when there are no outliers
            weight[i] = 1.0 / (sigma[i] * sigma[i] * (1.0 + (r[i] / (2.4 * scale)) ** 2))
        transform = _fit(source, target, weight, n_parameters, mirrored)
    return transform, r


@kernel
def _fit(source, target, weight, n_parameters, mirrored):  # pragma: no cover
    """Normal equations in points that are centered and scaled first (Hartley 1997), so that they are well conditioned."""
    n = len(source)
    out = np.eye(3)
    total, mx, my, mu, mv = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        total += weight[i]
        mx += weight[i] * source[i, 0]
        my += weight[i] * source[i, 1]
        mu += weight[i] * target[i, 0]
        mv += weight[i] * target[i, 1]
    if not total > 0:
        return np.full((3, 3), np.nan)
    mx, my, mu, mv = mx / total, my / total, mu / total, mv / total
    if n_parameters == 2:
        out[0, 2], out[1, 2] = mu - mx, mv - my
        return out
    sa, sb = 1e-300, 1e-300
    for i in range(n):
        sa += weight[i] * ((source[i, 0] - mx) ** 2 + (source[i, 1] - my) ** 2)
        sb += weight[i] * ((target[i, 0] - mu) ** 2 + (target[i, 1] - mv) ** 2)
    sa, sb = np.sqrt(sa / total), np.sqrt(sb / total)
    sign = -1.0 if mirrored else 1.0
    m = n_parameters
    normal = np.zeros((m, m + 1))
    row = np.zeros((2, m + 1))
    for i in range(n):
        x, y = (source[i, 0] - mx) / sa, (source[i, 1] - my) / sa
        u, v = (target[i, 0] - mu) / sb, (target[i, 1] - mv) / sb
        for q in range(m):
            row[0, q] = row[1, q] = 0.0
        if m == 4:
            row[0, 0], row[0, 1], row[0, 2] = x, -sign * y, 1.0
            row[1, 0], row[1, 1], row[1, 3] = sign * y, x, 1.0
        else:
            row[0, 0], row[0, 1], row[0, 2] = x, y, 1.0
            row[1, 3], row[1, 4], row[1, 5] = x, y, 1.0
            if m == 8:
                row[0, 6], row[0, 7] = -u * x, -u * y
                row[1, 6], row[1, 7] = -v * x, -v * y
        row[0, m], row[1, m] = u, v
        for k in range(2):
            for p in range(m):
                if row[k, p] != 0.0:
                    for q in range(p, m + 1):
                        normal[p, q] += weight[i] / total * row[k, p] * row[k, q]
    for p in range(m):
        for q in range(p):
            normal[p, q] = normal[q, p]
    if not _eliminate(normal):
        return np.full((3, 3), np.nan)
    solution = normal[:, m]
    inner = np.eye(3)
    if m == 4:
        inner[0, 0], inner[0, 1], inner[0, 2] = solution[0], -sign * solution[1], solution[2]
        inner[1, 0], inner[1, 1], inner[1, 2] = solution[1], sign * solution[0], solution[3]
    else:
        for k in range(m):
            inner[k // 3, k % 3] = solution[k]
    # out = there^-1 inner here, with here = (x - mx) / sa and there = (u - mu) / sb
    for r in range(3):
        inner[r, 2] -= (inner[r, 0] * mx + inner[r, 1] * my) / sa
        inner[r, 0] /= sa
        inner[r, 1] /= sa
    for c in range(3):
        out[0, c] = sb * inner[0, c] + mu * inner[2, c]
        out[1, c] = sb * inner[1, c] + mv * inner[2, c]
        out[2, c] = inner[2, c]
    last = out[2, 2]
    for r in range(3):
        for c in range(3):
            out[r, c] /= last
    return out


@part(borrows=True)
def _eliminate(a):  # pragma: no cover
    """Solve in place by Gauss-Jordan with pivots; the solution is the last column. False when singular."""
    m = a.shape[0]
    for k in range(m):
        at = k
        for r in range(k + 1, m):
            if abs(a[r, k]) > abs(a[at, k]):
                at = r
        if not abs(a[at, k]) > 1e-13:
            return False
        for c in range(m + 1):
            a[k, c], a[at, c] = a[at, c], a[k, c]
        for r in range(m):
            if r != k:
                factor = a[r, k] / a[k, k]
                for c in range(k, m + 1):
                    a[r, c] -= factor * a[k, c]
    for k in range(m):
        a[k, m] /= a[k, k]
    return True
