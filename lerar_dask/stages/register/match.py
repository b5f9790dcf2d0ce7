"""Match: each sub against the reference, a task per batch of subs; the usual cases only (for others see second_chance).

The reference may be one of the subs, or an image that the user gave: a Sub whose star list lies in the store as an
array of its own (`stars_at`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.register.asterism import match_stars
from lerar_dask.settings import Register
from lerar_dask.stages.register.lists import SIGMA_PX, list_of, match_with_itself, stars_of
from lerar_dask.store.access import open_store
from lerar_dask.sub import Sub
from lerar_dask.tasks import Step, Task

__all__ = ["match_batch", "plan_match"]

BATCH = 50


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
    first = list_of(stars_of(store, reference), reference)
    found: list[dict[str, Any] | None] = []
    for member in members:
        if member == reference:
            found.append(match_with_itself(len(first.xy)))
            continue
        second = list_of(stars_of(store, member), member)
        match = match_stars(
            first,
            second,
            sigma_px=SIGMA_PX,
            accept=settings.accept_log_odds,
            same_camera=member.geometry == reference.geometry,
            quick=True,
        )
        found.append(
            None
            if match is None
            else {"transform": match.transform.ravel().tolist(), "log_odds": match.log_odds, "n_pairs": match.n_pairs}
        )
    return {"found": found}
