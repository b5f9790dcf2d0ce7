"""Bundle adjustment: the transforms of all frames and the places of all stars in one least-squares problem.

Frames that are fitted one after another to a mean (`joint`) pass an error on from overlap to overlap only slowly: across
a mosaic of many panels a loop stays open. Here all corrections are solved for at once, each in the chart of its frame
(`sphere`); star places are eliminated (Schur complement), and what is left is solved by conjugate gradients with the
frames' own blocks as preconditioner (Triggs et al. 2000, "Bundle Adjustment - A Modern Synthesis", sections 6 and 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel
from lerar_dask.kernels.register.sphere import charts_at
from lerar_dask.kernels.register.transform import MODELS, apply, compose, fit, invert

__all__ = ["Frames", "Sightings", "adjust", "measure_curvature"]

_ROUNDS = 3
"""Robust weights are renewed so often; but for them and the second order of corrections the problem is linear."""
_CAUCHY = 2.4
"""Scale of the weights in sigma: they lose 5 % of the precision where there are no outliers."""
_ITERATIONS = 300
_RESIDUAL = 1e-6
"""Of the preconditioned gradient relative to its start."""
_CURVATURE_SIGMA = 5.0
"""A curvature that is not measured as surely as this is taken as none."""


class Sightings(NamedTuple):
    """Stars that frames saw, ordered by frame."""

    frame: np.ndarray
    """(k,) int, ascending"""
    star: np.ndarray
    """(k,) int: which star of the sky"""
    xy: np.ndarray
    """(k, 2) float64: where, px of the frame"""
    sigma: np.ndarray
    """(k,) float64: position error per axis, px of the frame"""


class Frames(NamedTuple):
    """What is known of the frames."""

    centers: np.ndarray
    """(n, 2) float64: where the optical axis meets each frame, px of the frame"""
    models: Sequence[str]
    """(n,) of `transform.MODELS`: what may be corrected in each frame's chart"""
    reference: int
    """The frame that stands still; the sky's plane touches the sphere at its center."""


class _Charts(NamedTuple):
    """Where frames point, and their tangent planes there."""

    maps: np.ndarray
    """(n, 3, 3) from the plane of the reference"""
    middle: np.ndarray
    """(n, 2) centers of the frames, px of the plane"""
    size: np.ndarray
    """(n,) half widths of what frames saw, px of the plane"""


class _Problem(NamedTuple):
    """Sightings on the plane, and how they move with each parameter."""

    frame: np.ndarray
    star: np.ndarray
    weight: np.ndarray
    total: np.ndarray
    """(m,) weights of each star"""
    places: np.ndarray
    """(k, 2) px of the plane"""
    terms: np.ndarray
    """(k, 2, 8): what each parameter moves a sighting by, px of the plane"""
    free: np.ndarray
    """(n, 8) bool"""


def adjust(transforms: np.ndarray, seen: Sightings, frames: Frames, curvature: float) -> np.ndarray:
    """Refine transforms together; the reference stands still, and so does a frame that shares no star with another.

    Parameters
    ----------
    transforms : (n, 3, 3) float64     reference plane to frame; NaN where none is known
    curvature : of the sky, px^-2; 0: flat

    Returns
    -------
    (n, 3, 3) float64
    """
    if not len(seen.frame):
        return transforms
    found = _in_charts(transforms, seen, _charts(transforms, seen, frames, curvature), frames)
    for _ in range(_ROUNDS):
        charts = _charts(found, seen, frames, curvature)
        found = _corrected(found, _solve(_problem(found, seen, charts, frames)), charts)
    return found


def measure_curvature(transforms: np.ndarray, seen: Sightings, frames: Frames, curvature: float) -> float:
    """Curvature of the sky as the overlaps of frames show it, px^-2; 0 where they do not.

    One more unknown of the same problem, which all frames share. They get similarities only: with more they would take
    on the shape of the sphere themselves.
    """
    if not len(seen.frame):
        return 0.0
    frames = frames._replace(models=["similarity"] * len(transforms))
    found = _in_charts(transforms, seen, _charts(transforms, seen, frames, curvature), frames)
    worth = 0.0
    for _ in range(_ROUNDS):
        charts = _charts(found, seen, frames, curvature)
        problem = _problem(found, seen, charts, frames)
        column = _bending(problem, charts, frames, curvature)
        # the part of the column that the frames' own parameters cannot make (Frisch & Waugh 1933)
        left = _from_mean(column + _moved(problem, _solve(problem._replace(places=column))), problem)
        told = float(np.einsum("k,kd,kd->", problem.weight, left, left))
        if not told > 0:
            return 0.0
        away = _from_mean(problem.places, problem)
        curvature = max(curvature - float(np.einsum("k,kd,kd->", problem.weight, left, away)) / told, 0.0)
        worth = curvature * told**0.5
        bent = charts._replace(maps=charts_at(charts.middle, frames.centers[frames.reference], curvature))
        found = found @ np.linalg.inv(charts.maps) @ bent.maps
        found = _corrected(found, _solve(_problem(found, seen, bent, frames)), bent)
    return curvature if worth > _CURVATURE_SIGMA else 0.0


# ---------------------------------------------------------------------------------------------------------- the problem


def _rows(frame: np.ndarray) -> list[tuple[int, slice]]:
    """Frames that saw something, and the rows of what they saw."""
    starts = np.flatnonzero(np.diff(frame, prepend=-1))
    ends = [*starts[1:], len(frame)]
    return [(int(frame[a]), slice(int(a), int(b))) for a, b in zip(starts, ends, strict=True)]


def _charts(transforms: np.ndarray, seen: Sightings, frames: Frames, curvature: float) -> _Charts:
    middle, size = np.zeros((len(transforms), 2)), np.ones(len(transforms))
    for i, rows in _rows(seen.frame):
        back = invert(transforms[i])
        middle[i] = apply(back, frames.centers[i : i + 1])[0]
        size[i] = max(float(np.abs(apply(back, seen.xy[rows]) - middle[i]).max()), 1.0)
    return _Charts(charts_at(middle, frames.centers[frames.reference], curvature), middle, size)


def _in_charts(transforms: np.ndarray, seen: Sightings, charts: _Charts, frames: Frames) -> np.ndarray:
    """The nearest transforms that are of their models in their charts."""
    out = transforms.copy()
    for i, rows in _rows(seen.frame):
        if i != frames.reference:
            places = apply(charts.maps[i], apply(invert(transforms[i]), seen.xy[rows]))
            mirrored = bool(np.linalg.det(transforms[i][:2, :2]) < 0)
            like = fit(places, seen.xy[rows], np.ones(len(places)), model=frames.models[i], mirrored=mirrored)
            out[i] = compose(like, charts.maps[i]) if np.isfinite(like).all() else transforms[i]
    return out


def _problem(transforms: np.ndarray, seen: Sightings, charts: _Charts, frames: Frames) -> _Problem:
    """The problem linear in corrections of these transforms."""
    places, terms = np.empty_like(seen.xy), np.empty((len(seen.frame), 2, 8))
    sigma = np.empty(len(seen.frame))
    for i, rows in _rows(seen.frame):
        places[rows] = apply(invert(transforms[i]), seen.xy[rows])
        sigma[rows] = seen.sigma[rows] / abs(np.linalg.det(transforms[i][:2, :2])) ** 0.5
        there = apply(charts.maps[i], places[rows])
        own = _terms(*((there - charts.middle[i]) / charts.size[i]).T) * charts.size[i]
        terms[rows] = _slopes(invert(charts.maps[i]), there) @ own
    free = np.arange(8) < np.array([MODELS[m] for m in frames.models])[:, None]
    free[frames.reference] = False
    total = np.bincount(seen.star, sigma**-2.0)
    problem = _Problem(seen.frame, seen.star, sigma**-2.0, total, places, terms, free)
    weight = problem.weight * _trust(np.hypot(*_from_mean(places, problem).T) / sigma, seen.frame)
    return problem._replace(weight=weight, total=np.bincount(seen.star, weight))


def _terms(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """What each of 8 parameters moves a point by, (k, 2, 8): shift, scale and turn, two shears, two projective terms."""
    one, zero = np.ones_like(u), np.zeros_like(u)
    x = [one, zero, u, -v, u, v, u * u, u * v]
    y = [zero, one, v, u, -v, u, u * v, v * v]
    return np.stack([np.stack(x, axis=1), np.stack(y, axis=1)], axis=1)


def _matrix(p: np.ndarray, middle: np.ndarray, size: float) -> np.ndarray:
    """The map of a chart whose first order these terms are."""
    local = np.array(
        [
            [1 + p[2] + p[4], -p[3] + p[5], p[0]],
            [p[3] + p[5], 1 + p[2] - p[4], p[1]],
            [-p[6], -p[7], 1.0],
        ]
    )
    here = np.array([[1 / size, 0, -middle[0] / size], [0, 1 / size, -middle[1] / size], [0, 0, 1.0]])
    return compose(np.linalg.inv(here), local @ here)


def _slopes(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Derivatives of a projective map at points, (k, 2, 2)."""
    w = points @ transform[2, :2] + transform[2, 2]
    moved = apply(transform, points)
    slopes: np.ndarray = (transform[None, :2, :2] - moved[:, :, None] * transform[None, 2:, :2]) / w[:, None, None]
    return slopes


def _bending(problem: _Problem, charts: _Charts, frames: Frames, curvature: float) -> np.ndarray:
    """What a unit of curvature moves each sighting by, (k, 2)."""
    axis = frames.centers[frames.reference]
    step = 1e-3 / max(float(np.max(np.abs(problem.places - axis))), 1.0) ** 2
    bent = charts_at(charts.middle, axis, curvature + step)
    column = np.empty_like(problem.places)
    for i, rows in _rows(problem.frame):
        there = compose(invert(bent[i]), charts.maps[i])
        column[rows] = apply(there, problem.places[rows]) - problem.places[rows]
    return column / step


def _corrected(transforms: np.ndarray, steps: np.ndarray, charts: _Charts) -> np.ndarray:
    """Transforms after corrections in their charts."""
    out = transforms.copy()
    for i in np.flatnonzero(np.any(steps != 0, axis=1)):
        undone = invert(_matrix(steps[i], charts.middle[i], charts.size[i]))
        out[i] = compose(transforms[i], compose(invert(charts.maps[i]), compose(undone, charts.maps[i])))
    return out


def _trust(away: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Weights of Cauchy's distribution, as wide as each frame is off as a whole."""
    out = np.empty_like(away)
    for _, rows in _rows(frame):
        # 1.18: median distance of a two-dimensional Gaussian of width 1
        width = max(1.0, float(np.median(away[rows])) / 1.18)
        out[rows] = 1 / (1 + (away[rows] / (_CAUCHY * width)) ** 2)
    return out


# ---------------------------------------------------------------------------------------------------------- its solution


def _solve(problem: _Problem) -> np.ndarray:
    """Corrections (n, 8): conjugate gradients with the inverses of the frames' blocks as preconditioner."""
    rhs = -_gradient(problem, _from_mean(problem.places, problem))
    back = _inverse_blocks(problem)
    x, residual = np.zeros_like(rhs), rhs
    z = np.einsum("npq,nq->np", back, residual)
    direction, size = z, float((residual * z).sum())
    stop = _RESIDUAL**2 * size
    for _ in range(_ITERATIONS):
        if size <= stop:
            break
        along = _gradient(problem, _from_mean(_moved(problem, direction), problem))
        bent = float((direction * along).sum())
        if bent <= 0:
            break
        x = x + size / bent * direction
        residual = residual - size / bent * along
        z = np.einsum("npq,nq->np", back, residual)
        size, last = float((residual * z).sum()), size
        direction = z + size / last * direction
    return x


def _inverse_blocks(problem: _Problem) -> np.ndarray:
    free = problem.free
    blocks = _blocks(problem.frame, problem.weight, problem.terms, len(free))
    blocks = np.where(free[:, :, None] & free[:, None, :], blocks, np.eye(8) * ~free[:, :, None])
    return np.linalg.pinv(blocks, hermitian=True)


def _gradient(problem: _Problem, away: np.ndarray) -> np.ndarray:
    summed = _along_terms(problem.frame, problem.weight, problem.terms, away, len(problem.free))
    return np.where(problem.free, summed, 0.0)


def _moved(problem: _Problem, x: np.ndarray) -> np.ndarray:
    return _terms_times(problem.frame, problem.terms, x)  # type: ignore[no-any-return]


def _from_mean(points: np.ndarray, problem: _Problem) -> np.ndarray:
    """Points (k, 2) less the mean of their star."""
    weight, star, total = problem.weight, problem.star, np.maximum(problem.total, 1e-300)
    mean = [np.bincount(star, weight * points[:, k]) / total for k in range(2)]
    return points - np.stack(mean, axis=1)[star]  # type: ignore[no-any-return]


@kernel
def _terms_times(frame, terms, x):  # pragma: no cover
    out = np.zeros((len(frame), 2))
    for k in range(len(frame)):
        for q in range(8):
            out[k, 0] += terms[k, 0, q] * x[frame[k], q]
            out[k, 1] += terms[k, 1, q] * x[frame[k], q]
    return out


@kernel
def _along_terms(frame, weight, terms, away, n):  # pragma: no cover
    out = np.zeros((n, 8))
    for k in range(len(frame)):
        for q in range(8):
            out[frame[k], q] += weight[k] * (terms[k, 0, q] * away[k, 0] + terms[k, 1, q] * away[k, 1])
    return out


@kernel
def _blocks(frame, weight, terms, n):  # pragma: no cover
    out = np.zeros((n, 8, 8))
    for k in range(len(frame)):
        for p in range(8):
            for q in range(8):
                out[frame[k], p, q] += weight[k] * (terms[k, 0, p] * terms[k, 0, q] + terms[k, 1, p] * terms[k, 1, q])
    return out
