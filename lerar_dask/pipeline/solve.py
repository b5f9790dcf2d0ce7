"""From measured subs to a master: register the subs of a target together, and solve each of its groups."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from lerar_dask.errors import LerarError
from lerar_dask.pipeline.group import Solved, solve_group
from lerar_dask.pipeline.ln_reference import find_reference
from lerar_dask.pipeline.session import Session
from lerar_dask.pipeline.target_grid import best_first, canvas_of, register_target, sampling_notes
from lerar_dask.run import TargetState
from lerar_dask.sub import Sub

__all__ = ["Solved", "solve_target"]


def solve_target(session: Session, name: str, subs: Sequence[Sub]) -> Solved:
    """Register, normalize, integrate.

    Parameters
    ----------
    subs : in order of start and id
    """
    store = session.store
    summaries = [store.measures(s.geometry, s.measure).summary(s.slot) for s in subs]
    key, registration, reference = register_target(session, name, subs, summaries)
    canvas, reasons = canvas_of(session, subs, registration, reference)
    reasons = _without_lonely(subs, reasons)
    registered = Solved(
        name=name,
        target=TargetState(subs=list(subs), registration=key, canvas=canvas),
        registration=registration,
        summaries=summaries,
        ln_reference=find_reference(session, name, subs, registration, reference, best_first(subs, summaries)),
        notes=sampling_notes(subs, registration),
        set_aside={sub.path: reason for sub, reason in zip(subs, reasons, strict=True) if reason},
    )
    groups, problems = {}, {}
    for group in sorted({sub.group for sub in subs}):
        members = [i for i, sub in enumerate(subs) if sub.group == group and not reasons[i]]
        if not members or canvas is None:
            problems[group] = _why_none([r for s, r in zip(subs, reasons, strict=True) if s.group == group])
            continue
        try:
            groups[group] = solve_group(session, registered, group, members, canvas)
        except LerarError as error:
            if type(error) is not LerarError:
                raise
            problems[group] = error.message
    return dataclasses.replace(registered, groups=groups, problems=problems)


def _without_lonely(subs: Sequence[Sub], reasons: Sequence[str]) -> list[str]:
    """The reasons, with one for each sub that alone of three or more of its group is left: it matches only itself."""
    offered = Counter(sub.group for sub in subs)
    left = Counter(sub.group for sub, reason in zip(subs, reasons, strict=True) if not reason)
    lonely = {group for group, n in left.items() if n == 1 and offered[group] >= 3}
    return [
        reason or ("no other sub of its group matches it" if sub.group in lonely else "")
        for sub, reason in zip(subs, reasons, strict=True)
    ]


def _why_none(reasons: Sequence[str]) -> str:
    """One sentence for a group of which no sub is left."""
    if not reasons:
        return "none of its lights could be read"
    common = max(sorted(set(reasons)), key=reasons.count)
    return f"no sub of it registers; most common reason: {common}"
