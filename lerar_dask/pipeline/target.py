"""The stages of one target: register its subs together, lay its grid, and take each of its groups to a master."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

from lerar_dask.errors import LerarError, WaitingError
from lerar_dask.pipeline.group import GROUP_STAGES
from lerar_dask.pipeline.ln_reference import find_reference
from lerar_dask.pipeline.session import Session
from lerar_dask.pipeline.target_grid import best_first, canvas_of, grid_notes, register_target
from lerar_dask.pipeline.work import GroupWork, TargetWork, through
from lerar_dask.sub import Sub

__all__ = ["TARGET_STAGES", "solve_target"]


def solve_target(session: Session, name: str, subs: Sequence[Sub]) -> TargetWork:
    """Take a target through all its stages.

    Parameters
    ----------
    subs : in order of start and id
    """
    return through(TARGET_STAGES, session, TargetWork(name=name, subs=subs))


def _register(session: Session, target: TargetWork) -> TargetWork:
    """Where each sub lies on the plane of a reference."""
    subs = target.subs
    summaries = [session.store.measures(s.geometry, s.measure).summary(s.slot) for s in subs]
    key, registration, reference = register_target(session, target.name, subs, summaries)
    return dataclasses.replace(
        target,
        summaries=summaries,
        registration_key=key,
        registration=registration,
        reference=reference,
        notes=grid_notes(subs, registration),
    )


def _lay_grid(session: Session, target: TargetWork) -> TargetWork:
    """The canvas of all groups, and who is not on it."""
    assert target.registration is not None
    assert target.reference is not None
    canvas, reasons = canvas_of(session, target.subs, target.registration, target.reference)
    return dataclasses.replace(target, canvas=canvas, reasons=_without_lonely(target.subs, reasons))


def _place_ln_reference(session: Session, target: TargetWork) -> TargetWork:
    """The image that the user gave for scale and sky, on the grid."""
    assert target.registration is not None
    assert target.reference is not None
    order = best_first(target.subs, target.summaries)
    found = find_reference(session, target.name, target.subs, target.registration, target.reference, order)
    return dataclasses.replace(target, ln_reference=found)


def _solve_groups(session: Session, target: TargetWork) -> TargetWork:
    """A master for each group, or the reason why it has none."""
    groups, problems, waiting = {}, {}, None
    for name in sorted({sub.group for sub in target.subs}):
        own = [i for i, sub in enumerate(target.subs) if sub.group == name]
        members = [i for i in own if not target.reasons[i]]
        if not members or target.canvas is None:
            problems[name] = _why_none([target.reasons[i] for i in own])
            continue
        group = GroupWork(target=target, name=name, members=members, canvas=target.canvas)
        try:
            groups[name] = through(GROUP_STAGES, session, group)
        except WaitingError as error:
            waiting = error
        except LerarError as error:
            if type(error) is not LerarError:
                raise
            problems[name] = error.message
    if waiting:
        raise waiting
    return dataclasses.replace(target, groups=groups, problems=problems)


def _solve_plate(session: Session, target: TargetWork) -> TargetWork:
    """Where the grid lies in the sky, if that is asked for."""
    if not session.settings.products.solve or not target.groups:
        return target
    from lerar_dask.pipeline.plate_solution import plate_solution  # takes astropy's tables, which most runs do not need

    cards, note = plate_solution(session, target)
    return dataclasses.replace(target, wcs=cards, notes=[*target.notes, *([note] if note else [])])


TARGET_STAGES: Sequence[Callable[[Session, TargetWork], TargetWork]] = (
    _register,
    _lay_grid,
    _place_ln_reference,
    _solve_groups,
    _solve_plate,
)
"""In their order."""


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
