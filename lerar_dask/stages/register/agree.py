"""Agree: one task that brings all matches of a target together.

Reads   star lists of all subs of a target (all filters, nights, cameras)
Writes  registration/<key>/{transforms,accepted,rms_px,n_pairs,log_odds}; reasons beside them
Second chance for unmatched subs, plate solutions where stars do not suffice, model by AICc, joint pass against the mean
catalogue, reasons in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from lerar_dask.frames.sky_points import points_of
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.register.joint import joint_pass
from lerar_dask.settings import Register
from lerar_dask.stages.register.lists import list_of, match_with_itself, stars_of
from lerar_dask.stages.register.reasons import reasons_of
from lerar_dask.stages.register.second_chance import match_by_catalogue, match_by_neighbors, match_thoroughly
from lerar_dask.stages.register.solutions import match_by_solution, place_islands
from lerar_dask.stages.side_by_side import side_by_side
from lerar_dask.stages.solve_memory import agree_bytes
from lerar_dask.store.access import Store, open_store
from lerar_dask.sub import Sub
from lerar_dask.tasks import Step, Task

__all__ = ["Registration", "agree", "agree_key", "load", "plan_agree"]


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
    placed: np.ndarray
    """(n,) bool: those that share no star with the others and lie where their plate solutions say."""


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
    return Step(
        name="register: agree",
        tasks=[task],
        task_bytes=agree_bytes(len(members)),
        is_there=lambda store, _: store.has(f"registration/{key}/transforms"),
    )


def agree_key(
    members: Sequence[Sub], reference: Sub, matches: Sequence[dict[str, Any] | None], settings: Register
) -> str:
    """Key of the registration of subs, in the store."""
    return _agree_digest(members, reference, matches, settings)[:20]


def _agree_digest(
    members: Sequence[Sub], reference: Sub, matches: Sequence[dict[str, Any] | None], settings: Register
) -> str:
    return digest("agree", code_of(__name__), list(members), reference, list(matches), settings)


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
        found.append(match_with_itself(0))
    origin = everyone.index(reference)
    stars = list(side_by_side(partial(stars_of, store), everyone))
    first = np.full((len(everyone), 3, 3), np.nan)
    log_odds = np.zeros(len(everyone))
    for i, match in enumerate(found):
        if match is not None:
            first[i] = np.array(match["transform"]).reshape(3, 3)
            log_odds[i] = match["log_odds"]
    first[origin] = np.eye(3)
    lists = [list_of(s, m) for s, m in zip(stars, everyone, strict=True)]
    sky_of = cache(partial(_sky_of, store))
    match_by_solution(first, log_odds, everyone, stars, sky_of, origin, settings)
    match_by_neighbors(first, log_odds, everyone, lists, settings)
    match_by_catalogue(first, log_odds, stars, lists, origin, settings)
    match_by_neighbors(first, log_odds, everyone, lists, settings)
    match_by_solution(first, log_odds, everyone, stars, sky_of, origin, settings)
    match_thoroughly(first, log_odds, everyone, lists, origin, settings)
    centers = np.array([[(m.shape[1] - 1) / 2, (m.shape[0] - 1) / 2] for m in everyone])
    groups = [m.group for m in everyone]
    joint = joint_pass(first, stars, groups, centers, reference=origin, model=settings.model, each=side_by_side)
    transforms, n = joint.transforms, len(members)
    placed = place_islands(transforms, everyone, stars, lists, sky_of, origin, settings)[:n]
    transforms = transforms[:n]
    summaries = [store.measures(m.geometry, m.measure).summary(m.slot) for m in members]
    reasons = reasons_of(transforms, members, summaries, [len(s) for s in stars])
    models = {group: joint.model[group] for group in sorted({m.group for m in members})}
    _write(store, key, transforms, joint.rms_px[:n], joint.n_pairs[:n], log_odds[:n], placed, reasons, models)
    return {"accepted": sum(not reason for reason in reasons), "model": models}


def load(store_url: str, key: str) -> Registration:
    """The registration that `agree` wrote."""
    store = open_store(store_url)
    at = f"registration/{key}"
    notes = store.read_json(f"{at}/notes.json")
    names = ("transforms", "rms_px", "n_pairs", "log_odds")
    columns = {name: store.read_array(f"{at}/{name}") for name in names}
    accepted = store.read_array(f"{at}/accepted").astype(bool)
    placed = np.isin(np.arange(len(accepted)), notes["placed"])
    return Registration(accepted=accepted, reasons=notes["reasons"], model=notes["model"], placed=placed, **columns)


def _sky_of(store: Store, member: Sub) -> np.ndarray | None:
    """Where the pixels of a sub lie in the sky by its header; None where it does not say, and for foreign images."""
    if member.stars_at or not store.has_sub(member.geometry, member.slot):
        return None
    return points_of(store.frame(member.geometry, member.slot)["cards"], member.shape, np.eye(3))


def _write(
    store: Store,
    key: str,
    transforms: np.ndarray,
    rms: np.ndarray,
    pairs: np.ndarray,
    log_odds: np.ndarray,
    placed: np.ndarray,
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
    store.write_json(
        f"{at}/notes.json", {"reasons": reasons, "model": models, "placed": np.flatnonzero(placed).tolist()}
    )
