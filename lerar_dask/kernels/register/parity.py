"""Parity of a picture without a plate solution: whether the sky is mirrored in it, told by how the subs moved.

Two witnesses. A mount that follows by altitude and azimuth turns the field by the parallactic angle: with it in one
parity, against it in the other. A mount that writes where it points moves the picture by what it says: as it is, or
mirrored. Both stay silent rather than guess: the wrong parity turns the horizon the wrong way, which is worse than none.
"""

from __future__ import annotations

import numpy as np

__all__ = ["parity_by_pointing", "parity_by_rotation"]

MIN_TURN_DEG = 1.0
"""Scatter that the wrong parity must leave for a rotation to tell."""
CLEAR = 0.2
"""The right parity leaves at most this share of the wrong one's scatter."""
MIN_SUBS = 6
EXPLAINED = 0.9
"""Share of the subs' places that their pointings must explain."""
NOT_EXPLAINED = 0.6
"""Share that the mirrored pointings may explain at most."""


def parity_by_rotation(rotation: np.ndarray, zenith: np.ndarray) -> int:
    """Parity by the rotation of the field.

    Parameters
    ----------
    rotation : (n,) float     turn from the reference plane to each sub, from x to y, in radians; half turns do not count
    zenith : (n,) float       position angle of the zenith (`common_gradient.parallactic_angle`), in radians

    Returns
    -------
    parity : int     +1: from x to y is from east to north; -1: the reverse; 0: not told
    """
    if len(rotation) < MIN_SUBS:
        return 0
    scatter = {p: _scatter(rotation - p * zenith) for p in (1, -1)}
    for p in (1, -1):
        if scatter[-p] > np.radians(MIN_TURN_DEG) and scatter[p] < CLEAR * scatter[-p]:
            return p
    return 0


def parity_by_pointing(
    centers: np.ndarray, pointings: np.ndarray, side: np.ndarray, *, scale_arcsec_px: float | None = None
) -> int:
    """Parity by what the mount says of its pointing.

    Parameters
    ----------
    centers : (n, 2) float          x, y of each sub's center in the reference plane, px
    pointings : (n, 2) float        right ascension and declination, degrees
    side : (n,) int                 side of the pier, or any number that changes where the tube was turned over
    scale_arcsec_px : float         of the reference plane, when known: pointings of another scale tell nothing

    Returns
    -------
    parity : int     as `parity_by_rotation`
    """
    ra, dec = np.radians(pointings[:, 0]), np.radians(pointings[:, 1])
    east = np.angle(np.exp(1j * (ra - ra[0]))) * np.cos(np.median(dec))
    sky = _less_means(np.degrees(3600.0) * (east + 1j * (dec - dec[0])), side)
    place = _less_means(centers[:, 0] + 1j * centers[:, 1], side)
    total = float(np.vdot(place, place).real)
    if len(np.unique(sky)) < MIN_SUBS or total == 0:
        return 0
    explained, scale = {}, {}
    for p, told in ((1, sky), (-1, sky.conj())):
        factor = np.vdot(told, place) / np.vdot(told, told)
        rest = place - factor * told
        explained[p], scale[p] = 1.0 - float(np.vdot(rest, rest).real) / total, 1.0 / max(abs(factor), 1e-30)
    for p in (1, -1):
        fits = scale_arcsec_px is None or abs(np.log(scale[p] / scale_arcsec_px)) < 0.1
        if explained[p] > EXPLAINED and explained[-p] < NOT_EXPLAINED and fits:
            return p
    return 0


def _scatter(angle: np.ndarray) -> float:
    """Circular standard deviation, half turns not counted, in radians."""
    length = float(np.abs(np.exp(2j * angle).mean()))
    return float(np.sqrt(-2.0 * np.log(max(min(length, 1.0), 1e-300)))) / 2.0


def _less_means(values: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Complex values less the mean of their side."""
    out = np.asarray(values, complex).copy()
    for one in np.unique(side):
        out[side == one] -= out[side == one].mean()
    return out
