"""Where the image lies that gives scale and background (`--ln-reference`): one more sub, matched but never stacked.

A calibrated sub of the run itself is taken as it is in the store; any other image is measured and matched to the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.errors import LerarError, UsageError
from lerar_dask.identity import digest
from lerar_dask.pipeline.session import Session
from lerar_dask.runtime.events import Note
from lerar_dask.stages.normalize import ln_reference
from lerar_dask.stages.normalize.solve import LnReference
from lerar_dask.stages.register.agree import Registration, agree_key, load, plan_agree
from lerar_dask.stages.register.match import plan_match
from lerar_dask.sub import Sub

__all__ = ["find_reference", "match_images", "tell_adopted"]

TRIES = 4
"""Subs that the image is matched to before it is given up."""


def find_reference(
    session: Session,
    target: str,
    subs: Sequence[Sub],
    registration: Registration,
    reference: Sub,
    order: Sequence[int],
) -> LnReference | None:
    """The image that the user gave, placed on the grid of a target; None when there is none, or no sub to normalize.

    Parameters
    ----------
    reference : what sets the grid
    order : subs, the best first

    Raises
    ------
    LerarError
        when it cannot be used for this target.
    """
    settings = session.settings
    path = settings.normalize.ln_reference
    if path is None or all(registration.reasons):
        return None
    _check(session, path)
    own = [i for i, sub in enumerate(subs) if Path(sub.path).resolve() == path.resolve()]
    if own:
        return _own_sub(subs[own[0]], registration, own[0])
    try:
        image = ln_reference.measure_reference(session.store, path, settings.ingest)
    except UsageError as error:
        raise UsageError(f"--ln-reference {error.message}", error.hint) from error
    if image.trust:
        session.bus.emit(Note(text=f"--ln-reference {path.name}: {image.trust}"))
    member = Sub(
        geometry=image.geometry,
        slot=0,
        measure=image.measure,
        shape=image.shape,
        group="ln-reference",
        path=str(path),
        noise_cell_px=settings.ingest.background_cell_px,
    )
    reference_to_sub = _place(session, target, member, reference, subs, registration, order)
    return _reference(member, reference_to_sub, path.name)


def tell_adopted(session: Session, group: str, told: dict[str, Any]) -> None:
    """Say in the log what the image has become for a group."""
    covered, sky = told["covered"], ", ".join(f"{v:.6g}" for v in told["sky_adu"])
    text = f"{group}: scale and sky ({sky} ADU) are those of {told['name']}"
    if covered < 0.995:
        text += f"; it covers {100 * covered:.0f} % of the field: beyond, its sky is continued smoothly"
    session.bus.emit(Note(text=text))


def _check(session: Session, path: Path) -> None:
    """What can be known before any work."""
    method = session.settings.normalize.normalization
    if method not in ("local", "global"):
        raise UsageError(f"--ln-reference goes with --normalization local or global, not with {method}")
    if path.resolve().parent == session.out.resolve():
        raise UsageError(
            f"--ln-reference {path}: this run would write over it", "copy it to another folder, or give another --out"
        )


def _own_sub(sub: Sub, registration: Registration, i: int) -> LnReference:
    """A sub of the run."""
    name = Path(sub.path).name
    if registration.reasons[i]:
        raise LerarError(f"--ln-reference {name}: it does not register: {registration.reasons[i]}")
    return _reference(sub, registration.transforms[i], name)


def _reference(member: Sub, reference_to_sub: np.ndarray, name: str) -> LnReference:
    return LnReference(member=member, reference_to_sub=reference_to_sub, name=name)


def _place(
    session: Session,
    target: str,
    image: Sub,
    reference: Sub,
    subs: Sequence[Sub],
    registration: Registration,
    order: Sequence[int],
) -> np.ndarray:
    """Reference plane to image: by way of what sets the grid, else of one of the best subs."""
    ways = [(reference, np.eye(3))]
    for i in order:
        sub = subs[i]
        if not registration.reasons[i] and not np.allclose(registration.transforms[i], np.eye(3)):
            ways.append((sub, registration.transforms[i]))
    for first, reference_to_sub in ways[:TRIES]:
        found = match_images(session, target, image, first)
        if found is not None:
            return found @ reference_to_sub
    raise LerarError(
        f"--ln-reference {image.name}: its stars match those of no sub of {target}",
        "it must show the field of all targets of the run; stack others by themselves",
    )


def match_images(session: Session, target: str, image: Sub, first: Sub) -> np.ndarray | None:
    """Transform from a sub to the image, refined; None where they do not match."""
    url, settings = session.store.url, session.settings.register
    key = digest("ln-reference", target, image, first)[:12]
    step = plan_match(url, [image], first, settings, key)
    records = session.run(step)
    record = records[step.tasks[0].key]
    if record["state"] != "done":
        raise LerarError(f"{record['key']}: {record['reason']}")
    found = record["result"]["found"]
    if found[0] is None:
        return None
    key = agree_key([image], first, found, settings)
    step = plan_agree(url, [image], first, found, settings)
    (record,) = session.run(step).values()
    if record["state"] != "done":
        raise LerarError(f"{record['key']}: {record['reason']}")
    transform = load(url, key).transforms[0]
    return transform if np.isfinite(transform).all() else None
