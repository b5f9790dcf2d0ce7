"""Second chance: subs that do not match the reference, against their neighbors in time and the stars of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lerar_dask.kernels.register.asterism import Match, StarList, match_stars
from lerar_dask.kernels.register.joint import mean_catalogue
from lerar_dask.kernels.register.log_odds import MIN_PAIRS
from lerar_dask.kernels.register.transform import compose
from lerar_dask.settings import Register
from lerar_dask.stages.register.lists import MATCH_STARS, SIGMA_PX
from lerar_dask.sub import Sub

__all__ = ["match_by_catalogue", "match_by_neighbors", "match_thoroughly"]

_THOROUGH = 3
"""Subs of a group that are searched for without success before the group is given up: such a search takes long."""


def match_by_neighbors(
    first: np.ndarray, log_odds: np.ndarray, members: Sequence[Sub], lists: Sequence[StarList], settings: Register
) -> None:
    """Match what is left to registered neighbors in time: long dithers reach the reference by way of others."""
    tried: set[tuple[int, int]] = set()
    gained = True
    while gained:
        gained = False
        for i in _lost(first, lists):
            known = np.nonzero(np.isfinite(first[:, 0, 0]))[0]
            for j in known[np.argsort(np.abs(known - i), kind="stable")][:3]:
                if (i, j) in tried:
                    continue
                tried.add((i, j))
                same = members[i].geometry == members[j].geometry
                match = _quick(lists[j], lists[i], settings, same_camera=same)
                if match is not None:
                    first[i], log_odds[i] = compose(match.transform, first[j]), match.log_odds
                    gained = True
                    break


def match_thoroughly(
    first: np.ndarray,
    log_odds: np.ndarray,
    members: Sequence[Sub],
    lists: Sequence[StarList],
    origin: int,
    settings: Register,
) -> None:
    """Match subs of what is left of each group to the reference by all means: of the first found the others are neighbors."""
    failed: Counter[str] = Counter()
    tried = set()
    while True:
        left = [i for i in _lost(first, lists) if i not in tried and failed[members[i].group] < _THOROUGH]
        if not left:
            return
        i = max(left, key=lambda k: (len(lists[k].xy), -k))
        tried.add(i)
        match = match_stars(
            lists[origin],
            lists[i],
            sigma_px=SIGMA_PX,
            accept=settings.accept_log_odds,
            same_camera=members[i].geometry == members[origin].geometry,
        )
        if match is None:
            failed[members[i].group] += 1
            continue
        first[i], log_odds[i] = match.transform, match.log_odds
        match_by_neighbors(first, log_odds, members, lists, settings)


def match_by_catalogue(
    first: np.ndarray,
    log_odds: np.ndarray,
    stars: Sequence[np.ndarray],
    lists: Sequence[StarList],
    origin: int,
    settings: Register,
) -> None:
    """Match what is still left to the stars of all registered subs together."""
    lost = _lost(first, lists)
    if not lost or np.isfinite(first[:, 0, 0]).sum() < 2:
        return
    catalogue = mean_catalogue(first, stars, reference=origin, merge_px=2.5)
    bright = np.argsort(-catalogue.flux, kind="stable")[:MATCH_STARS]
    xy = catalogue.xy[bright]
    corner = np.floor(xy.min(axis=0))
    width, height = np.ceil(xy.max(axis=0) - corner).astype(int) + 1
    everything = StarList(xy - corner, (int(height), int(width)))
    shift = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]], [0, 0, 1.0]])
    for i in lost:
        match = _quick(everything, lists[i], settings, same_camera=False)
        if match is not None:
            first[i], log_odds[i] = compose(match.transform, shift), match.log_odds


def _lost(first: np.ndarray, lists: Sequence[StarList]) -> list[int]:
    """Subs without a transform whose stars could give one."""
    return [i for i, one in enumerate(lists) if np.isnan(first[i, 0, 0]) and len(one.xy) >= MIN_PAIRS]


def _quick(first: StarList, second: StarList, settings: Register, *, same_camera: bool) -> Match | None:
    return match_stars(
        first, second, sigma_px=SIGMA_PX, accept=settings.accept_log_odds, same_camera=same_camera, quick=True
    )
