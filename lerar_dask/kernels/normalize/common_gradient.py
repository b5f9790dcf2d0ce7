"""The gradient common to all subs: which part of it belongs to the sky, by a generalized mean over the night.

The joint solution leaves one thing open: a smooth field may move from every sky to the scene. Each low mode of the sky
of sub k over its scale is `D_k = m + e_k` with m = what the scene still holds of the sky (sign reversed) and e_k the
sky's own mode. What is known of skies (they change slowly, they scale with their level, light pollution keeps its
direction to the horizon) is written as a covariance of e; m is then the generalized-least-squares mean, unpenalized, so
that extended signal is never eaten. In: modes of the skies, levels, times, direction to the zenith. Out: m with its error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

__all__ = [
    "N_TERMS",
    "Frame",
    "Gauge",
    "common_terms",
    "evaluate_common",
    "fit_common",
    "parallactic_angle",
    "same_night",
    "sky_modes",
    "solve_common_gradient",
]

ORDERS = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0), (0, 3), (1, 2), (2, 1), (3, 0))
"""Legendre orders (y, x) of the terms: constant, plane, second and third order."""
N_TERMS = len(ORDERS)
PLANE = slice(1, 3)
CURVED = slice(3, N_TERMS)
_PAUSE_H = 6.0
"""Hours without a sub that part two nights."""
MAX_TIMES = 240
"""Subs are averaged to this many moments at most: the covariance is dense."""
STRONG = 0.01
"""Modes larger than this share of the level make a strong gradient."""


@dataclass(frozen=True)
class Frame:
    """Rectangle of the reference plane over which the terms are orthonormal."""

    center_xy: tuple[float, float]
    half_xy: tuple[float, float]


@dataclass(frozen=True)
class Gauge:
    """The common field, in units of a sub of scale 1, and how well it is known."""

    common: np.ndarray
    """(10,) float64: to be added to the scene and taken off the skies; the first is the constant."""
    error: np.ndarray
    """(10,) float64: sigma of each term; 0 for the constant, which is a convention."""
    levels: np.ndarray
    """(n,) float64: level of each sky over its scale, with the convention's zero."""
    model: str
    """Which covariance of the plane the night preferred: mean, smooth, horizon."""


def common_terms(xs: np.ndarray, ys: np.ndarray, frame: Frame) -> np.ndarray:
    """Values of the ten terms at reference-plane positions, (..., 10) float64; each has rms 1 over the frame."""
    u = (np.asarray(xs, np.float64) - frame.center_xy[0]) / frame.half_xy[0]
    v = (np.asarray(ys, np.float64) - frame.center_xy[1]) / frame.half_xy[1]
    px = [legendre.legval(u, np.eye(4)[n]) * np.sqrt(2 * n + 1) for n in range(4)]
    py = [legendre.legval(v, np.eye(4)[n]) * np.sqrt(2 * n + 1) for n in range(4)]
    return np.stack([py[a] * px[b] for a, b in ORDERS], axis=-1)


def evaluate_common(common: np.ndarray, xs: np.ndarray, ys: np.ndarray, frame: Frame) -> np.ndarray:
    """The common field at reference-plane positions, float64."""
    return common_terms(xs, ys, frame) @ common


def fit_common(values: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Terms of one field by least squares: (points,) on (points, 10) -> (10,)."""
    return np.linalg.lstsq(terms, values, rcond=1e-9)[0]


def sky_modes(values: np.ndarray, xs: np.ndarray, ys: np.ndarray, frame: Frame) -> np.ndarray:
    """Terms of each sub's sky over its own footprint.

    Parameters
    ----------
    values : (n, points) float64      sky over scale
    xs, ys : (n, points) float64      reference-plane positions

    Returns
    -------
    modes : (n, 10) float64
    """
    return np.array([fit_common(v, common_terms(x, y, frame)) for v, x, y in zip(values, xs, ys, strict=True)])


def parallactic_angle(
    time_s: np.ndarray, *, latitude_deg: float, longitude_deg: float, ra_deg: float, dec_deg: float
) -> np.ndarray:
    """Position angle of the zenith at the target, from north over east, in radians.

    Parameters
    ----------
    time_s : (n,) float64     unix seconds
    longitude_deg : float     east positive
    """
    days = np.asarray(time_s, np.float64) / 86400.0 + 2440587.5 - 2451545.0
    sidereal = np.radians(280.46061837 + 360.98564736629 * days + longitude_deg)
    hour = sidereal - np.radians(ra_deg)
    latitude, declination = np.radians(latitude_deg), np.radians(dec_deg)
    across = np.cos(latitude) * np.sin(hour)
    up = np.sin(latitude) * np.cos(declination) - np.cos(latitude) * np.sin(declination) * np.cos(hour)
    return np.arctan2(across, up)


def solve_common_gradient(
    modes: np.ndarray,
    time_s: np.ndarray,
    scene: np.ndarray,
    scene_terms: np.ndarray,
    *,
    frame: Frame,
    turn: np.ndarray | None = None,
    field_deg: float | None = None,
    mean_only: bool = False,
) -> Gauge:
    """Constant and common gradient of the night.

    Parameters
    ----------
    modes : (n, 10) float64            from `sky_modes`
    time_s : (n,) float64              start times; NaN = unknown
    scene : (points,) float64          scene at well covered cells (median-filtered): its 10th percentile is made 0
    scene_terms : (points, 10) float64
    turn : (n,) float64, optional      angle by which a direction fixed to the horizon turns in the reference plane, from
                                       x to y; None when site, time or parity is unknown
    field_deg : float, optional        long side of the field
    mean_only : bool                   leave the mean over the night (few subs, or no local normalization)
    """
    n = len(modes)
    hours = _hours(time_s)
    common = np.zeros(N_TERMS)
    error = np.zeros(N_TERMS)
    model = "mean"
    constant = 0.0
    levels = modes[:, 0].copy()
    for _ in range(4):
        constant = -float(np.percentile(scene + scene_terms[:, 1:] @ common[1:], 10)) if len(scene) else 0.0
        levels = modes[:, 0] - constant
        if n < 2 or mean_only:
            common[1:] = modes[:, 1:].mean(axis=0)
            break
        beta = _safe_levels(levels)
        common, error, model = _gls(modes, beta, hours, frame, turn, field_deg)
    common[0] = constant
    error[0] = 0.0
    return Gauge(common, error, levels, model)


def _hours(time_s: np.ndarray) -> np.ndarray:
    """Hours since the first sub; a sub of unknown time counts as five minutes after the one before."""
    time_s = np.asarray(time_s, np.float64)
    if np.isfinite(time_s).all():
        return (time_s - time_s.min(initial=np.inf)) / 3600.0
    return np.arange(len(time_s)) / 12.0


def _safe_levels(levels: np.ndarray) -> np.ndarray:
    """Levels over their median; 1 throughout where the sky is not clearly positive."""
    middle = float(np.median(levels))
    if not middle > 0 or np.percentile(levels, 10) < 0.05 * middle:
        return np.ones(len(levels))
    return levels / middle


def _gls(
    modes: np.ndarray,
    beta: np.ndarray,
    hours: np.ndarray,
    frame: Frame,
    turn: np.ndarray | None,
    field_deg: float | None,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Generalized means of plane and curved modes, their errors, and the plane's model."""
    modes, beta, hours, turn = _bin_times(modes, beta, hours, turn)
    level = max(float(np.median(np.abs(modes[:, 0]))), 1e-30)
    common, error = np.zeros(N_TERMS), np.zeros(N_TERMS)
    lag = np.abs(hours[:, None] - hours[None, :])
    night = same_night(hours)
    deviation = modes[:, 1:] - modes[:, 1:].mean(axis=0)
    strong = float(np.sqrt((deviation**2).sum(axis=1).mean())) > STRONG * level
    # The plane in one unit for both directions: slope x reference length, so that it turns as a vector.
    length = float(np.hypot(*frame.half_xy))
    to_slope = np.sqrt(3.0) * length / np.array(frame.half_xy)[[0, 1]]
    plane = modes[:, PLANE] * to_slope
    vector = plane[:, 0] + 1j * plane[:, 1]
    best = max(
        _plane_models(lag, night, turn, field_deg, strong),
        key=lambda m: _likelihood(vector, m[1] * np.outer(beta, beta))[0],
    )
    _, mean, sigma = _likelihood(vector, best[1] * np.outer(beta, beta))
    common[PLANE] = np.array([mean.real, mean.imag]) / to_slope
    error[PLANE] = sigma / to_slope
    curved = np.outer(beta, beta) * _curved_covariance(lag, night, strong)
    for j in range(CURVED.start, CURVED.stop):
        _, mean, sigma = _likelihood(modes[:, j].astype(complex), curved)
        common[j], error[j] = mean.real, sigma
    return common, error, best[0]


def _bin_times(
    modes: np.ndarray, beta: np.ndarray, hours: np.ndarray, turn: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Average neighbors in time where there are more subs than a dense covariance takes."""
    n = len(beta)
    order = np.argsort(hours, kind="stable")
    group = np.arange(n) * min(n, MAX_TIMES) // n
    count = np.bincount(group)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, values[order]) / count

    binned = np.stack([mean(modes[:, j]) for j in range(modes.shape[1])], axis=1)
    turned = None if turn is None else np.angle(mean(np.cos(turn)) + 1j * mean(np.sin(turn)))
    return binned, mean(beta), mean(hours), turned


def same_night(hours: np.ndarray) -> np.ndarray:
    """Whether two times are of one night, (n, n) bool: no pause of `_PAUSE_H` lies between them.

    A limit on the time between them would be no covariance: of a night longer than it, its matrix is indefinite.
    """
    order = np.argsort(hours, kind="stable")
    night = np.empty(len(hours), np.int64)
    night[order] = np.cumsum(np.diff(hours[order], prepend=hours[order[:1]]) > _PAUSE_H)
    return np.asarray(night[:, None] == night[None, :])


def _plane_models(
    lag: np.ndarray, night: np.ndarray, turn: np.ndarray | None, field_deg: float | None, strong: bool
) -> list[tuple[str, np.ndarray]]:
    """Covariances (over level squared) that the plane of a night may have."""
    span = max(float(lag.max()), 1e-3)
    white = np.eye(len(lag))
    models = []
    for length in np.array([0.15, 0.3, 0.6, 1.0, 2.0, 4.0]) * span:
        u = np.sqrt(5.0) * lag / length
        smooth = (1 + u + u * u / 3) * np.exp(-u)
        models += [("smooth", smooth + 10.0**p * white) for p in np.arange(-7.0, 0.1, 1.0)]
    if turn is not None and np.isfinite(turn).all():
        rotation = np.exp(1j * (turn[:, None] - turn[None, :]))
        width = (field_deg or 1.5) / 1.5
        slow = 0.003**2 * night + 0.004**2 * np.exp(-lag / 3.0) * night + 0.002**2 * np.exp(-lag / 0.5) * night
        eps = (0.002 * 0.02) ** 2 * white
        for gain in (1.0, 3.0, 10.0):
            fixed = (gain * 0.003) ** 2 + (gain * 0.002) ** 2 * night
            models.append(("horizon", width**2 * (slow + 0.002**2 + fixed * rotation) + eps))
    return models


def _curved_covariance(lag: np.ndarray, night: np.ndarray, strong: bool) -> np.ndarray:
    """Covariance of a curved mode over level squared; nothing that would let it extrapolate."""
    white = np.eye(len(lag))
    if strong:
        return 0.01**2 * np.exp(-lag / 0.5) + 0.005**2 * np.exp(-lag / 3.0) + (0.02 * 0.01) ** 2 * white
    slow = 0.003**2 * night + 0.004**2 * np.exp(-lag / 3.0) + 0.002**2 * np.exp(-lag / 0.5)
    return 0.002**2 + slow + (0.02 * 0.002) ** 2 * white


def _likelihood(data: np.ndarray, covariance: np.ndarray) -> tuple[float, complex, float]:
    """Restricted log-likelihood (scale profiled out), generalized mean, and its sigma per real part.

    Two real series (real and imaginary part) share the covariance.
    """
    n = len(data)
    factor = np.linalg.cholesky(covariance + 1e-12 * np.trace(covariance).real / n * np.eye(n))
    one = np.linalg.solve(factor, np.ones(n))
    white = np.linalg.solve(factor, data)
    information = float(np.vdot(one, one).real)
    mean = complex(np.vdot(one, white)) / information
    rest = white - mean * one
    scale = max(float(np.vdot(rest, rest).real) / max(2 * (n - 1), 1), 1e-300)
    ln_determinant = 2.0 * float(np.log(np.diag(factor).real).sum())
    value = -(n - 1) * np.log(scale) - ln_determinant - np.log(information)
    return value, mean, float(np.sqrt(scale / information))
