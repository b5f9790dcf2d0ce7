"""Asterism: find how two star lists lie on each other, with a proof, or say that they do not.

In: positions of two frames' stars, brightest first. Out: a similarity with its log-odds, or None.

Triangles of the brightest stars agree in shape; each agreeing pair votes for a similarity; the fullest cells of the vote
are verified by their log-odds (`log_odds`). No random numbers, no prior needed. Any rotation, mirror images, scales 0.3
to 3; windows of the lists serve pairs of frames that share only a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel
from lerar_dask.kernels.register.log_odds import MIN_PAIRS, best_candidate, stationary_points

__all__ = ["Match", "StarList", "match_stars"]

_HASH = 160
_EPS = 0.004
"""Triangles agree when both side ratios differ by less."""
_NARROW, _WIDE = (0.93, 1.07), (0.28, 3.5)
"""Scales that are allowed between frames of one camera, and of any two."""
_FOREIGN_ODDS = 4.3
"""What a match without any prior must show beyond the limit: such a search has many more ways to be wrong."""
_SAME_PLACE_PX = 0.7
"""Detections nearer than this on one sensor may be one hot pixel."""

Tier = tuple[int, int, int]
"""Windows per side of the first list, of the second, and stars per window."""
_TIERS: Sequence[Tier] = (
    (1, 1, 25), (1, 1, 40), (2, 1, 25), (1, 2, 25), (3, 1, 25), (1, 3, 25), (2, 2, 25), (3, 3, 25),
)  # fmt: skip
_TIERS_NARROW: Sequence[Tier] = ((1, 1, 25), (1, 1, 40), (2, 2, 25))
_TIERS_QUICK: Sequence[Tier] = ((1, 1, 25), (1, 1, 40), (2, 1, 25))


@dataclass(frozen=True)
class Match:
    """How one list lies on another."""

    transform: np.ndarray
    """(3, 3) float64: first list to second, a similarity."""
    log_odds: float
    n_pairs: int


class _Triangles(NamedTuple):
    shapes: np.ndarray
    """(n, 3) float64: b/a, c/a of the sides a >= b >= c; parity"""
    corners: np.ndarray
    """(n, 3) int64: stars opposite of a, b, c"""
    start: np.ndarray
    """(cells + 1,) int64: where the triangles of a cell of shapes begin in `members`"""
    members: np.ndarray
    """(n,) int64: triangles by cell"""


class StarList:
    """Stars of one frame, with the triangles of its windows made when first needed.

    Parameters
    ----------
    xy : (n, 2) float64     positions in pixels, the stars to trust most and brightest first
    shape : rows and columns of the frame
    """

    def __init__(self, xy: np.ndarray, shape: tuple[int, int]) -> None:
        self.xy = np.ascontiguousarray(xy, np.float64).reshape(-1, 2)
        self.shape = shape
        self.by_x = np.argsort(self.xy[:, 0], kind="stable")
        self._triangles: dict[tuple[int, tuple[int, int], int], _Triangles] = {}

    def windows(self, parts: int) -> Iterator[tuple[int, int]]:
        """Windows (of 1 / parts of each side, overlapping by half) by their place."""
        n = 2 * parts - 1
        yield from product(range(n), range(n))

    def triangles(self, parts: int, place: tuple[int, int], count: int) -> _Triangles:
        """Triangles of the `count` brightest stars of a window, with their hash."""
        key = (parts, place, count)
        if key not in self._triangles:
            chosen = np.arange(len(self.xy))
            if parts > 1:
                size = np.array(self.shape[::-1]) / parts
                low = size / 2 * np.array(place[::-1])
                chosen = np.nonzero(((self.xy >= low) & (self.xy < low + size)).all(axis=1))[0]
            found = _triangles(self.xy, chosen[:count].astype(np.int64), 0.005 * max(self.shape))
            self._triangles[key] = _Triangles(*found, *_hash(found[0]))
        return self._triangles[key]

    def without(self, drop: np.ndarray) -> StarList:
        """The list without the stars where `drop` (n,) bool is true."""
        return StarList(self.xy[~drop], self.shape)


def match_stars(
    first: StarList,
    second: StarList,
    *,
    sigma_px: float,
    accept: float,
    same_camera: bool = False,
    quick: bool = False,
) -> Match | None:
    """Match two star lists.

    Parameters
    ----------
    sigma_px : error of a star's position, both lists together, in pixels of the second
    accept : log-odds from which a match is believed
    same_camera : both frames come from one sensor: equal scale and parity are tried first, and hot pixels, which match
        each other at rest, must not win against stars that moved
    quick : try the usual cases only

    Returns
    -------
    match : Match, or None when nothing passes
    """
    if min(len(first.xy), len(second.xy)) < MIN_PAIRS:
        return None
    found = None
    if same_camera:
        found = _search(first, second, _TIERS_NARROW, _NARROW, sigma_px, accept)
    if found is None:
        tiers = _TIERS_QUICK if quick else _TIERS
        found = _search(first, second, tiers, _WIDE, sigma_px, accept + _FOREIGN_ODDS)
    if found is None and not quick:  # lenses whose distortion no similarity follows
        found = _search(first, second, _TIERS_QUICK, _WIDE, 3.0 * sigma_px, accept + _FOREIGN_ODDS)
    if found is not None and same_camera:
        found = _moved_instead(first, second, found, sigma_px, accept) or found
    return found


def _search(
    first: StarList,
    second: StarList,
    tiers: Sequence[Tier],
    scales: tuple[float, float],
    sigma_px: float,
    accept: float,
) -> Match | None:
    """First match that passes, from the usual to the rare case."""
    for parts_a, parts_b, count in tiers:
        for place_a, place_b in product(first.windows(parts_a), second.windows(parts_b)):
            a = first.triangles(parts_a, place_a, count)
            b = second.triangles(parts_b, place_b, count)
            if len(a.shapes) and len(b.shapes):
                found = _try_windows(first, second, a, b, scales, sigma_px, accept)
                if found is not None:
                    return found
    return None


def _try_windows(
    first: StarList,
    second: StarList,
    a: _Triangles,
    b: _Triangles,
    scales: tuple[float, float],
    sigma_px: float,
    accept: float,
) -> Match | None:
    middle = np.array([(first.shape[1] - 1) / 2, (first.shape[0] - 1) / 2])
    place_px = max(12.0, 0.01 * max(second.shape))
    votes, keys = _vote(a, b, first.xy, second.xy, middle, place_px, (*scales, scales == _WIDE))
    candidates = _fullest(votes, keys, np.argsort(keys, axis=1, kind="stable"))
    height, width = float(second.shape[0]), float(second.shape[1])
    score, pairs, p = best_candidate(first.xy, second.xy, second.by_x, candidates, height, width, sigma_px, accept)
    return Match(_matrix(p), float(score), int(pairs)) if score > accept and pairs >= MIN_PAIRS else None


def _moved_instead(first: StarList, second: StarList, found: Match, sigma_px: float, accept: float) -> Match | None:
    """The rival of a match at rest: what the stars say without all detections that stayed where they were."""
    center = np.array([(first.shape[1] - 1) / 2, (first.shape[0] - 1) / 2])
    if np.hypot(*(found.transform[:2, :2] @ center + found.transform[:2, 2] - center)) > 2 * _SAME_PLACE_PX:
        return None
    stays_a, stays_b = stationary_points(first.xy, second.xy, second.by_x, _SAME_PLACE_PX)
    a, b = first.without(stays_a), second.without(stays_b)
    if min(len(a.xy), len(b.xy)) < MIN_PAIRS:
        return None
    rival = _search(a, b, _TIERS_NARROW[:2], _NARROW, sigma_px, accept)
    if rival is None:
        return None
    apart = (rival.transform - found.transform)[:2]
    return rival if np.hypot(*(apart[:, :2] @ center + apart[:, 2])) > 1.0 else None


def _matrix(p: np.ndarray) -> np.ndarray:
    """3x3 matrix of (alpha, beta, mirrored): z -> alpha z + beta, or alpha conj(z) + beta."""
    ar, ai, br, bi, mirrored = p
    s = -1.0 if mirrored else 1.0
    return np.array([[ar, -s * ai, br], [ai, s * ar, bi], [0, 0, 1.0]])


# ------------------------------------------------------------------------------------------------------------ compiled


@kernel
def _triangles(xy, chosen, shortest):  # pragma: no cover
    n = len(chosen)
    most = n * (n - 1) * (n - 2) // 6
    shapes = np.empty((most, 3))
    corners = np.empty((most, 3), np.int64)
    length = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            p, q = chosen[i], chosen[j]
            length[i, j] = np.sqrt((xy[p, 0] - xy[q, 0]) ** 2 + (xy[p, 1] - xy[q, 1]) ** 2)
    m = 0
    for i in range(n):
        for j in range(i + 1, n):
            for k in range(j + 1, n):
                # corners ordered so that each lies opposite its side, longest side first
                u, v, w = i, j, k
                a, b, c = length[j, k], length[i, k], length[i, j]
                if a < b:
                    a, b, u, v = b, a, v, u
                if b < c:
                    b, c, v, w = c, b, w, v
                if a < b:
                    a, b, u, v = b, a, v, u
                if a < shortest or c < 0.12 * a:
                    continue
                p, q, r = chosen[u], chosen[v], chosen[w]
                cross = (xy[q, 0] - xy[p, 0]) * (xy[r, 1] - xy[p, 1]) - (xy[q, 1] - xy[p, 1]) * (xy[r, 0] - xy[p, 0])
                if abs(cross) < 0.02 * a * a:
                    continue
                shapes[m, 0], shapes[m, 1] = b / a, c / a
                shapes[m, 2] = 1.0 if cross > 0 else -1.0
                corners[m, 0], corners[m, 1], corners[m, 2] = p, q, r
                m += 1
    return shapes[:m].copy(), corners[:m].copy()


@kernel
def _hash(shapes):  # pragma: no cover
    """Triangles by cell of their shape: starts (cells + 1,) and members (n,)."""
    start = np.zeros(_HASH * _HASH + 1, np.int64)
    cell = np.empty(len(shapes), np.int64)
    for t in range(len(shapes)):
        cell[t] = min(int(shapes[t, 0] * _HASH), _HASH - 1) * _HASH + min(int(shapes[t, 1] * _HASH), _HASH - 1)
        start[cell[t] + 1] += 1
    for c in range(_HASH * _HASH):
        start[c + 1] += start[c]
    slot = start.copy()
    members = np.empty(len(shapes), np.int64)
    for t in range(len(shapes)):
        members[slot[cell[t]]] = t
        slot[cell[t]] += 1
    return start, members


@kernel
def _vote(a, b, xy_a, xy_b, middle, place_px, scales):  # pragma: no cover
    """One vote per pair of like triangles: similarity (n, 5: alpha, beta, mirrored) and cells (2, n) of two grids."""
    shapes_a, corners_a, start, members = a
    shapes_b, corners_b, _, _ = b
    smallest, largest, mirrors = scales
    most = 60000
    found = np.empty((most, 5))
    keys = np.empty((2, most), np.int64)
    n = 0
    for t in range(len(shapes_b)):
        u0 = max(int((shapes_b[t, 0] - _EPS) * _HASH), 0)
        u1 = min(int((shapes_b[t, 0] + _EPS) * _HASH), _HASH - 1)
        w0 = max(int((shapes_b[t, 1] - _EPS) * _HASH), 0)
        w1 = min(int((shapes_b[t, 1] + _EPS) * _HASH), _HASH - 1)
        for u in range(u0, u1 + 1):
            for i in range(start[u * _HASH + w0], start[u * _HASH + w1 + 1]):
                s = members[i]
                if abs(shapes_a[s, 0] - shapes_b[t, 0]) > _EPS or abs(shapes_a[s, 1] - shapes_b[t, 1]) > _EPS:
                    continue
                sign = 1.0 if shapes_a[s, 2] == shapes_b[t, 2] else -1.0
                if n == most or (sign < 0 and not mirrors):
                    continue
                zm = 0j
                wm = 0j
                for c in range(3):
                    zm += complex(xy_a[corners_a[s, c], 0], sign * xy_a[corners_a[s, c], 1]) / 3
                    wm += complex(xy_b[corners_b[t, c], 0], xy_b[corners_b[t, c], 1]) / 3
                up = 0j
                down = 0.0
                for c in range(3):
                    z = complex(xy_a[corners_a[s, c], 0], sign * xy_a[corners_a[s, c], 1]) - zm
                    q = complex(xy_b[corners_b[t, c], 0], xy_b[corners_b[t, c], 1]) - wm
                    up += q * z.conjugate()
                    down += z.real * z.real + z.imag * z.imag
                alpha = up / down
                scale = abs(alpha)
                if scale < smallest or scale > largest:
                    continue
                beta = wm - alpha * zm
                # The center of A is mapped, not the origin, whose error grows with its distance.
                home = alpha * complex(middle[0], sign * middle[1]) + beta
                turn = np.degrees(np.arctan2(alpha.imag, alpha.real)) + 360.0
                size = np.log(scale) / 0.03
                for g in range(2):
                    h = 0.5 * g
                    key = int(np.floor(size + h)) + 128
                    key = key * 512 + int(np.floor(turn / 1.5 + h)) % 240
                    key = key * 65536 + (int(np.floor(home.real / place_px + h)) + 32768) % 65536
                    key = key * 65536 + (int(np.floor(home.imag / place_px + h)) + 32768) % 65536
                    keys[g, n] = key * 2 + (1 if sign < 0 else 0)
                found[n, 0], found[n, 1], found[n, 2], found[n, 3] = alpha.real, alpha.imag, beta.real, beta.imag
                found[n, 4] = 1.0 if sign < 0 else 0.0
                n += 1
    return found[:n], keys[:, :n]


@kernel
def _fullest(found, keys, orders):  # pragma: no cover
    """Mean similarities of the 20 fullest cells of the vote, (n, 5); the fullest first."""
    n = found.shape[0]
    best = np.zeros((20, 3), np.int64)
    n_best = 0
    for g in range(2):
        i = 0
        while i < n:
            j = i
            while j < n and keys[g, orders[g, j]] == keys[g, orders[g, i]]:
                j += 1
            if j - i >= 2:
                at = n_best
                while at > 0 and best[at - 1, 0] < (j - i):
                    at -= 1
                if at < 20:
                    n_best = min(n_best + 1, 20)
                    for b in range(n_best - 1, at, -1):
                        for c in range(3):
                            best[b, c] = best[b - 1, c]
                    best[at, 0], best[at, 1], best[at, 2] = j - i, g, i
            i = j
    out = np.zeros((n_best, 5))
    for b in range(n_best):
        for k in range(best[b, 0]):
            for c in range(5):
                out[b, c] += found[orders[best[b, 1], best[b, 2] + k], c] / best[b, 0]
        out[b, 4] = 1.0 if out[b, 4] > 0.5 else 0.0
    return out
