"""Scales of subs from their stars: one catalog of common stars, one robust joint solution F_kj = s_k f_j.

In: star lists mapped to the reference plane. Out: the catalog (for the common mask as well), and ln s_k with its error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg
from scipy.spatial import cKDTree

from lerar_dask.constants import MAD_TO_SIGMA

__all__ = ["Matches", "combine_scales", "fit_linear", "match_stars", "solve_scales"]

FLOOR = 0.003
"""Relative error of a flux that no photon noise explains."""
TUKEY = 4.0


@dataclass(frozen=True)
class Matches:
    """Stars of all subs, put together."""

    xy: np.ndarray
    """(m, 2) float64: positions of the catalog's stars in the reference plane."""
    sub: np.ndarray
    """(n,) int64: sub of each matched measurement."""
    star: np.ndarray
    """(n,) int64: catalog star of each matched measurement."""
    row: np.ndarray
    """(n,) int64: row of the measurement in the concatenated lists."""


def match_stars(xy: np.ndarray, sub: np.ndarray, *, tolerance_px: float, rounds: int = 16) -> Matches:
    """Put the stars of all subs into one catalog.

    Parameters
    ----------
    xy : (n, 2) float64      positions in the reference plane, all subs one after the other
    sub : (n,) int           sub of each; sorted
    tolerance_px : float     stars this close are the same

    Notes
    -----
    The sub with the most unmatched stars founds catalog stars, all others are matched to them; again with what is left.
    Founders that only one sub saw are dropped (unless there is one sub only).
    """
    xy = np.asarray(xy, np.float64).reshape(-1, 2)
    sub = np.asarray(sub, np.int64)
    star = np.full(len(xy), -1, np.int64)
    n_subs = len(np.unique(sub))
    positions: list[np.ndarray] = []
    free = np.arange(len(xy))
    for _ in range(rounds):
        if not len(free):
            break
        counts = np.bincount(sub[free])
        founders = free[sub[free] == int(counts.argmax())]
        if len(founders) < 3 and positions:
            break
        tree = cKDTree(xy[founders])
        distance, nearest = tree.query(xy[free], distance_upper_bound=tolerance_px)
        hit = _nearest_only(distance, nearest, sub[free], len(founders))
        seen = np.bincount(nearest[hit], minlength=len(founders))
        kept = seen >= min(2, n_subs)
        number = np.cumsum(kept) - 1 + sum(len(p) for p in positions)
        used = hit.copy()
        used[hit] = kept[nearest[hit]]
        star[free[used]] = number[nearest[used]]
        positions.append(xy[founders[kept]])
        # Founders that nobody confirmed leave the game, so that every round makes progress.
        gone = used | np.isin(free, founders)
        free = free[~gone]
    row = np.flatnonzero(star >= 0)
    catalog = np.concatenate(positions) if positions else np.empty((0, 2))
    return Matches(catalog, sub[row], star[row], row)


def _nearest_only(distance: np.ndarray, nearest: np.ndarray, sub: np.ndarray, n: int) -> np.ndarray:
    """Of several stars of one sub at one catalog star, the nearest."""
    hit = np.isfinite(distance)
    rows = np.flatnonzero(hit)
    order = rows[np.lexsort((distance[rows], nearest[rows], sub[rows]))]
    key = sub[order] * n + nearest[order]
    first = np.ones(len(order), bool)
    first[1:] = key[1:] != key[:-1]
    hit[order[~first]] = False
    return hit


def solve_scales(
    sub: np.ndarray, star: np.ndarray, flux: np.ndarray, flux_error: np.ndarray, *, n_subs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Robust joint solution of F_kj = s_k f_j in logarithms.

    Parameters
    ----------
    sub, star : (n,) int               which sub saw which star
    flux, flux_error : (n,) float      > 0, ADU

    Returns
    -------
    ln_scale : (n_subs,) float64       median 0; NaN where a sub has no common star
    error : (n_subs,) float64          1 sigma; inf where NaN
    flux : (n_stars,) float64          common flux, in units of the median sub; NaN where nothing is known
    """
    n_stars = int(star.max()) + 1 if len(star) else 0
    good = (flux > 0) & np.isfinite(flux) & np.isfinite(flux_error) & (flux_error < 0.2 * np.abs(flux))
    sub, star = sub[good], star[good]
    ln = np.log(flux[good])
    base = 1.0 / ((flux_error[good] / flux[good]) ** 2 + FLOOR**2)
    # Stars that one sub alone saw well say nothing.
    lonely = np.bincount(star, minlength=n_stars)[star] < 2
    base[lonely] = 0.0
    weight = base.copy()
    ln_s = np.zeros(n_subs)
    ln_f = np.zeros(n_stars)
    excess = np.ones(n_subs)
    for iteration in range(40):
        before = ln_s
        ln_s, ln_f = _solve(sub, star, ln, weight, ln_s, n_stars)
        if iteration >= 2:
            z = (ln - ln_f[star] - ln_s[sub]) * np.sqrt(base)
            excess = _spread_per_sub(z, sub, base > 0, n_subs)
            t = z / (TUKEY * np.maximum(excess, 0.5)[sub])
            weight = base * np.where(np.abs(t) < 1, (1 - t * t) ** 2, 0.0)
        if iteration > 5 and np.ptp(ln_s - before) < 1e-6:
            break
    total_s = np.bincount(sub, weight, n_subs)
    known = total_s > 0
    shift = np.median(ln_s[known]) if known.any() else 0.0
    error = np.full(n_subs, np.inf)
    error[known] = np.maximum(excess[known], 1.0) / np.sqrt(total_s[known])
    seen = np.bincount(star, weight, n_stars) > 0
    return np.where(known, ln_s - shift, np.nan), error, np.where(seen, np.exp(ln_f + shift), np.nan)


def _solve(
    sub: np.ndarray, star: np.ndarray, ln: np.ndarray, weight: np.ndarray, start: np.ndarray, n_stars: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares of ln = ln_s[sub] + ln_f[star], from `start`.

    The stars are eliminated and conjugate gradients find the subs. Steps that take turns between subs and stars come to
    a halt where two kinds of subs share few stars: long exposures in which the bright ones are saturated, and short ones.
    """
    n_subs = len(start)
    total_f, total_s = np.bincount(star, weight, n_stars), np.bincount(sub, weight, n_subs)

    def means(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(star, weight * values, n_stars)
        return np.divide(sums, total_f, where=total_f > 0, out=np.zeros(n_stars))

    def normal(ln_s: np.ndarray) -> np.ndarray:
        values = ln_s.ravel()[sub]
        return np.bincount(sub, weight * (values - means(values)[star]), n_subs)

    right = np.bincount(sub, weight * (ln - means(ln)[star]), n_subs)
    scaled = np.divide(1.0, total_s, where=total_s > 0, out=np.ones(n_subs))
    size = (n_subs, n_subs)
    ln_s, _ = cg(
        LinearOperator(size, matvec=normal, dtype=np.float64),
        right,
        x0=start,
        rtol=1e-9,
        maxiter=300,
        M=LinearOperator(size, matvec=lambda v: scaled * v.ravel(), dtype=np.float64),
    )
    return ln_s, means(ln - ln_s[sub])


def _spread_per_sub(z: np.ndarray, sub: np.ndarray, use: np.ndarray, n_subs: int) -> np.ndarray:
    """MAD_TO_SIGMA x median |z| of each sub; 1 where there are fewer than five."""
    out = np.ones(n_subs)
    order = np.argsort(sub[use], kind="stable")
    values = np.abs(z[use][order])
    bounds = np.searchsorted(sub[use][order], np.arange(n_subs + 1))
    for k in range(n_subs):
        part = values[bounds[k] : bounds[k + 1]]
        if len(part) >= 5:
            out[k] = MAD_TO_SIGMA * np.median(part)
    return out


def combine_scales(
    ln_star: np.ndarray, star_error: np.ndarray, exposure_s: np.ndarray, *, prior_sigma: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Scales from stars and from exposure times, by inverse variance.

    Parameters
    ----------
    ln_star, star_error : (n,) float     from `solve_scales`; NaN and inf where stars failed
    exposure_s : (n,) float              0 or NaN = unknown, taken as the median
    prior_sigma : float                  spread of transparency about its neighbors, in ln s

    Returns
    -------
    ln_scale, error : (n,) float64       median 0
    """
    exposure = np.where(np.isfinite(exposure_s) & (exposure_s > 0), exposure_s, np.nan)
    middle = np.nanmedian(exposure) if np.isfinite(exposure).any() else 1.0
    prior = np.log(np.where(np.isfinite(exposure), exposure, middle) / middle)
    known = np.isfinite(ln_star)
    transparency = np.zeros(len(prior))
    if known.any():
        where = np.flatnonzero(known)
        difference = ln_star[where] - prior[where]
        for k in range(len(prior)):
            near = np.argsort(np.abs(where - k), kind="stable")[:7]
            transparency[k] = np.median(difference[near])
    prior = prior + transparency
    star_weight = np.where(known, 1.0 / np.maximum(star_error, 1e-6) ** 2, 0.0)
    prior_weight = 1.0 / prior_sigma**2
    ln = (np.where(known, ln_star, 0.0) * star_weight + prior * prior_weight) / (star_weight + prior_weight)
    return ln - np.median(ln), 1.0 / np.sqrt(star_weight + prior_weight)


def fit_linear(x: np.ndarray, y: np.ndarray, *, iterations: int = 60) -> tuple[float, float]:
    """Line y = a + b x of least absolute deviation (legacy linear fit).

    Returns
    -------
    a, b : float     (median(y - x), 1) where a slope cannot be had
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) < 3 or np.ptp(x) <= 0:
        return (float(np.median(y - x)) if len(x) else 0.0), 1.0
    # Centered, so that slope and constant do not fight; smallest residual kept off zero relative to the scatter.
    xc, yc = float(np.median(x)), float(np.median(y))
    u, v = x - xc, y - yc
    floor = 1e-9 * (float(np.abs(v).max()) + 1e-30)
    weight = np.ones_like(u)
    a = b = 0.0
    for _ in range(iterations):
        sw, su, sv = weight.sum(), weight @ u, weight @ v
        determinant = sw * (weight @ (u * u)) - su * su
        if determinant <= 0:
            break
        new_b = (sw * (weight @ (u * v)) - su * sv) / determinant
        new_a = (sv - new_b * su) / sw
        residual = np.abs(v - new_a - new_b * u)
        done = abs(new_b - b) <= 1e-12 * abs(new_b) and abs(new_a - a) <= 1e-12 * (abs(yc) + 1e-300)
        a, b = new_a, new_b
        weight = 1.0 / np.maximum(residual, floor + 1e-6 * np.median(residual))
        if done:
            break
    return yc + a - b * xc, b
