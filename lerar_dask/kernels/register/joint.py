"""Joint pass: all transforms refitted against the mean catalogue of all frames, with the model that suffices.

Frames that do not all lie on the reference, as panels of a mosaic do, are then adjusted as a bundle, on a sky whose
curvature their overlaps show.

In: star lists (n, 4: x, y, position error, flux) of all frames and a first transform of each (NaN where none is known).
Out: refined transforms, their residuals, the model of each group, the mean catalogue. A frame's own stars are left out
of the mean that it is fitted to; the frame `reference` keeps the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lerar_dask.kernels.register.bundle import Frames, Sightings, adjust, measure_curvature
from lerar_dask.kernels.register.log_odds import MIN_PAIRS
from lerar_dask.kernels.register.sphere import charts_at
from lerar_dask.kernels.register.transform import MODELS, aicc, apply, compose, invert, robust_fit

__all__ = ["Catalogue", "Each", "Joint", "joint_pass", "mean_catalogue"]

Each = Callable[[Callable[[int], Any], Iterable[int]], Iterable[Any]]
"""Like `map`, over frames."""
_ROUNDS = ((6.0, 10.0, 20), (2.5, 5.0, 20), (1.0, 1.5, 100))
"""Per round: stars nearer than this in the plane are one; a star is looked for this far from where it should be; frames of
a group that choose its model."""
_CATALOGUE_FRAMES = 200
"""The mean of more frames is no better: its error is far below that of one frame."""
_APART = 0.5
"""Frames whose centers lie farther from the reference's than this share of its half width hold each other too loosely."""
_SIGHTINGS = 2_000_000
"""Of all frames, in the bundle: the brightest stars of each."""
_MODEL_PAIRS = 12
"""Frames with fewer pairs have no say in the model."""


@dataclass(frozen=True)
class Catalogue:
    """Mean positions of stars in the reference plane."""

    xy: np.ndarray
    """(m, 2) float64"""
    weight: np.ndarray
    """(m,) float64: inverse variances, px^-2"""
    flux: np.ndarray
    """(m,) float64, of the frame that showed the star first"""
    entry: Mapping[int, np.ndarray]
    """Per frame that is in the mean: index of each of its stars, -1 where it was not used."""


@dataclass(frozen=True)
class Joint:
    """What the frames agree on."""

    transforms: np.ndarray
    """(n, 3, 3) float64; NaN where none is known"""
    rms_px: np.ndarray
    n_pairs: np.ndarray
    model: dict[str, str]
    """Model of each group."""
    curvature: float
    """Of the sky on the plane of the reference, px^-2 (1 / focal length squared); 0 where nothing shows it."""


def joint_pass(
    first: np.ndarray,
    stars: Sequence[np.ndarray],
    groups: Sequence[str],
    centers: np.ndarray,
    *,
    reference: int,
    model: str = "auto",
    each: Each = map,
) -> Joint:
    """Refine all transforms together.

    Parameters
    ----------
    first : (n, 3, 3) float64     reference plane to frame; NaN where none is known
    stars : (k, 4) float64 per frame     x, y, position error in px, flux
    groups : frames of one group share a model
    centers : (n, 2) float64     middle of each frame, px
    reference : the frame whose pixels are the reference plane
    model : one of MODELS, or `auto`: the smallest corrected Akaike criterion, summed over a group
    each : maps a function over frames, in order; one that uses several cores gives the same
    """
    n, curvature = len(first), 0.0
    transforms, rms, n_pairs = first.copy(), np.full(n, np.nan), np.zeros(n, np.int64)
    models: dict[str, str] = {}
    for merge_px, search_px, n_voters in _ROUNDS:
        catalogue = mean_catalogue(transforms, stars, reference=reference, merge_px=merge_px)
        known = _known(transforms)
        apart = _apart(transforms, centers, stars[reference], reference)
        if apart:
            seen = _sightings(transforms, stars, known, catalogue, merge_px)
            frames = Frames(centers, ["similarity"] * n, reference)
            curvature = measure_curvature(transforms, seen, frames, curvature)
            transforms = adjust(transforms, seen, frames, curvature)
            catalogue = mean_catalogue(transforms, stars, reference=reference, merge_px=merge_px)
        charts = _charts(transforms, centers, reference, curvature)
        linked = _link_all(known, transforms, stars, catalogue, charts, search_px, each)
        models = _models(groups, linked, transforms, model, n_voters)
        for i, found in _fit_all(linked, transforms, charts, [models[g] for g in groups], reference, each).items():
            transforms[i], n_pairs[i], rms[i] = found
        if apart:
            seen = _sightings(transforms, stars, _known(transforms), catalogue, merge_px)
            own = [_affordable(models[groups[i]], int(n_pairs[i])) for i in range(n)]
            transforms = adjust(transforms, seen, Frames(centers, own, reference), curvature)
    return Joint(transforms, rms, n_pairs, models, curvature)


def _link_all(
    known: Sequence[int],
    transforms: np.ndarray,
    stars: Sequence[np.ndarray],
    catalogue: Catalogue,
    charts: np.ndarray,
    search_px: float,
    each: Each,
) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of each frame and the others' mean, of which the positions of the mean are in the frame's chart."""
    tree = cKDTree(catalogue.xy) if len(catalogue.xy) else None

    def link(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, b, sigma = _linked(i, transforms[i], stars[i], catalogue, tree, search_px)
        return apply(charts[i], a), b, sigma

    return dict(zip(known, each(link, known), strict=True))


def _fit_all(
    linked: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]],
    transforms: np.ndarray,
    charts: np.ndarray,
    models: Sequence[str],
    reference: int,
    each: Each,
) -> dict[int, tuple[np.ndarray, int, float]]:
    """Each frame fitted to the others' mean: transform (NaN with too few pairs), pairs that agree, their rms."""
    lost = {i: (np.full((3, 3), np.nan), 0, np.nan) for i, (a, _, _) in linked.items() if len(a) < MIN_PAIRS}

    def fit(i: int) -> tuple[np.ndarray, int, float] | None:
        a, b, sigma = linked[i]
        chosen = _affordable(models[i], len(a))
        found, residual = robust_fit(a, b, sigma, model=chosen, mirrored=_mirrored(transforms[i]))
        if not np.isfinite(found).all():
            return None
        return compose(found, charts[i]), *_quality(found, a, b, sigma, residual)

    enough = [i for i in linked if i not in lost]
    refined = {i: fitted for i, fitted in zip(enough, each(fit, enough), strict=True) if fitted}
    # Two frames hold each other: one of them must stand still. More of them move together, and then home is set back.
    back = invert(refined[reference][0]) if reference in refined and len(refined) > 2 else np.eye(3)
    told = lost | {i: (compose(found, back), n_pairs, rms) for i, (found, n_pairs, rms) in refined.items()}
    return told | {reference: (np.eye(3), *told.get(reference, (None, 0, np.nan))[1:])}


def _known(transforms: np.ndarray) -> list[int]:
    return [int(i) for i in np.flatnonzero(np.isfinite(transforms[:, 0, 0]))]


def _apart(transforms: np.ndarray, centers: np.ndarray, stars: np.ndarray, reference: int) -> bool:
    """Whether some frame lies well beside the reference."""
    known = _known(transforms)
    if not len(stars) or len(known) < 3:
        return False
    middle = np.array([apply(invert(transforms[i]), centers[i : i + 1])[0] for i in known])
    half = np.abs(stars[:, :2] - centers[reference]).max(axis=0)
    return bool((np.abs(middle - centers[reference]) > _APART * half).any())


def _charts(transforms: np.ndarray, centers: np.ndarray, reference: int, curvature: float) -> np.ndarray:
    """Chart of each frame at its center; the unit matrix where no transform is known."""
    known = _known(transforms)
    middle = np.array([apply(invert(transforms[i]), centers[i : i + 1])[0] for i in known]).reshape(-1, 2)
    out = np.broadcast_to(np.eye(3), transforms.shape).copy()
    out[known] = charts_at(middle, centers[reference], curvature)
    return out


def _sightings(
    transforms: np.ndarray, stars: Sequence[np.ndarray], known: Sequence[int], catalogue: Catalogue, merge_px: float
) -> Sightings:
    """Stars that at least two frames see."""
    tree, most = cKDTree(catalogue.xy), max(_SIGHTINGS // max(len(known), 1), 60)
    columns: list[list[np.ndarray]] = [
        [np.zeros(0, np.int64)],
        [np.zeros(0, np.int64)],
        [np.zeros((0, 2))],
        [np.zeros(0)],
    ]
    for i in known:
        own = stars[i][:most]
        a, b = _pairs(catalogue.xy, tree, apply(invert(transforms[i]), own[:, :2]), merge_px)
        for column, part in zip(columns, (np.full(len(a), i), a, own[b, :2], own[b, 2]), strict=True):
            column.append(part)
    seen = Sightings(*(np.concatenate(column) for column in columns))
    often = np.bincount(seen.star, minlength=1)[seen.star] > 1
    return Sightings(*(column[often] for column in seen))


def mean_catalogue(
    transforms: np.ndarray, stars: Sequence[np.ndarray], *, reference: int, merge_px: float
) -> Catalogue:
    """Mean positions of the stars of all registered frames, `reference` first; of many frames, every k-th."""
    known = [i for i in _known(transforms) if i != reference]
    sums, flux, entry = np.zeros((0, 3)), np.zeros(0), {}
    for i in [reference, *known[:: len(known) // _CATALOGUE_FRAMES + 1]]:
        back = apply(invert(transforms[i]), stars[i][:, :2])
        weight = (_scale(transforms[i]) / stars[i][:, 2]) ** 2
        own = np.column_stack([back * weight[:, None], weight])
        where = sums[:, :2] / sums[:, 2:]
        tree = cKDTree(where) if len(where) else None
        a, b = _pairs(where, tree, back, merge_px)
        sums[a] += own[b]
        fresh = np.setdiff1d(np.arange(len(back)), b)
        if tree is not None and len(fresh):
            fresh = fresh[tree.query(back[fresh])[0] > 2 * merge_px]
        index = np.full(len(back), -1)
        index[b], index[fresh] = a, len(sums) + np.arange(len(fresh))
        entry[i] = index
        sums = np.concatenate([sums, own[fresh]])
        flux = np.concatenate([flux, stars[i][fresh, 3]])
    return Catalogue(sums[:, :2] / sums[:, 2:], sums[:, 2], flux, entry)


def _linked(
    i: int, transform: np.ndarray, stars: np.ndarray, catalogue: Catalogue, tree: cKDTree | None, search_px: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a frame and the others' mean: plane positions (k, 2), frame positions (k, 2), errors (k,) in frame px."""
    scale = _scale(transform)
    back = apply(invert(transform), stars[:, :2])
    a, b = _pairs(catalogue.xy, tree, back, search_px / scale)
    xy, weight = catalogue.xy[a], catalogue.weight[a]
    if i in catalogue.entry:
        own = np.where(catalogue.entry[i][b] == a, (scale / stars[b, 2]) ** 2, 0.0)
        left = weight - own
        others = left > 1e-6 * weight
        a, b, xy, weight, own, left = a[others], b[others], xy[others], weight[others], own[others], left[others]
        xy, weight = (xy * weight[:, None] - back[b] * own[:, None]) / left[:, None], left
    return xy, stars[b, :2], np.hypot(stars[b, 2], scale / np.sqrt(weight))


def _pairs(where: np.ndarray, tree: cKDTree | None, points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of those that are each other's nearest within `radius`."""
    if tree is None or not len(points):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    distance, at = tree.query(points, distance_upper_bound=radius)
    b = np.nonzero(np.isfinite(distance))[0]
    # Of several points that share a nearest one, the nearest of them has it.
    b = b[np.lexsort((b, distance[b]))]
    a, first = np.unique(at[b], return_index=True)
    return a, b[first]


def _models(
    groups: Sequence[str],
    linked: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]],
    transforms: np.ndarray,
    model: str,
    n_voters: int,
) -> dict[str, str]:
    """Model of each group: the one that is asked for, or the least sum of the criterion over some of its frames."""
    chosen = {}
    for group in sorted(set(groups)):
        voters = [i for i, pairs in linked.items() if groups[i] == group and len(pairs[0]) >= _MODEL_PAIRS]
        totals = dict.fromkeys(MODELS, 0.0)
        for i in voters[:: -(-len(voters) // n_voters) or 1]:
            for name, n_parameters in MODELS.items():
                _, residual = robust_fit(*linked[i], model=name, mirrored=_mirrored(transforms[i]), rounds=4)
                worth = aicc(residual, n_parameters)
                totals[name] += worth if np.isfinite(worth) else 1e12
        chosen[group] = min(totals, key=lambda name: totals[name]) if voters else "similarity"
        if model != "auto":
            chosen[group] = model
    return chosen


def _affordable(model: str, n_pairs: int) -> str:
    """The group's model, or a simpler one for a frame with few stars; never simpler than a similarity."""
    order = list(MODELS)
    while order.index(model) > order.index("similarity") and n_pairs < MODELS[model] / 2 + 4:
        model = order[order.index(model) - 1]
    return model


def _quality(
    transform: np.ndarray, source: np.ndarray, target: np.ndarray, sigma: np.ndarray, residual: np.ndarray
) -> tuple[int, float]:
    """Pairs that agree, and their weighted rms per axis in px."""
    good = residual < 4
    if not good.any():
        return 0, np.nan
    away = ((apply(transform, source) - target) ** 2).sum(axis=1)
    return int(good.sum()), float(np.sqrt(np.average(away[good], weights=1 / sigma[good] ** 2) / 2))


def _scale(transform: np.ndarray) -> float:
    return float(abs(np.linalg.det(transform[:2, :2])) ** 0.5)


def _mirrored(transform: np.ndarray) -> bool:
    return bool(np.linalg.det(transform[:2, :2]) < 0)
