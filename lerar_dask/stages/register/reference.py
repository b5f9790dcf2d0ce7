"""Which sub is the reference, and what size its pixels have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["FINER", "choose_reference", "finest_group", "grid_scale", "of_usual_exposure"]

FINER = 1.03
"""From this ratio on pixels are of another size: optics breathe by less, the smallest step between cameras is more."""


def choose_reference(summaries: Sequence[Mapping[str, Any]], pixel_sizes: np.ndarray | None = None) -> list[int]:
    """Candidates for the reference sub, best first: small pixels, many stars, sharp, round, dark sky.

    Parameters
    ----------
    pixel_sizes : (n,)     of the subs, relative to one another; None: all are alike
    """
    size = np.ones(len(summaries)) if pixel_sizes is None else pixel_sizes
    stars = np.array([s["n_stars"] for s in summaries], float)
    fwhm = np.array([s["fwhm_px"] or np.nan for s in summaries], float) * size
    ecc = np.array([s["eccentricity"] or 0.0 for s in summaries], float)
    noise = np.array([max(s["noise_adu"], 1e-6) for s in summaries], float)
    usable = stars >= max(0.5 * np.median(stars), 1.0)
    middle = np.nanmedian(fwhm) if np.isfinite(fwhm).any() else 1.0
    sharp = np.where(np.isfinite(fwhm), middle / np.where(np.isfinite(fwhm), fwhm, 1.0), 0.1) ** 2
    score = np.sqrt(np.maximum(stars, 0.0)) * sharp * (1 - ecc / 2) * np.sqrt(np.median(noise) / noise) * usable
    finest = np.sort(size)[_enough(len(size)) - 1] if len(size) else 1.0
    other = (size > FINER * finest) | (size < finest / FINER)
    return [int(i) for i in np.lexsort((np.arange(len(size)), -score, other))]


def of_usual_exposure(exposure_s: Sequence[float]) -> np.ndarray:
    """(n,) bool: subs whose exposure most subs have, of two equally frequent ones the shorter. The master has their scale.

    Parameters
    ----------
    exposure_s : exposures that differ by less than 2 % from the next one are one
    """
    exposure = np.asarray(exposure_s, float)
    order = np.argsort(exposure, kind="stable")
    ordered = exposure[order]
    steps = ordered[1:] > 1.02 * np.maximum(ordered[:-1], 1e-6)
    kind = np.zeros(len(order), int)
    kind[order] = np.concatenate([[0], np.cumsum(steps)])
    return np.asarray(kind == np.bincount(kind).argmax())


def _enough(n: int) -> int:
    """Subs of `n` that may set the grid by their pixels: a stray one of many does not."""
    return min(3, max(1, -(-n // 10)))


def grid_scale(transforms: np.ndarray) -> np.ndarray:
    """Pixels of a sub that lie along one of the grid's: 0.5 for one binned 2 x 2 on an unbinned grid; exactly 1 for pixels
    of the grid's own size, whatever the air and the optics do.

    Parameters
    ----------
    transforms : (..., 3, 3)     reference plane to sub; NaN: not registered, and so is the scale
    """
    with np.errstate(invalid="ignore"):
        scale = np.sqrt(np.abs(np.linalg.det(transforms[..., :2, :2])))
        return np.where((scale > 1 / FINER) & (scale < FINER), 1.0, scale)


def finest_group(transforms: np.ndarray, groups: Sequence[str]) -> str:
    """The group whose pixels are the smallest; empty where none are smaller than the reference's.

    A group counts when three of its subs, or a tenth of all, are registered.

    Parameters
    ----------
    transforms : (n, 3, 3)     reference plane to sub; NaN: not registered
    """
    scale = grid_scale(transforms)
    found, most = "", 1.0
    for group in sorted(set(groups)):
        own = scale[np.array([g == group for g in groups])]
        own = own[np.isfinite(own)]
        if len(own) >= _enough(len(groups)) and np.median(own) > most:
            found, most = group, float(np.median(own))
    return found
