"""Register: where each sub of a target lies on the common grid.

Reads   star lists of all subs of a target (all filters, nights, cameras)
Writes  registration/<key>/{transforms,accepted,rms_px,n_pairs,log_odds}; reasons beside them
Rounds: match (a task per batch of subs, each against the reference), agree (one task: model by AICc, mean catalogue,
second chance for unmatched subs, joint pass)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lerar_dask.kernels import transform as tf
from lerar_dask.kernels.asterism import StarList, match_stars
from lerar_dask.settings import Register, digest
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step, Task

__all__ = ["Member", "Registration", "agree", "choose_reference", "load", "match_batch", "plan_agree", "plan_match"]

CODE_VERSION = 1
BATCH = 50
SATURATED, BLENDED = 2, 16
S0_PX = 0.03
"""Part of a star's position error that does not fall with brightness: the air, and the model of the star."""
_MATCH_STARS = 300
_JOINT_STARS = 1000
_MIN_STARS = 6


@dataclass(frozen=True, kw_only=True)
class Member:
    """A sub, as registration sees it."""

    geometry: str
    slot: int
    measure: str
    shape: tuple[int, int]
    group: str
    """Subs of one group share a model."""
    name: str


@dataclass(frozen=True)
class Registration:
    """Where the subs of a target lie, in the order of the members."""

    transforms: np.ndarray
    """(n, 3, 3) float64 reference plane to sub; NaN for subs that are set aside."""
    accepted: np.ndarray
    """(n,) bool"""
    rms_px: np.ndarray
    n_pairs: np.ndarray
    log_odds: np.ndarray
    reasons: list[str]
    """Why a sub is set aside; empty for the others."""
    model: dict[str, str]
    """Model chosen for each group."""


def choose_reference(summaries: Sequence[dict[str, Any]]) -> list[int]:
    """Candidates for the reference sub, best first: many stars, sharp, round, dark sky."""
    stars = np.array([s["n_stars"] for s in summaries], float)
    fwhm = np.array([s["fwhm_px"] or np.nan for s in summaries], float)
    ecc = np.array([s["eccentricity"] or 0.0 for s in summaries], float)
    noise = np.array([max(s["noise_adu"], 1e-6) for s in summaries], float)
    usable = stars >= max(0.5 * np.median(stars), 1.0)
    middle = np.nanmedian(fwhm) if np.isfinite(fwhm).any() else 1.0
    sharp = np.where(np.isfinite(fwhm), middle / np.where(np.isfinite(fwhm), fwhm, 1.0), 0.1) ** 2
    score = np.sqrt(stars) * sharp * (1 - ecc / 2) * np.sqrt(np.median(noise) / noise) * usable
    return [int(i) for i in np.argsort(-score, kind="stable")]


def plan_match(store_url: str, members: Sequence[Member], reference: Member, settings: Register, key: str) -> Step:
    """One task per batch of subs."""
    tasks = []
    for start in range(0, len(members), BATCH):
        batch = tuple(members[start : start + BATCH])
        tasks.append(
            Task(
                key=f"register/{key}/{start}",
                digest=digest("match", CODE_VERSION, batch, reference, settings.accept_log_odds),
                function=match_batch,
                arguments={"store_url": store_url, "members": batch, "reference": reference, "settings": settings},
            )
        )
    return Step(name="register", tasks=tasks, task_bytes=64 << 20)


def match_batch(
    *, store_url: str, members: tuple[Member, ...], reference: Member, settings: Register
) -> dict[str, Any]:
    """Match subs to the reference; a similarity with its log-odds for each, or nothing."""
    store = open_store(store_url)
    first = _list_of(store, reference)
    found: list[dict[str, Any] | None] = []
    for member in members:
        if member == reference:
            found.append({"transform": np.eye(3).ravel().tolist(), "log_odds": 1e6, "n_pairs": len(first.xy)})
            continue
        match = match_stars(first, _list_of(store, member), sigma_px=1.0, accept=settings.accept_log_odds)
        found.append(
            None
            if match is None
            else {"transform": match.transform.ravel().tolist(), "log_odds": match.log_odds, "n_pairs": match.n_pairs}
        )
    return {"found": found}


def plan_agree(
    store_url: str,
    members: Sequence[Member],
    reference: Member,
    matches: Sequence[dict[str, Any] | None],
    settings: Register,
    key: str,
) -> Step:
    """The one task that brings all matches together."""
    arguments = {
        "store_url": store_url,
        "members": tuple(members),
        "reference": reference,
        "matches": tuple(matches),
        "settings": settings,
        "key": key,
    }
    value = digest("agree", CODE_VERSION, list(members), reference, list(matches), settings)
    task = Task(key=f"register/{key}/agree", digest=value, function=agree, arguments=arguments)
    return Step(name="register: agree", tasks=[task], task_bytes=len(members) * 200_000 + (64 << 20))


def agree(
    *,
    store_url: str,
    members: tuple[Member, ...],
    reference: Member,
    matches: tuple[dict[str, Any] | None, ...],
    settings: Register,
    key: str,
) -> dict[str, Any]:
    """Refine all transforms against the mean catalogue and write the registration."""
    store = open_store(store_url)
    stars = [_stars_of(store, member) for member in members]
    first = np.full((len(members), 3, 3), np.nan)
    log_odds = np.zeros(len(members))
    for i, match in enumerate(matches):
        if match is not None:
            first[i] = np.array(match["transform"]).reshape(3, 3)
            log_odds[i] = match["log_odds"]
    home = members.index(reference)
    _second_chance(first, log_odds, members, stars, home, settings)
    models, transforms, rms, pairs = _joint(first, members, stars, home, settings)
    reasons = _reasons(transforms, members, stars)
    _write(store, key, transforms, rms, pairs, log_odds, reasons, models)
    accepted = sum(not reason for reason in reasons)
    return {"accepted": accepted, "model": models}


def load(store_url: str, key: str) -> Registration:
    """The registration that `agree` wrote."""
    store = open_store(store_url)
    at = f"registration/{key}"
    notes = store.read_json(f"{at}/notes.json")
    names = ("transforms", "rms_px", "n_pairs", "log_odds")
    columns = {name: store.read_array(f"{at}/{name}") for name in names}
    accepted = store.read_array(f"{at}/accepted").astype(bool)
    return Registration(accepted=accepted, reasons=notes["reasons"], model=notes["model"], **columns)


# ---------------------------------------------------------------------------------------------------------- star lists


def _stars_of(store: Store, member: Member) -> np.ndarray:
    """(n, 4) x, y, position error, flux of the stars fit for registration, unsaturated ones first."""
    table = store.measures(member.geometry, member.measure).read_stars(member.slot)
    flags = table[:, 9].astype(int)
    snr, fwhm = np.maximum(table[:, 8], 1.0), np.clip(table[:, 5], 1.0, 30.0)
    sigma = np.hypot(0.6 * fwhm / snr, S0_PX)
    sigma = np.where(flags & (SATURATED | BLENDED), sigma + 0.5, sigma)
    order = np.lexsort((-table[:, 2], (flags & SATURATED) > 0))[:_JOINT_STARS]
    return np.column_stack([table[:, 0], table[:, 1], sigma, table[:, 2]])[order]


def _list_of(store: Store, member: Member) -> StarList:
    return StarList(_stars_of(store, member)[:_MATCH_STARS, :2], member.shape)


def _pairs(
    transform: np.ndarray, catalogue: np.ndarray, tree_points: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of catalogue stars and sub stars that are each other's nearest within `radius` px of the sub."""
    if not len(catalogue) or not len(tree_points):
        return np.zeros(0, int), np.zeros(0, int)
    projected = tf.apply(transform, catalogue)
    distance, at = cKDTree(tree_points).query(projected, distance_upper_bound=radius)
    _, back = cKDTree(projected).query(tree_points, distance_upper_bound=radius)
    i = np.nonzero(np.isfinite(distance))[0]
    i = i[back[at[i]] == i]
    return i, at[i]


# ------------------------------------------------------------------------------------------------------- agree: rounds


def _second_chance(
    first: np.ndarray,
    log_odds: np.ndarray,
    members: Sequence[Member],
    stars: Sequence[np.ndarray],
    home: int,
    settings: Register,
) -> None:
    """Match what is left to registered neighbors in time: long dithers reach the reference by way of others."""
    for _ in range(3):
        lost = [i for i in range(len(members)) if np.isnan(first[i, 0, 0]) and len(stars[i]) >= _MIN_STARS]
        known = np.array([i for i in range(len(members)) if np.isfinite(first[i, 0, 0])])
        gained = False
        for i in lost:
            near = known[np.argsort(np.abs(known - i), kind="stable")][:3]
            for j in near:
                a = StarList(stars[j][:_MATCH_STARS, :2], members[j].shape)
                b = StarList(stars[i][:_MATCH_STARS, :2], members[i].shape)
                match = match_stars(a, b, sigma_px=1.0, accept=settings.accept_log_odds, deepest=3)
                if match is not None:
                    first[i] = match.transform @ first[j]
                    first[i] /= first[i, 2, 2]
                    log_odds[i] = match.log_odds
                    gained = True
                    break
        if not gained:
            return


def _joint(
    first: np.ndarray, members: Sequence[Member], stars: Sequence[np.ndarray], home: int, settings: Register
) -> tuple[dict[str, str], np.ndarray, np.ndarray, np.ndarray]:
    """Mean catalogue, model per group, refitted transforms; twice, since the second catalogue is the deeper one."""
    n = len(members)
    transforms, rms, pairs = first.copy(), np.full(n, np.nan), np.zeros(n, np.int64)
    models: dict[str, str] = {}
    for radius in (3.0, 1.5):
        catalogue, weight = _catalogue(transforms, stars, home)
        linked = {
            i: _pairs(
                transforms[i],
                catalogue,
                stars[i][:, :2],
                radius + 0.1 / max(abs(np.linalg.det(transforms[i])) ** 0.5, 0.1),
            )
            for i in range(n)
            if np.isfinite(transforms[i, 0, 0])
        }
        if not models:
            models = _choose_models(members, stars, catalogue, linked, settings)
        for i, (a, b) in linked.items():
            if i == home or len(a) < _MIN_STARS:
                if i != home:
                    transforms[i] = np.nan
                    continue
                pairs[i], rms[i] = len(a), 0.0
                continue
            sigma = np.sqrt(stars[i][b, 2] ** 2 + 1.0 / np.maximum(weight[a], 1e-6))
            model = _model_for(models[members[i].group], len(a))
            mirrored = np.linalg.det(transforms[i][:2, :2]) < 0
            transforms[i], residual = tf.robust_fit(
                catalogue[a], stars[i][b, :2], sigma, model=model, mirrored=bool(mirrored)
            )
            good = residual < 4
            pairs[i] = int(good.sum())
            away = np.hypot(*(tf.apply(transforms[i], catalogue[a]) - stars[i][b, :2]).T)
            rms[i] = (
                float(np.sqrt(np.average(away[good] ** 2, weights=1 / sigma[good] ** 2) / 2)) if good.any() else np.nan
            )
    return models, transforms, rms, pairs


def _catalogue(transforms: np.ndarray, stars: Sequence[np.ndarray], home: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean positions (m, 2) in the reference plane and their inverse variances: the reference's stars and all others."""
    order = [home, *(i for i in range(len(stars)) if i != home and np.isfinite(transforms[i, 0, 0]))]
    sums = np.zeros((0, 3))
    for i in order:
        back = tf.apply(tf.invert(transforms[i]), stars[i][:, :2])
        scale = abs(np.linalg.det(transforms[i][:2, :2])) ** 0.5
        weight = (scale / stars[i][:, 2]) ** 2
        where = sums[:, :2] / sums[:, 2:] if len(sums) else np.zeros((0, 2))
        a, b = _pairs(np.eye(3), where, back, 1.5)
        sums[a] += np.column_stack([back[b] * weight[b, None], weight[b]])
        fresh = np.setdiff1d(np.arange(len(back)), b)
        if len(where) and len(fresh):
            distance, _ = cKDTree(where).query(back[fresh])
            fresh = fresh[distance > 4.0]
        sums = np.concatenate([sums, np.column_stack([back[fresh] * weight[fresh, None], weight[fresh]])])
    return sums[:, :2] / sums[:, 2:], sums[:, 2]


def _choose_models(
    members: Sequence[Member],
    stars: Sequence[np.ndarray],
    catalogue: np.ndarray,
    linked: dict[int, tuple[np.ndarray, np.ndarray]],
    settings: Register,
) -> dict[str, str]:
    """Model of each group: the smallest sum of AICc over its subs, or what the user says."""
    groups = sorted({m.group for m in members})
    if settings.model != "auto":
        return dict.fromkeys(groups, settings.model)
    totals: dict[str, Counter[str]] = {g: Counter() for g in groups}
    for i, (a, b) in linked.items():
        if len(a) < 12:
            continue
        for model, n_parameters in tf.MODELS.items():
            _, residual = tf.robust_fit(catalogue[a], stars[i][b, :2], stars[i][b, 2], model=model, rounds=4)
            totals[members[i].group][model] += tf.aicc(residual, n_parameters)  # type: ignore[assignment]
    return {g: min(t, key=lambda m: t[m]) if (t := totals[g]) else "similarity" for g in groups}


def _model_for(model: str, n_pairs: int) -> str:
    """The group's model, or a simpler one for a sub with few stars."""
    order = list(tf.MODELS)
    while n_pairs < tf.MODELS[model] / 2 + 4 and model != "similarity" and order.index(model) > 1:
        model = order[order.index(model) - 1]
    return model


def _reasons(transforms: np.ndarray, members: Sequence[Member], stars: Sequence[np.ndarray]) -> list[str]:
    """Why subs do not register, in words."""
    counts = {
        g: float(np.median([len(s) for s, m in zip(stars, members, strict=True) if m.group == g]))
        for g in {m.group for m in members}
    }
    reasons = []
    for i, member in enumerate(members):
        n = len(stars[i])
        if np.isfinite(transforms[i, 0, 0]):
            reasons.append("")
        elif n < _MIN_STARS:
            reasons.append(f"too few stars: {n} found, {_MIN_STARS} needed")
        elif n < 0.3 * counts[member.group]:
            reasons.append(f"clouds or bad focus: {n} stars where its neighbors have {counts[member.group]:.0f}")
        else:
            reasons.append(f"its {n} stars match those of no other sub: another field, or trailed")
    return reasons


def _write(
    store: Store,
    key: str,
    transforms: np.ndarray,
    rms: np.ndarray,
    pairs: np.ndarray,
    log_odds: np.ndarray,
    reasons: list[str],
    models: dict[str, str],
) -> None:
    at = f"registration/{key}"
    accepted = np.isfinite(transforms[:, 0, 0]).astype(np.uint8)
    store.write_array(
        f"{at}/transforms", transforms, dims=("sub", "row", "column"), unit="px", meaning="reference plane to sub"
    )
    for name, column in (("accepted", accepted), ("rms_px", rms), ("n_pairs", pairs), ("log_odds", log_odds)):
        store.write_array(f"{at}/{name}", column, dims=("sub",))
    store.write_json(f"{at}/notes.json", {"reasons": reasons, "model": models})
