"""Where the subs of a target lie, and the grid of its masters: reference, registration, canvas.

The grid has the pixels of the finest group: coarser ones (binned, or of a shorter focus) are resampled to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.grid import Canvas
from lerar_dask.identity import digest
from lerar_dask.kernels.register.chains import chains_of
from lerar_dask.pipeline.session import Session, stop_on_failure
from lerar_dask.stages.register import align_image
from lerar_dask.stages.register.agree import Registration, agree_key, load, plan_agree
from lerar_dask.stages.register.match import plan_match
from lerar_dask.stages.register.reference import choose_reference, finest_group, grid_scale
from lerar_dask.sub import Sub

__all__ = ["best_first", "canvas_of", "grid_notes", "register_target"]

CANVAS_LIMIT = 4.0
"""Beyond this many frames the canvas grows only by subs that hang together by chains of overlaps."""


def best_first(subs: Sequence[Sub], summaries: Sequence[Mapping[str, Any]]) -> list[int]:
    """Candidates for the reference, by what headers tell of the pixels' size and by what was measured."""
    scales = [sub.scale_arcsec_px for sub in subs]
    sizes = scales if all(scales) else [sub.binning for sub in subs]
    return choose_reference(summaries, np.array(sizes, float))


# --------------------------------------------------------------------------------------------------------- registration


def register_target(
    session: Session, name: str, subs: Sequence[Sub], summaries: Sequence[Mapping[str, Any]]
) -> tuple[str, Registration, Sub]:
    """Match all subs to the best reference of the finest group, let them agree; key, result and reference."""
    store, settings = session.store, session.settings.register
    members = list(subs)
    kept = session.known.get(f"reference/{name}") if not session.settings.run.resolve else None
    order = best_first(subs, summaries)
    if kept:
        order = [i for i, s in enumerate(subs) if s.id == kept["digest"]] + order
    if settings.align_to is not None:
        reference, found = _match(session, name, members, [_align_image(session)])
    else:
        reference, found = _match(session, name, members, [members[i] for i in order[:3]])
        finer, more = _finer(session, name, members, order, found)
        if finer is not None:
            kept, reference, found = None, finer, more
    key = agree_key(members, reference, found, settings)
    step = plan_agree(store.url, members, reference, found, settings)
    stop_on_failure(session.run(step))
    if reference in members and not kept:
        session.note(f"reference/{name}", subs[members.index(reference)].id)
    return key, load(store.url, key), reference


def _match(session: Session, name: str, members: Sequence[Sub], candidates: Sequence[Sub]) -> tuple[Sub, list[Any]]:
    """The first candidate that a third of the subs match, else the one that most do; and the matches."""
    best: tuple[Sub, list[Any]] = (candidates[0], [])
    for reference in candidates:
        key = digest("registration", name, reference)[:12]
        step = plan_match(session.store.url, members, reference, session.settings.register, key)
        records = session.run(step)
        stop_on_failure(records)
        found = [f for task in step.tasks for f in records[task.key]["result"]["found"]]
        if _count(found) > _count(best[1]):
            best = reference, found
        if _count(found) >= max(2, len(members) // 3):
            break
    return best


def _finer(
    session: Session, name: str, members: Sequence[Sub], order: Sequence[int], found: Sequence[Any]
) -> tuple[Sub | None, list[Any]]:
    """Reference and matches from a group whose pixels turned out finer than the reference's; None where none is."""
    transforms = np.array([f["transform"] if f else [np.nan] * 9 for f in found], float).reshape(-1, 3, 3)
    group = finest_group(transforms, [m.group for m in members])
    if not group:
        return None, []
    own = [members[i] for i in order if members[i].group == group and found[i] is not None]
    reference, again = _match(session, name, members, own[:3])
    return (reference, again) if 2 * _count(again) >= _count(found) else (None, [])


def _count(found: Sequence[Any]) -> int:
    return sum(f is not None for f in found)


def _align_image(session: Session) -> Sub:
    """The image that the user gave as the reference."""
    path = session.settings.register.align_to
    assert path is not None
    stars_at, shape = align_image.measure_align_image(session.store, path, session.settings.ingest)
    return Sub(
        path=str(path), geometry="align-to", slot=0, measure="", shape=shape, group="align-to", stars_at=stars_at
    )


def canvas_of(
    session: Session,
    subs: Sequence[Sub],
    registration: Registration,
    reference: Sub,
) -> tuple[Canvas | None, list[str]]:
    """Canvas of a target, and why subs are set aside: those that do not register, and those that lie too far out."""
    reasons = list(registration.reasons)
    inside = [i for i, r in enumerate(reasons) if not r]
    if not inside:
        return None, reasons
    boxes = np.array([_valid_area(session, s) for s in subs])
    origin = next((i for i in inside if np.allclose(registration.transforms[i], np.eye(3))), None)
    if session.settings.register.canvas == "reference":
        return Canvas((0, 0), reference.shape), reasons
    areas = [float(np.prod(Canvas.union(registration.transforms[[i]], boxes[[i]]).shape)) for i in inside]
    frame = max(float(np.prod(reference.shape)), float(np.median(areas)))
    canvas = Canvas.union(registration.transforms[inside], boxes[inside])
    if canvas.shape[0] * canvas.shape[1] <= CANVAS_LIMIT * frame:
        return canvas, reasons
    chains = chains_of(registration.transforms[inside], _reach(boxes, registration.placed)[inside])
    main = chains[inside.index(origin)] if origin in inside else np.argmax(np.bincount(chains))
    for i in [i for i, chain in zip(inside, chains, strict=True) if chain != main]:
        inside.remove(i)
        reasons[i] = (
            "its plate solution says that it lies more than half a frame beside the others"
            if registration.placed[i]
            else "no chain of overlapping subs connects it with the others, which lie far away"
        )
    return Canvas.union(registration.transforms[inside], boxes[inside]), reasons


def _reach(boxes: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """The boxes, of subs that lie where their plate solutions say half a frame larger on each side."""
    half = np.stack([boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]], axis=1)[:, [0, 0, 1, 1]] // 2
    grown: np.ndarray = boxes + placed[:, None] * half * np.array([-1, 1, -1, 1])
    return grown


def _valid_area(session: Session, sub: Sub) -> tuple[int, int, int, int]:
    """y0, y1, x0, x1 of what a sub holds: less than its frame where that is padded."""
    y0, y1, x0, x1 = session.store.frame(sub.geometry, sub.slot).get("valid_yx") or (0, sub.shape[0], 0, sub.shape[1])
    return y0, y1, x0, x1


def grid_notes(subs: Sequence[Sub], registration: Registration) -> list[str]:
    """What is to be said of subs that no star ties to the others, and of groups whose pixels are not of the grid's size."""
    notes = []
    for group in sorted({sub.group for sub, placed in zip(subs, registration.placed, strict=True) if placed}):
        n = sum(sub.group == group and bool(p) for sub, p in zip(subs, registration.placed, strict=True))
        notes.append(
            f"{group}: {n} sub{'s' * (n > 1)} without a star in common with the others: placed by plate solution, "
            "with a scale and a sky that nothing ties to theirs"
        )
    for group in sorted({sub.group for sub in subs}):
        own = [i for i, sub in enumerate(subs) if sub.group == group and not registration.reasons[i]]
        if not own:
            continue
        ratio = 1 / float(np.median(grid_scale(registration.transforms[own])))
        if ratio != 1.0:
            size = f"{ratio:.2f} times as large as" if ratio > 1 else f"{1 / ratio:.2f} times finer than"
            notes.append(
                f"{group}: the pixels of its {len(own)} subs are {size} the grid's: they are stacked apart from "
                "other groups and resampled to the grid"
            )
    return notes
