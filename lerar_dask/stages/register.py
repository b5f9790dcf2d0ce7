"""Register: where each sub of a target lies on the common grid.

Reads   star lists of all subs of a target (all filters, nights, cameras)
Writes  registration/<key>/{transforms,accepted,rms_px,n_pairs,log_odds}; reasons beside them
Rounds: match (a task per batch of subs, each against the reference), agree (one task: second chance for unmatched subs,
model by AICc, joint pass against the mean catalogue, reasons in words)

The reference may be one of the subs, or an image that the user gave: a Sub whose star list lies in the store as an
array of its own (`stars_at`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.constants import StarFlag
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.register.asterism import Match, StarList, match_stars
from lerar_dask.kernels.register.joint import joint_pass, mean_catalogue
from lerar_dask.kernels.register.log_odds import MIN_PAIRS
from lerar_dask.kernels.register.transform import compose
from lerar_dask.settings import Register
from lerar_dask.store.access import Store, open_store
from lerar_dask.sub import Sub
from lerar_dask.tasks import Step, Task

__all__ = [
    "FINER",
    "Registration",
    "agree",
    "agree_bytes",
    "agree_key",
    "choose_reference",
    "finest_group",
    "grid_scale",
    "load",
    "match_batch",
    "of_usual_exposure",
    "plan_agree",
    "plan_match",
]

BATCH = 50
S0_PX = 0.03
"""Part of a star's position error that does not fall with brightness: the air, and the model of the star."""
_MATCH_STARS = 300
_JOINT_STARS = 1000
_SIGMA_PX = 1.0
"""Error of a star's place when lists are matched: centroids, and what a similarity leaves of a lens's distortion."""
FINER = 1.03
"""From this ratio on pixels are of another size: optics breathe by less, the smallest step between cameras is more."""
_NEIGHBORS = 10
"""Subs before and after, whose stars tell what is unusual about one."""


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


def choose_reference(summaries: Sequence[dict[str, Any]], pixel_sizes: np.ndarray | None = None) -> list[int]:
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
    score = np.sqrt(stars) * sharp * (1 - ecc / 2) * np.sqrt(np.median(noise) / noise) * usable
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


def plan_match(store_url: str, members: Sequence[Sub], reference: Sub, settings: Register, key: str) -> Step:
    """One task per batch of subs."""
    tasks = []
    for start in range(0, len(members), BATCH):
        batch = tuple(members[start : start + BATCH])
        tasks.append(
            Task(
                key=f"register/{key}/{start}",
                digest=digest("match", code_of(__name__), batch, reference, settings.accept_log_odds),
                function=match_batch,
                arguments={"store_url": store_url, "members": batch, "reference": reference, "settings": settings},
            )
        )
    return Step(name="register", tasks=tasks, task_bytes=64 << 20)


def match_batch(*, store_url: str, members: tuple[Sub, ...], reference: Sub, settings: Register) -> dict[str, Any]:
    """Match subs to the reference; a similarity with its log-odds for each, or nothing."""
    store = open_store(store_url)
    first = _list_of(_stars_of(store, reference), reference)
    found: list[dict[str, Any] | None] = []
    for member in members:
        if member == reference:
            found.append(_identity(len(first.xy)))
            continue
        second = _list_of(_stars_of(store, member), member)
        match = match_stars(
            first,
            second,
            sigma_px=_SIGMA_PX,
            accept=settings.accept_log_odds,
            same_camera=member.geometry == reference.geometry,
        )
        found.append(
            None
            if match is None
            else {"transform": match.transform.ravel().tolist(), "log_odds": match.log_odds, "n_pairs": match.n_pairs}
        )
    return {"found": found}


def plan_agree(
    store_url: str,
    members: Sequence[Sub],
    reference: Sub,
    matches: Sequence[dict[str, Any] | None],
    settings: Register,
) -> Step:
    """The one task that brings all matches together, under `agree_key`."""
    value = _agree_digest(members, reference, matches, settings)
    key = value[:20]
    arguments = {
        "store_url": store_url,
        "members": tuple(members),
        "reference": reference,
        "matches": tuple(matches),
        "settings": settings,
        "key": key,
    }
    task = Task(key=f"register/{key}/agree", digest=value, function=agree, arguments=arguments)
    return Step(name="register: agree", tasks=[task], task_bytes=agree_bytes(len(members)))


def agree_key(
    members: Sequence[Sub], reference: Sub, matches: Sequence[dict[str, Any] | None], settings: Register
) -> str:
    """Key of the registration of subs, in the store."""
    return _agree_digest(members, reference, matches, settings)[:20]


def _agree_digest(
    members: Sequence[Sub], reference: Sub, matches: Sequence[dict[str, Any] | None], settings: Register
) -> str:
    return digest("agree", code_of(__name__), list(members), reference, list(matches), settings)


def agree_bytes(n: int) -> int:
    """Memory that bringing the matches of `n` subs together takes."""
    return n * 200_000 + (64 << 20)


def agree(
    *,
    store_url: str,
    members: tuple[Sub, ...],
    reference: Sub,
    matches: tuple[dict[str, Any] | None, ...],
    settings: Register,
    key: str,
) -> dict[str, Any]:
    """Refine all transforms against the mean catalogue and write the registration."""
    store = open_store(store_url)
    everyone, found = list(members), list(matches)
    if reference not in everyone:
        everyone.append(reference)
        found.append(_identity(0))
    origin = everyone.index(reference)
    stars = [_stars_of(store, member) for member in everyone]
    first = np.full((len(everyone), 3, 3), np.nan)
    log_odds = np.zeros(len(everyone))
    for i, match in enumerate(found):
        if match is not None:
            first[i] = np.array(match["transform"]).reshape(3, 3)
            log_odds[i] = match["log_odds"]
    first[origin] = np.eye(3)
    lists = [_list_of(s, m) for s, m in zip(stars, everyone, strict=True)]
    _by_neighbors(first, log_odds, everyone, lists, settings)
    _by_catalogue(first, log_odds, stars, lists, origin, settings)
    joint = joint_pass(first, stars, [m.group for m in everyone], reference=origin, model=settings.model)
    n = len(members)
    transforms = joint.transforms[:n]
    summaries = [store.measures(m.geometry, m.measure).summary(m.slot) for m in members]
    reasons = _reasons(transforms, members, summaries, [len(s) for s in stars])
    models = {group: joint.model[group] for group in sorted({m.group for m in members})}
    _write(store, key, transforms, joint.rms_px[:n], joint.n_pairs[:n], log_odds[:n], reasons, models)
    return {"accepted": sum(not reason for reason in reasons), "model": models}


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


def _stars_of(store: Store, member: Sub) -> np.ndarray:
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


def _list_of(stars: np.ndarray, member: Sub) -> StarList:
    return StarList(stars[:_MATCH_STARS, :2], member.shape)


def _identity(n_stars: int) -> dict[str, Any]:
    """The reference's match with itself."""
    return {"transform": np.eye(3).ravel().tolist(), "log_odds": 1e6, "n_pairs": n_stars}


# ------------------------------------------------------------------------------------------------------- second chance


def _by_neighbors(
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


def _by_catalogue(
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
    bright = np.argsort(-catalogue.flux, kind="stable")[:_MATCH_STARS]
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
        first, second, sigma_px=_SIGMA_PX, accept=settings.accept_log_odds, same_camera=same_camera, quick=True
    )


# ------------------------------------------------------------------------------------------------------------- reasons


def _reasons(
    transforms: np.ndarray,
    members: Sequence[Sub],
    summaries: Sequence[dict[str, Any]],
    n_stars: Sequence[int],
) -> list[str]:
    """Why subs do not register, in words; empty for those that do."""
    inside = np.isfinite(transforms[:, 0, 0])
    groups = np.array([m.group for m in members])
    reasons = []
    for i, member in enumerate(members):
        if inside[i]:
            reasons.append("")
            continue
        near = np.nonzero((groups == member.group) & inside)[0]
        order = np.argsort(np.abs(near - i), kind="stable")[: 2 * _NEIGHBORS]
        near = near[order].tolist()
        reasons.append(_reason(summaries[i], n_stars[i], [summaries[k] for k in near], [n_stars[k] for k in near]))
    return reasons


def _reason(summary: dict[str, Any], n: int, near: Sequence[dict[str, Any]], near_stars: Sequence[int]) -> str:
    usual = float(np.median(near_stars)) if near_stars else 0.0
    ecc, fwhm = summary.get("eccentricity") or 0.0, summary.get("fwhm_px") or 0.0
    usual_ecc = _median([s.get("eccentricity") for s in near])
    usual_fwhm = _median([s.get("fwhm_px") for s in near])
    if n >= MIN_PAIRS and ecc > max(0.7, usual_ecc + 0.2):
        return f"trailed (eccentricity {ecc:.2f})"
    if n >= MIN_PAIRS and usual_fwhm and fwhm > 2.0 * usual_fwhm:
        return f"out of focus: stars {fwhm:.1f} px wide where its neighbors have {usual_fwhm:.1f}"
    if n < 0.3 * usual and usual >= 2 * MIN_PAIRS:
        return f"clouds: {n} stars where its neighbors have {usual:.0f}"
    if n < MIN_PAIRS:
        return f"too few stars ({n} found, {MIN_PAIRS} needed)"
    return f"other field: its {n} stars match those of no other sub"


def _median(values: Sequence[float | None]) -> float:
    """Median of what is known; 0 when nothing is."""
    known = [v for v in values if v]
    return float(np.median(known)) if known else 0.0


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
