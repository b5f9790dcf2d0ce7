"""Star lists of subs, as registration uses them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lerar_dask.constants import StarFlag
from lerar_dask.kernels.register.asterism import StarList
from lerar_dask.store.access import Store
from lerar_dask.sub import Sub

__all__ = ["MATCH_STARS", "SIGMA_PX", "list_of", "match_with_itself", "stars_of"]

S0_PX = 0.03
"""Part of a star's position error that does not fall with brightness: the air, and the model of the star."""
MATCH_STARS = 300
_JOINT_STARS = 1000
SIGMA_PX = 1.0
"""Error of a star's place when lists are matched: centroids, and what a similarity leaves of a lens's distortion."""


def stars_of(store: Store, member: Sub) -> np.ndarray:
    """(n, 4) x, y, position error, flux of the stars fit for registration, unsaturated ones first."""
    if member.stars_at:
        table = store.read_array(member.stars_at)
    else:
        table = store.measures(member.geometry, member.measure).read_stars(member.slot)
    flags = table[:, 9].astype(int)
    snr, fwhm = np.maximum(table[:, 8], 1.0), np.clip(table[:, 5], 1.0, 30.0)
    sigma = np.hypot(0.6 * fwhm / snr, S0_PX)
    sigma = np.where(flags & (StarFlag.SATURATED | StarFlag.NEIGHBOR), sigma + 0.5, sigma)
    order = np.lexsort((table[:, 0], table[:, 1], -table[:, 2], (flags & StarFlag.SATURATED) > 0))[:_JOINT_STARS]
    return np.column_stack([table[:, 0], table[:, 1], sigma, table[:, 2]])[order]


def list_of(stars: np.ndarray, member: Sub) -> StarList:
    """The brightest of them, for a match."""
    return StarList(stars[:MATCH_STARS, :2], member.shape)


def match_with_itself(n_stars: int) -> dict[str, Any]:
    """The reference's match with itself."""
    return {"transform": np.eye(3).ravel().tolist(), "log_odds": 1e6, "n_pairs": n_stars}
