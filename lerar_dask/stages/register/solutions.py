"""Subs that their stars alone do not place, by the plate solutions of their headers.

In: where the pixels of subs lie in the sky by their headers, and the transforms that are known.
Out: transforms of more of them.
A sub that lies on others needs few stars for a match once its place is known but for some pixels (`match_by_solution`).
Subs that lie beside all others, as panels without overlap, are *islands*: they are registered to one another by their
stars, and where they lie is told by the solutions of all of them together (`place_islands`). A sub that by its solution
lies on others and whose stars do not say so stays set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lerar_dask.kernels.register.asterism import StarList
from lerar_dask.kernels.register.joint import joint_pass, mean_catalogue
from lerar_dask.kernels.register.log_odds import MIN_PAIRS
from lerar_dask.kernels.register.near import match_near
from lerar_dask.kernels.register.sphere import gnomonic
from lerar_dask.kernels.register.transform import apply, compose, fit, invert, robust_fit
from lerar_dask.settings import Register
from lerar_dask.stages.register.lists import MATCH_STARS, SIGMA_PX
from lerar_dask.stages.register.second_chance import match_by_neighbors
from lerar_dask.sub import Sub

__all__ = ["match_by_solution", "place_islands"]

_SHARED = 0.05
"""Share of a sub that may lie on others; with more, its stars should have matched theirs."""
_TIED = 100
"""Registered subs whose solutions tell where the sky lies on the plane."""
_SEARCH_PX = 30.0
"""Farther off than this is no solution."""
_EASIER = 9.2
"""Log-odds less than a match among all places, turns and scales must have: of ten thousand of these one is left."""

SkyOf = Callable[[Sub], np.ndarray | None]
"""Gives (k, 4) float64: x, y of a sub's pixels; right ascension and declination, degrees; None: not known."""


def match_by_solution(
    first: np.ndarray,
    log_odds: np.ndarray,
    members: Sequence[Sub],
    stars: Sequence[np.ndarray],
    sky_of: SkyOf,
    reference: int,
    settings: Register,
) -> None:
    """Match what is left to the stars of registered subs, near where the solutions say.

    Parameters
    ----------
    first : (n, 3, 3) float64     written: reference plane to sub; NaN where none is known
    log_odds : (n,) float64     written
    """
    gained = True
    while gained:
        gained = False
        on_plane, skies = _lost_on_plane(first, members, stars, sky_of, reference)
        if not on_plane:
            return
        catalogue = mean_catalogue(first, stars, reference=reference, merge_px=2.5)
        bright = catalogue.xy[np.argsort(-catalogue.flux, kind="stable")]
        for i, points in on_plane.items():
            there = fit(points, skies[i][:, :2], np.ones(len(points)), model="homography")
            expected, (height, width) = apply(there, bright), members[i].shape
            inside = (
                np.abs(expected - np.array([width, height]) / 2) < np.array([width, height]) / 2 + _SEARCH_PX
            ).all(axis=1)
            match = match_near(
                expected[inside][:MATCH_STARS],
                stars[i][:MATCH_STARS, :2],
                members[i].shape,
                radius_px=_SEARCH_PX,
                sigma_px=SIGMA_PX,
                accept=settings.accept_log_odds - _EASIER,
            )
            if match is not None:
                first[i], log_odds[i], gained = compose(match.transform, there), match.log_odds, True


def place_islands(
    transforms: np.ndarray,
    members: Sequence[Sub],
    stars: Sequence[np.ndarray],
    lists: Sequence[StarList],
    sky_of: SkyOf,
    reference: int,
    settings: Register,
) -> np.ndarray:
    """Fill in transforms of subs that have a plate solution and lie beside all others; which ones, (n,) bool.

    Parameters
    ----------
    transforms : (n, 3, 3) float64     written; NaN where none is known
    sky_of : gives (k, 4) float64     x, y of a sub's pixels; right ascension and declination, degrees; None: not known
    """
    placed = np.zeros(len(members), bool)
    known = np.isfinite(transforms[:, 0, 0])
    on_plane, skies = _lost_on_plane(transforms, members, stars, sky_of, reference)
    shapes = np.array([member.shape for member in members])[known]
    left = [i for i, points in on_plane.items() if _shared(points, transforms[known], shapes) < _SHARED]
    while left:
        island = _island(left, members, stars, lists, settings)
        here, there = [], []
        for i, own in island.items():
            here.append(on_plane[i])
            there.append(apply(invert(own), skies[i][:, :2]))
        a, b = np.concatenate(here), np.concatenate(there)
        whole = fit(a, b, np.ones(len(a)), model="homography")
        for i, own in island.items():
            transforms[i], placed[i] = compose(own, whole), True
        left = [i for i in left if i not in island]
    return placed


def _lost_on_plane(
    transforms: np.ndarray, members: Sequence[Sub], stars: Sequence[np.ndarray], sky_of: SkyOf, reference: int
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Points of subs without a transform on the plane, by their solutions, and the table of each."""
    known = np.isfinite(transforms[:, 0, 0])
    lost = [i for i in np.flatnonzero(~known).tolist() if len(stars[i]) >= MIN_PAIRS]
    skies = {i: sky for i in lost if (sky := sky_of(members[i])) is not None}
    plane_of = _plane_of_sky(transforms, members, sky_of, np.flatnonzero(known), reference) if skies else None
    if plane_of is None:
        return {}, {}
    center, sky_to_plane = plane_of
    places = {i: apply(sky_to_plane, gnomonic(sky[:, 2:], center)) for i, sky in skies.items()}
    return {i: points for i, points in places.items() if np.isfinite(points).all()}, skies


def _plane_of_sky(
    transforms: np.ndarray,
    members: Sequence[Sub],
    sky_of: SkyOf,
    known: np.ndarray,
    reference: int,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Center of a tangent plane of the sky, degrees, and the map from it to the plane of the reference."""
    some = known[:: -(-len(known) // _TIED) or 1].tolist()
    tied = [(i, sky) for i in some if (sky := sky_of(members[i])) is not None]
    if not tied:
        return None
    # The plane touches the sky at the reference: about that point an affine map suffices, and holds far out, too.
    middle = np.array([members[reference].shape[1] - 1, members[reference].shape[0] - 1]) / 2
    plane = [apply(invert(transforms[i]), sky[:, :2]) for i, sky in tied]
    away = [np.hypot(*(points - middle).T) for points in plane]
    nearest = int(np.argmin([d.min() for d in away]))
    center = tied[nearest][1][int(np.argmin(away[nearest])), 2:]
    points, there = np.concatenate([gnomonic(sky[:, 2:], center) for _, sky in tied]), np.concatenate(plane)
    seen = np.isfinite(points).all(axis=1)
    # robust: a solution that points elsewhere, as of a mount that lost its way, must not draw the others along
    found, _ = robust_fit(points[seen], there[seen], np.ones(int(seen.sum())), model="affine")
    return (center, found) if np.isfinite(found).all() else None


def _shared(points: np.ndarray, transforms: np.ndarray, shapes: np.ndarray) -> float:
    """Largest share of points of the plane that lie on one frame, of (n, 2) shapes."""
    ones = np.column_stack([points, np.ones(len(points))])
    mapped = np.einsum("nij,kj->nki", transforms, ones)
    xy = mapped[..., :2] / mapped[..., 2:]
    inside = (xy >= 0).all(axis=-1) & (xy < shapes[:, None, ::-1]).all(axis=-1)
    return float(inside.mean(axis=1).max())


def _island(
    left: Sequence[int],
    members: Sequence[Sub],
    stars: Sequence[np.ndarray],
    lists: Sequence[StarList],
    settings: Register,
) -> dict[int, np.ndarray]:
    """Subs that match the one of most stars, with transforms from its pixels to theirs."""
    own = sorted(left)
    home = max(range(len(own)), key=lambda k: len(stars[own[k]]))
    first = np.full((len(own), 3, 3), np.nan)
    first[home] = np.eye(3)
    subs = [members[i] for i in own]
    match_by_neighbors(first, np.zeros(len(own)), subs, [lists[i] for i in own], settings)
    centers = np.array([[(sub.shape[1] - 1) / 2, (sub.shape[0] - 1) / 2] for sub in subs])
    joint = joint_pass(
        first, [stars[i] for i in own], [s.group for s in subs], centers, reference=home, model=settings.model
    )
    return {i: joint.transforms[k] for k, i in enumerate(own) if np.isfinite(joint.transforms[k, 0, 0])}
