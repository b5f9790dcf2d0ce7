"""From measured subs to a master: register the subs of a target together, and solve each of its groups."""

from __future__ import annotations

from collections.abc import Sequence

from lerar_dask.errors import LerarError
from lerar_dask.pipeline.group import Solved, solve_group
from lerar_dask.pipeline.ln_reference import find_reference
from lerar_dask.pipeline.session import Session
from lerar_dask.pipeline.target_grid import best_first, canvas_of, register_target, sampling_notes
from lerar_dask.run import TargetState
from lerar_dask.sub import Sub

__all__ = ["Solved", "solve_target"]


def solve_target(
    session: Session, name: str, subs: Sequence[Sub], set_aside: dict[str, str], problems: dict[str, str]
) -> Solved:
    """Register, normalize, integrate.

    Parameters
    ----------
    subs : in order of start and id
    set_aside : reasons of frames that are set aside, by path; added to
    problems : reasons of groups without a master; added to
    """
    store = session.store
    summaries = [store.measures(s.geometry, s.measure).summary(s.slot) for s in subs]
    key, registration, reference = register_target(session, name, subs, summaries)
    reasons = list(registration.reasons)
    canvas = canvas_of(session, subs, registration, reasons, reference)
    for sub, reason in zip(subs, reasons, strict=True):
        if reason:
            set_aside[sub.path] = reason
    solved = Solved(
        name=name,
        target=TargetState(subs=list(subs), registration=key, canvas=canvas),
        registration=registration,
        summaries=summaries,
        ln_reference=find_reference(session, name, subs, registration, reference, best_first(subs, summaries)),
        notes=sampling_notes(subs, registration),
    )
    for group in sorted({sub.group for sub in subs}):
        members = [i for i, sub in enumerate(subs) if sub.group == group and not reasons[i]]
        offered = sum(sub.group == group for sub in subs)
        if len(members) == 1 and offered >= 3:
            _give_up(subs, members[0], reasons, set_aside)
            members = []
        if not members or canvas is None:
            problems[group] = _why_none([r for s, r in zip(subs, reasons, strict=True) if s.group == group])
            continue
        try:
            solve_group(session, solved, group, members, canvas)
        except LerarError as error:
            if type(error) is not LerarError:
                raise
            problems[group] = error.message
    return solved


def _give_up(subs: Sequence[Sub], only: int, reasons: list[str], set_aside: dict[str, str]) -> None:
    """One sub of three or more that matches only itself is no stack."""
    reasons[only] = "no other sub of its group matches it"
    set_aside[subs[only].path] = reasons[only]


def _why_none(reasons: Sequence[str]) -> str:
    """One sentence for a group of which no sub is left."""
    if not reasons:
        return "none of its lights could be read"
    common = max(sorted(set(reasons)), key=reasons.count)
    return f"no sub of it registers; most common reason: {common}"
