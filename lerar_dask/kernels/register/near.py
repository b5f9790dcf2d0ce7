"""Near: how a frame lies on a catalogue where its place is known already but for some pixels, as by a plate solution.

In: positions where the catalogue's stars should be in the frame, and where its own are, brightest first. Out: a similarity
of the first to the second with its log-odds, or None.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from lerar_dask.kernels.register.asterism import Match
from lerar_dask.kernels.register.log_odds import MIN_PAIRS, best_candidate

__all__ = ["match_near"]

_BRIGHTEST = 150
_CANDIDATES = 8
_TOGETHER_PX = 2.5
"""Shifts nearer to one another than this are one."""


def match_near(
    expected: np.ndarray,
    xy: np.ndarray,
    shape: tuple[int, int],
    *,
    radius_px: float,
    sigma_px: float,
    accept: float,
) -> Match | None:
    """The shift that most pairs of stars share, turned and scaled to what its pairs say.

    Parameters
    ----------
    expected : (n, 2) float64     where stars should be, px of the frame
    xy : (m, 2) float64     the frame's stars
    shape : rows and columns of the frame
    radius_px : how far a star may be from where it should be
    sigma_px : error of a star's position
    accept : log-odds from which a match is believed
    """
    if min(len(expected), len(xy)) < MIN_PAIRS:
        return None
    expected, xy = np.ascontiguousarray(expected, np.float64), np.ascontiguousarray(xy, np.float64)
    a, b = expected[:_BRIGHTEST], xy[:_BRIGHTEST]
    pairs = cKDTree(a).query_ball_tree(cKDTree(b), radius_px)
    shifts = np.array([b[j] - a[i] for i, near in enumerate(pairs) for j in near]).reshape(-1, 2)
    candidates = _fullest(shifts)
    if not len(candidates):
        return None
    by_x = np.argsort(xy[:, 0], kind="stable")
    height, width = float(shape[0]), float(shape[1])
    score, n_pairs, p = best_candidate(expected, xy, by_x, candidates, height, width, sigma_px, accept)
    if score <= accept or n_pairs < MIN_PAIRS:
        return None
    transform = np.array([[p[0], -p[1], p[2]], [p[1], p[0], p[3]], [0, 0, 1.0]])
    return Match(transform, float(score), int(n_pairs))


def _fullest(shifts: np.ndarray) -> np.ndarray:
    """Candidates (n, 5: 1, 0, shift, not mirrored) of the shifts that most others lie near to, the fullest first."""
    if len(shifts) < MIN_PAIRS:
        return np.zeros((0, 5))
    near = cKDTree(shifts).query_ball_point(shifts, _TOGETHER_PX, return_length=True)
    chosen: list[np.ndarray] = []
    for i in np.argsort(-near, kind="stable"):
        if near[i] < 3 or len(chosen) == _CANDIDATES:
            break
        if all(np.hypot(*(shifts[i] - other)) > _TOGETHER_PX for other in chosen):
            chosen.append(shifts[i])
    return np.array([[1.0, 0.0, x, y, 0.0] for x, y in chosen]).reshape(-1, 5)
