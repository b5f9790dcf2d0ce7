"""Asterism: find how two star lists lie on each other, with a proof, or say that they do not.

Triangles of the brightest stars agree in shape; each agreeing pair votes for a similarity; the best cells of the vote
are verified by log-odds (Lang et al. 2010, AJ 139, 1782, section 3.4): what the match explains against what chance
would. No random numbers, no prior needed. Any rotation, mirror images, scales 0.3 to 3; windows of the lists serve pairs
of frames that share only a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numba import njit

__all__ = ["Match", "StarList", "match_stars"]

_HASH = 160
_EPS = 0.004
"""Triangles agree when both side ratios differ by less."""
_DISTRACTORS = 0.7
"""Share of stars that may have no partner at all."""
_MIN_PAIRS = 6


@dataclass(frozen=True)
class Match:
    """How one list lies on another."""

    transform: np.ndarray
    """(3, 3) float64: first list to second, a similarity."""
    log_odds: float
    n_pairs: int


class StarList:
    """Stars of one frame by brightness, with the triangles of its windows made when first needed."""

    def __init__(self, xy: np.ndarray, shape: tuple[int, int]) -> None:
        self.xy = np.ascontiguousarray(xy, np.float64)
        self.shape = shape
        self._triangles: dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]] = {}

    def windows(self, parts: int) -> Iterator[tuple[int, int]]:
        """Windows (of 1 / parts of each side, overlapping by half) by their place."""
        n = 2 * parts - 1
        yield from product(range(n), range(n))

    def triangles(self, parts: int, place: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
        """Shapes (n, 3: b/a, c/a, parity) and corners (n, 3) of the triangles of a window's brightest stars."""
        key = (parts, place[0] * 64 + place[1], count)
        if key not in self._triangles:
            chosen = np.arange(len(self.xy))
            if parts > 1:
                size = np.array(self.shape[::-1]) / parts
                low = size / 2 * np.array(place[::-1])
                chosen = np.nonzero(((self.xy >= low) & (self.xy < low + size)).all(axis=1))[0]
            self._triangles[key] = _triangles(self.xy, chosen[:count].astype(np.int64), 0.005 * max(self.shape))
        return self._triangles[key]


_TIERS = ((1, 1, 25), (1, 1, 40), (2, 1, 25), (1, 2, 25), (3, 1, 25), (1, 3, 25), (2, 2, 25), (3, 3, 25))
"""Windows of the first list, of the second, and stars per window: from the usual to the rare case."""


def match_stars(
    first: StarList, second: StarList, *, sigma_px: float, accept: float, deepest: int = len(_TIERS)
) -> Match | None:
    """Match two star lists.

    Parameters
    ----------
    sigma_px : error of a star's position, both lists together, in pixels of the second
    accept : log-odds from which a match is believed
    deepest : number of tiers that are tried

    Returns
    -------
    match : Match, or None when nothing passes
    """
    if min(len(first.xy), len(second.xy)) < _MIN_PAIRS:
        return None
    for parts_a, parts_b, count in _TIERS[:deepest]:
        for place_a, place_b in product(first.windows(parts_a), second.windows(parts_b)):
            found = _try_windows(
                first,
                second,
                first.triangles(parts_a, place_a, count),
                second.triangles(parts_b, place_b, count),
                sigma_px,
            )
            if found is not None and found.log_odds > accept and found.n_pairs >= _MIN_PAIRS:
                return found
    return None


def _try_windows(first: StarList, second: StarList, a: tuple, b: tuple, sigma_px: float) -> Match | None:
    if not len(a[0]) or not len(b[0]):
        return None
    middle = np.array([(first.shape[1] - 1) / 2, (first.shape[0] - 1) / 2])
    candidates = _vote(a[0], a[1], b[0], b[1], first.xy, second.xy, middle, max(12.0, 0.01 * max(second.shape)))
    best: Match | None = None
    height, width = float(second.shape[0]), float(second.shape[1])
    for p in candidates:
        score, pairs, refined = _verify(first.xy, second.xy, p, height, width, sigma_px)
        if best is None or score > best.log_odds:
            best = Match(_matrix(refined), float(score), int(pairs))
    return best


def _matrix(p: np.ndarray) -> np.ndarray:
    """3x3 matrix of (alpha, beta, mirrored): z -> alpha z + beta, or alpha conj(z) + beta."""
    ar, ai, br, bi, mirrored = p
    s = -1.0 if mirrored else 1.0
    return np.array([[ar, -s * ai, br], [ai, s * ar, bi], [0, 0, 1.0]])


@njit(cache=True, nogil=True, error_model="numpy")
def _triangles(xy, chosen, shortest):  # pragma: no cover
    n = len(chosen)
    most = n * (n - 1) * (n - 2) // 6
    shapes = np.empty((most, 3))
    corners = np.empty((most, 3), np.int64)
    m = 0
    v = np.empty(3, np.int64)
    side = np.empty(3)
    for i in range(n):
        for j in range(i + 1, n):
            for k in range(j + 1, n):
                v[0], v[1], v[2] = chosen[i], chosen[j], chosen[k]
                for c in range(3):
                    p, q = v[(c + 1) % 3], v[(c + 2) % 3]
                    side[c] = np.hypot(xy[p, 0] - xy[q, 0], xy[p, 1] - xy[q, 1])
                # corners ordered so that each lies opposite its side, longest side first
                for _ in range(2):
                    for c in range(2):
                        if side[c] < side[c + 1]:
                            side[c], side[c + 1] = side[c + 1], side[c]
                            v[c], v[c + 1] = v[c + 1], v[c]
                a = side[0]
                if a < shortest or side[2] / a < 0.12:
                    continue
                cross = (xy[v[1], 0] - xy[v[0], 0]) * (xy[v[2], 1] - xy[v[0], 1]) - (xy[v[1], 1] - xy[v[0], 1]) * (
                    xy[v[2], 0] - xy[v[0], 0]
                )
                if abs(cross) < 0.02 * a * a:
                    continue
                shapes[m, 0], shapes[m, 1] = side[1] / a, side[2] / a
                shapes[m, 2] = 1.0 if cross > 0 else -1.0
                corners[m, 0], corners[m, 1], corners[m, 2] = v[0], v[1], v[2]
                m += 1
    return shapes[:m].copy(), corners[:m].copy()


@njit(cache=True, nogil=True, error_model="numpy")
def _vote(shapes_a, corners_a, shapes_b, corners_b, xy_a, xy_b, middle, place_px):  # pragma: no cover
    """Similarities of the fullest cells of the vote, (n, 5)."""
    # triangles of A by cell of their shape
    start = np.zeros(_HASH * _HASH + 1, np.int64)
    cell_a = np.empty(len(shapes_a), np.int64)
    for t in range(len(shapes_a)):
        cell_a[t] = min(int(shapes_a[t, 0] * _HASH), _HASH - 1) * _HASH + min(int(shapes_a[t, 1] * _HASH), _HASH - 1)
        start[cell_a[t] + 1] += 1
    for c in range(_HASH * _HASH):
        start[c + 1] += start[c]
    slot = start.copy()
    members = np.empty(len(shapes_a), np.int64)
    for t in range(len(shapes_a)):
        members[slot[cell_a[t]]] = t
        slot[cell_a[t]] += 1
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
            for w in range(w0, w1 + 1):
                for i in range(start[u * _HASH + w], start[u * _HASH + w + 1]):
                    s = members[i]
                    if abs(shapes_a[s, 0] - shapes_b[t, 0]) > _EPS or abs(shapes_a[s, 1] - shapes_b[t, 1]) > _EPS:
                        continue
                    if n == most:
                        continue
                    sign = 1.0 if shapes_a[s, 2] == shapes_b[t, 2] else -1.0
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
                    if scale < 0.28 or scale > 3.5:
                        continue
                    beta = wm - alpha * zm
                    home = alpha * complex(middle[0], sign * middle[1]) + beta
                    turn = np.degrees(np.arctan2(alpha.imag, alpha.real)) + 360.0
                    for g in range(2):
                        h = 0.5 * g
                        key = int(np.floor(np.log(scale) / 0.03 + h)) + 128
                        key = key * 512 + int(np.floor(turn / 1.5 + h)) % 240
                        key = key * 65536 + (int(np.floor(home.real / place_px + h)) + 32768) % 65536
                        key = key * 65536 + (int(np.floor(home.imag / place_px + h)) + 32768) % 65536
                        keys[g, n] = key * 2 + (1 if sign < 0 else 0)
                    found[n, 0], found[n, 1], found[n, 2], found[n, 3] = alpha.real, alpha.imag, beta.real, beta.imag
                    found[n, 4] = 1.0 if sign < 0 else 0.0
                    n += 1
    best = np.zeros((40, 2), np.int64)
    orders = np.empty((2, max(n, 1)), np.int64)
    n_best = 0
    for g in range(2):
        order = np.argsort(keys[g, :n])
        orders[g, :n] = order
        i = 0
        while i < n:
            j = i
            while j < n and keys[g, order[j]] == keys[g, order[i]]:
                j += 1
            if j - i >= 2:
                # kept sorted by count, fullest first; at most 20 of each grid
                at = n_best
                while at > 0 and best[at - 1, 0] < (j - i):
                    at -= 1
                if at < 40:
                    n_best = min(n_best + 1, 40)
                    for b in range(n_best - 1, at, -1):
                        best[b, 0], best[b, 1] = best[b - 1, 0], best[b - 1, 1]
                    best[at, 0] = j - i
                    best[at, 1] = g * most + i
            i = j
    out = np.empty((min(n_best, 20), 5))
    for b in range(len(out)):
        g, i = best[b, 1] // most, best[b, 1] % most
        total = np.zeros(5)
        for k in range(best[b, 0]):
            total += found[orders[g, i + k]]
        out[b] = total / best[b, 0]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _verify(xy_a, xy_b, p, height, width, sigma_px):  # pragma: no cover
    """Log-odds, pairs and refined similarity of a candidate, from coarse to fine."""
    n_a, n_b = len(xy_a), len(xy_b)
    area = height * width
    best_score, best_pairs = -1e9, 0
    partner = np.full(n_a, -1, np.int64)
    used = np.zeros(n_b, np.bool_)
    q = p.copy()
    for step in range(3):
        sigma = sigma_px * (4.0, 2.0, 1.0)[step]
        partner[:] = -1
        used[:] = False
        sign = -1.0 if q[4] > 0.5 else 1.0
        total, peak, inside, pairs, peak_pairs = 0.0, -1e9, 0, 0, 0
        for i in range(n_a):
            x = q[0] * xy_a[i, 0] - q[1] * sign * xy_a[i, 1] + q[2]
            y = q[1] * xy_a[i, 0] + q[0] * sign * xy_a[i, 1] + q[3]
            if x < 0 or y < 0 or x > width - 1 or y > height - 1:
                continue
            inside += 1
            nearest, at = 16.0 * sigma * sigma, -1
            for j in range(n_b):
                dx = xy_b[j, 0] - x
                if dx * dx < nearest and not used[j]:
                    r2 = dx * dx + (xy_b[j, 1] - y) ** 2
                    if r2 < nearest:
                        nearest, at = r2, j
            if at >= 0:
                used[at] = True
                partner[i] = at
                pairs += 1
                density = np.exp(-0.5 * nearest / (sigma * sigma)) / (2 * np.pi * sigma * sigma)
                total += np.log((1 - _DISTRACTORS) / n_b * density * area + _DISTRACTORS)
            else:
                total += np.log(_DISTRACTORS)
            if total > peak:
                peak, peak_pairs = total, pairs
        score = peak - 2.0 * np.log(max((1 - _DISTRACTORS) * area / (2 * np.pi * sigma * sigma * n_b), 1.0))
        score -= np.log(inside + 1.0)
        if step == 2:
            best_score, best_pairs = score, peak_pairs
        if pairs < 3:
            break
        q = _similarity(xy_a, xy_b, partner, q, sigma)
    return best_score, best_pairs, q


@njit(cache=True, nogil=True, error_model="numpy")
def _similarity(xy_a, xy_b, partner, q, sigma):  # pragma: no cover
    """Similarity through pairs, with Tukey weights around the one in hand."""
    sign = -1.0 if q[4] > 0.5 else 1.0
    out = q.copy()
    for _ in range(2):
        weight_sum, zm, wm = 0.0, 0j, 0j
        weights = np.zeros(len(xy_a))
        for i in range(len(xy_a)):
            j = partner[i]
            if j >= 0:
                x = out[0] * xy_a[i, 0] - out[1] * sign * xy_a[i, 1] + out[2]
                y = out[1] * xy_a[i, 0] + out[0] * sign * xy_a[i, 1] + out[3]
                u = ((x - xy_b[j, 0]) ** 2 + (y - xy_b[j, 1]) ** 2) / (16.0 * sigma * sigma)
                weights[i] = (1 - u) ** 2 if u < 1 else 0.0
                weight_sum += weights[i]
                zm += weights[i] * complex(xy_a[i, 0], sign * xy_a[i, 1])
                wm += weights[i] * complex(xy_b[j, 0], xy_b[j, 1])
        if weight_sum < 1e-6:
            return out
        zm /= weight_sum
        wm /= weight_sum
        up, down = 0j, 1e-12
        for i in range(len(xy_a)):
            if weights[i] > 0:
                z = complex(xy_a[i, 0], sign * xy_a[i, 1]) - zm
                up += weights[i] * (complex(xy_b[partner[i], 0], xy_b[partner[i], 1]) - wm) * z.conjugate()
                down += weights[i] * (z.real * z.real + z.imag * z.imag)
        alpha = up / down
        beta = wm - alpha * zm
        out[0], out[1], out[2], out[3] = alpha.real, alpha.imag, beta.real, beta.imag
    return out
