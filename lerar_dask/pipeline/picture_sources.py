"""What a picture is made of: masters of a run, or FITS masters of any program, which are registered to one another first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.errors import FrameError, LerarError, StoreError, UsageError
from lerar_dask.frames.picture import Picture, open_picture
from lerar_dask.grid import Canvas
from lerar_dask.identity import digest
from lerar_dask.link.meaning import filter_key
from lerar_dask.pipeline.header_facts import header_facts
from lerar_dask.pipeline.ln_reference import match_images
from lerar_dask.pipeline.picture_work import PictureWork
from lerar_dask.pipeline.products import lnref_name
from lerar_dask.pipeline.session import Session, stop_on_failure
from lerar_dask.run import GroupState, RunState
from lerar_dask.stages.integrate.stack_table import load_table
from lerar_dask.stages.normalize.ln_reference import measure_reference
from lerar_dask.stages.picture import place
from lerar_dask.stages.picture.recipe import Channel, Mix, make_recipe
from lerar_dask.store.access import Store
from lerar_dask.sub import Sub

__all__ = ["ROLES", "work_of_files", "work_of_target"]

ROLES = {"l": "L", "r": "R", "g": "G", "b": "B", "ha": "Ha", "oiii": "OIII", "sii": "SII", "rgb": "RGB"}
"""What a master may be in a picture, by the word of the command line."""
_OF_FILTER = {**ROLES, "v": "V", "i": "I", "hb": "Hb", "nii": "NII"}
"""What a filter is in a picture, by its key."""
_SAME_PX = 0.1
"""Images closer than this at their corners lie on one grid: they are taken as they are."""


def work_of_target(session: Session, state: RunState, name: str) -> PictureWork:
    """The picture of a target of a run.

    Raises
    ------
    UsageError, LerarError
        when its masters make no picture.
    """
    target, groups = state.targets[name], {k: g for k, g in state.groups.items() if g.target == name}
    assert target.canvas is not None
    filters = {row["group"]: row.get("filter") or "" for row in state.frames}
    known, notes = _channels(groups, filters)
    work = _with_recipe(
        session, PictureWork(target=name, canvas=target.canvas, taken=tuple(state.groups)), known, notes
    )
    assert work.recipe is not None
    used = {channel.group for mix in work.recipe.mixes for channel in mix.channels}
    for group in used:
        _check_whole(session, group, groups[group].master)
    widths = [
        np.median([row["fwhm_px"] for row in state.frames if row["group"] == group and row.get("fwhm_px")] or [3.0])
        for group in used
    ]
    first = (work.recipe.luminance or work.recipe.colors[0]).channels[0].group
    lnref = (groups[first].lnref, session.out / f"{lnref_name(first)}.fits") if groups[first].lnref else None
    facts = header_facts(session.store, state, first)
    return dataclasses.replace(
        work,
        fwhm_px=round(float(max(widths)), 3),
        saturation=tuple(_saturation(session.store, groups, mix) for mix in work.recipe.mixes),
        cards=_cards(facts, target.canvas.origin_yx),
        bottom_up=facts.get("row_order") == "BOTTOM-UP",
        lnref=lnref,
    )


def work_of_files(session: Session, files: Mapping[str, Path]) -> PictureWork:
    """A picture of FITS masters, by role: on the grid of the luminance, or of the first.

    Raises
    ------
    UsageError
        for a file that is no image, or too few stars.
    LerarError
        when the images do not show one field.
    """
    pictures = {role: _opened(path) for role, path in files.items()}
    first = next((role for role in ("L", "RGB", "G", "Ha") if role in files), next(iter(files)))
    subs = {role: _measured(session, role, path) for role, path in files.items()}
    canvas = Canvas((0, 0), subs[first].shape)
    transforms = {role: _to(session, subs[first], subs[role], files[role]) for role in files}
    known: dict[str, Channel] = {}
    for role, path in files.items():
        n = pictures[role].n_planes
        key = place.place_key(path, pictures[role].frame, transforms[role], canvas)
        session.store.create_master(key, n, canvas.shape)
        step = place.plan(session.store.url, pictures[role].frame, n, transforms[role], canvas, key, name=role)
        stop_on_failure(session.run(step))
        for c, own in enumerate(("R", "G", "B") if n == 3 else (role,)):
            known[own] = Channel(master=key, channel=c, n_channels=n, group=path.stem)
    header = pictures[first].frame.header
    name = header.object or files[first].stem
    work = _with_recipe(session, PictureWork(target=_plain(name), canvas=canvas), known, [])
    assert work.recipe is not None
    widths = [session.store.measures(s.geometry, s.measure).summary(0)["fwhm_px"] or 3.0 for s in subs.values()]
    cards = {"OBJECT": (header.object or "", "target"), "ROWORDER": (header.row_order or "", "order of the rows")}
    return dataclasses.replace(
        work,
        fwhm_px=round(float(max(widths)), 3),
        saturation=(np.inf,) * len(work.recipe.mixes),
        cards=cards,
        bottom_up=header.row_order == "BOTTOM-UP",
    )


def _with_recipe(session: Session, work: PictureWork, known: Mapping[str, Channel], notes: list[str]) -> PictureWork:
    wanted = session.settings.picture
    formulas = (wanted.red, wanted.green, wanted.blue)
    recipe = make_recipe(known, palette=wanted.palette, formulas=formulas, luminance=wanted.luminance)
    return dataclasses.replace(work, recipe=dataclasses.replace(recipe, notes=tuple(notes)))


# ------------------------------------------------------------------------------------------------------- of a run


def _check_whole(session: Session, group: str, master: str) -> None:
    """Refuse a master that lacks chunks which were integrated: they would be read as parts without data."""
    made = (r for key, r in session.known.items() if key.startswith(f"integrate/{group}/") and r["state"] == "done")
    chunks = {tuple(map(int, r["key"].rpartition("/")[2].split("."))): r["digest"] for r in made}
    there = session.store.has(f"master/{master}/image")
    own = [chunk for chunk, told in chunks.items() if told == digest(master, *chunk)]
    if not there or not all(session.store.has_chunk(master, *chunk) for chunk in own):
        raise StoreError(f"parts of the master {group} are not in the store any more", "lerar stack makes them again")


def _channels(groups: Mapping[str, GroupState], filters: Mapping[str, str]) -> tuple[dict[str, Channel], list[str]]:
    """Channels by what they are in a picture, and what is to be said of masters that are left out."""
    known: dict[str, Channel] = {}
    notes = []
    # Of several masters of one filter, that of the most subs.
    for name, group in sorted(groups.items(), key=lambda item: (-len(item[1].subs), item[0])):
        if group.n_channels == 3:
            roles = ["R", "G", "B"]
        else:
            key = filter_key(filters.get(name, ""))
            roles = [_OF_FILTER.get(key.split(" ")[0], key.replace(" ", "")) or "L"]
        for c, role in enumerate(roles):
            if role in known:
                notes.append(f"{name} is left out: {known[role].group} has more subs of {role}")
                break
            known[role] = Channel(master=group.master, channel=c, n_channels=group.n_channels, group=name)
    if "G" not in known and "V" in known:
        known["G"] = known["V"]  # Johnson's V is what is green in B, V, R
    return known, notes


def _saturation(store: Store, groups: Mapping[str, GroupState], mix: Mix) -> float:
    """Value of a mix from which on it is a lower bound only, ADU; infinite where nothing saturates."""
    total = 0.0
    for share, channel in zip(mix.shares, mix.channels, strict=True):
        table = load_table(store.url, groups[channel.group].table)
        c = channel.channel
        full = (table.saturation - table.sky[:, c]) / table.ln_scale[:, c] + table.sky_level[c]
        total += max(share, 0.0) * float(np.min(full))
    return total


def _cards(facts: Mapping[str, Any], origin_yx: tuple[int, int]) -> dict[str, Any]:
    """Header words of a picture: target, times, WCS moved to the canvas."""
    wcs = dict(facts.get("wcs") or {})
    for word, first in (("CRPIX1", origin_yx[1]), ("CRPIX2", origin_yx[0])):
        if word in wcs:
            wcs[word] = float(wcs[word]) - first
    return {
        "OBJECT": (facts["object"], "target"),
        "DATE-OBS": (facts["date_beg"], "UTC, start of the first sub"),
        "TELESCOP": (facts["telescope"], "telescope"),
        "INSTRUME": (facts["camera"], "camera"),
        "ROWORDER": (facts["row_order"], "order of the rows"),
        **wcs,
        **facts["cards"],
    }


# ----------------------------------------------------------------------------------------------------------- of files


def _opened(path: Path) -> Picture:
    try:
        return open_picture(path)
    except FrameError as error:
        raise UsageError(f"{path}: {error.message}") from error


def _measured(session: Session, role: str, path: Path) -> Sub:
    """Stars of an image."""
    image = measure_reference(session.store, path, session.settings.ingest)
    return Sub(geometry=image.geometry, slot=0, measure=image.measure, shape=image.shape, group=role, path=str(path))


def _to(session: Session, first: Sub, image: Sub, path: Path) -> np.ndarray:
    """Transform from the grid to an image; the unit matrix where they lie on one grid."""
    if image == first:
        return np.eye(3)
    found = match_images(session, "picture", image, first)
    if found is None:
        raise LerarError(
            f"{path.name}: its stars match those of {Path(first.path).name} not", "they must show one field"
        )
    height, width = first.shape
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)])
    moved = corners @ found.T
    apart = np.abs(moved[:, :2] / moved[:, 2:] - corners[:, :2]).max()
    return np.eye(3) if image.shape == first.shape and apart < _SAME_PX else found


def _plain(name: str) -> str:
    """A target's name as a part of a file's."""
    return "".join(c if c.isalnum() or c in " -_+." else "_" for c in name).strip() or "picture"
