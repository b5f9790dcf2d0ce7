"""A mosaic of masters that were made apart: their planes are stacked as subs are, without calibration and rejection.

So they are registered together (stars, as a bundle; by their plate solutions where panels do not overlap), brought to one
scale and sky by the local normalization of all overlaps at once, and weighted by their noise.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from lerar_dask.errors import FrameError, UsageError
from lerar_dask.frames.frame import Frame
from lerar_dask.frames.header import Header
from lerar_dask.frames.picture import Picture, open_picture
from lerar_dask.frames.reader import cards_of
from lerar_dask.frames.scan import probe
from lerar_dask.identity import digest
from lerar_dask.link.groups import safe_name
from lerar_dask.link.meaning import filter_key
from lerar_dask.pipeline.prepare import survey_frames
from lerar_dask.pipeline.stack import check_out, stack_night
from lerar_dask.products.panels import write_panel
from lerar_dask.products.picture_files import STATE_CARD
from lerar_dask.run import Run
from lerar_dask.runtime import events
from lerar_dask.settings import Settings
from lerar_dask.summary import Summary

__all__ = ["make_mosaic"]

_FITS = (".fits", ".fit", ".fts", ".fz", ".gz")
_PANEL = re.compile(r"[\W_]*\b(panel|pane|tile|part|p)?[\W_]*$", re.IGNORECASE)
"""What stands between a target's name and the number of a panel."""


def make_mosaic(masters: Sequence[Path], out: Path, settings: Settings, *, bus: events.Bus, name: str = "") -> Summary:
    """Join masters to a mosaic, one for each filter, all on one grid.

    Parameters
    ----------
    masters : FITS images of one plane or of three colors, or folders of them
    name : of the target; empty: what the masters' headers have in common

    Raises
    ------
    LerarError
        when the mosaic cannot be made.
    """
    out = Path(out).absolute()
    settings = _for_panels(settings)
    files = _files_of(masters, out)
    check_out(out, settings)
    pictures, troubles = _opened(files)
    if len(pictures) < 2:
        reason = f" ({troubles[0].path.name}: {troubles[0].problem})" if troubles else ""
        raise UsageError(f"a mosaic takes two masters or more; of the files given, {len(pictures)} can be used{reason}")
    name = name or _name_of([picture.frame.header.object or "" for picture in pictures])
    written, unreadable = _write_panels(pictures, out / "panels")
    panels = [_as_panel(probe(path), name, origin) for path, origin in written.items()]
    night = survey_frames([*panels, *troubles, *unreadable], settings)
    return stack_night(night, [out / "panels"], out, settings, bus=bus)


def _for_panels(settings: Settings) -> Settings:
    """Masters are calibrated, free of trails, and each is all that there is of its place."""
    return dataclasses.replace(
        settings,
        ingest=dataclasses.replace(settings.ingest, cosmetic=False),
        integrate=dataclasses.replace(settings.integrate, reject="none", trails=False),
    )


def _files_of(masters: Sequence[Path], out: Path) -> list[Path]:
    """Files that are given, and those in folders that are given; of a folder of ours the masters alone.

    Raises
    ------
    UsageError
        when one is not there, or lies in OUT.
    """
    files: list[Path] = []
    for given in masters:
        if (given / "lerar.toml").is_file():
            files += [given / f"{name}.fits" for name in Run.open(given).state.groups]
        elif given.is_dir():
            files += sorted(p for p in given.iterdir() if p.suffix.lower() in _FITS and not p.name.startswith("."))
        elif given.exists():
            files.append(given)
        else:
            raise UsageError(f"{given}: no such file")
    unique = list(dict.fromkeys(Path(os.path.abspath(path)) for path in files))
    if inside := [path for path in unique if path.parent == out]:
        raise UsageError(f"{inside[0]} lies in the folder of the results", "give another folder with -o")
    return unique


def _opened(files: Sequence[Path]) -> tuple[list[Picture], list[Frame]]:
    """Images that can be used, and others with their problem."""
    pictures, troubles = [], []
    for path in files:
        try:
            picture = open_picture(path)
            if _is_stretched(picture.frame):
                raise FrameError("it is stretched: a mosaic is made of linear masters, and stretched last")
            pictures.append(picture)
        except FrameError as error:
            frame = probe(path)
            troubles.append(dataclasses.replace(frame, problem=error.message))
    return pictures, troubles


def _is_stretched(frame: Frame) -> bool:
    """Whether the header says so, as pictures of ours do."""
    return any(card.startswith(f"{STATE_CARD:8}=") and "stretched" in card[:40] for card in cards_of(frame))


def _name_of(names: Sequence[str]) -> str:
    """What the names of panels have in common, without the beginning of a number that tells them apart."""
    told = sorted({name.strip() for name in names if name.strip()})
    if len(told) < 2:
        return safe_name(told[0]) if told else "mosaic"
    common = told[0]
    while not all(name.startswith(common) for name in told):
        common = common[:-1]
    if any(name[len(common) : len(common) + 1].isdigit() for name in told):
        common = common.rstrip("0123456789")
    return safe_name(_PANEL.sub("", common)) or "mosaic"


def _write_panels(pictures: Sequence[Picture], folder: Path) -> tuple[dict[Path, Path], list[Frame]]:
    """Each plane as a file of one size, unless it is there: the master that each is of; and masters that cannot be read."""
    shape = (max(p.frame.shape[0] for p in pictures), max(p.frame.shape[1] for p in pictures))
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[Path, Path] = {}
    unreadable = []
    for picture in pictures:
        frame = picture.frame
        of = digest("panel", str(frame.path), frame.size, frame.mtime_ns, shape)[:8]
        colors = ("R", "G", "B") if picture.n_planes == 3 else ("",)
        stem = frame.path.name.split(".")[0]
        paths = [folder / ("_".join(part for part in (stem, color, of) if part) + ".fits") for color in colors]
        try:
            for plane, path in enumerate(paths):
                if not path.exists():
                    write_panel(path, picture, plane, shape, colors[plane] or frame.header.filter or "")
        except FrameError as error:
            unreadable.append(dataclasses.replace(frame, problem=error.message))
            continue
        written |= dict.fromkeys(paths, frame.path)
    for stale in set(folder.glob("*.fits")) - set(written):
        stale.unlink()
    return written, unreadable


def _as_panel(panel: Frame, name: str, origin: Path) -> Frame:
    """The frame of a panel's file, as a light of the mosaic."""
    known = panel.header
    header = Header(
        kind="light",
        object=name,
        filter=filter_key(known.filter) and known.filter,
        exposure_s=known.exposure_s,
        start=known.start,
        start_unix=known.start_unix,
        telescope=known.telescope,
        pixel_um=known.pixel_um,
        focal_mm=known.focal_mm,
        scale_arcsec_px=known.scale_arcsec_px,
        wcs=known.wcs,
        row_order=known.row_order,
        saturation_adu=known.saturation_adu,
        calibrated="BDF",
        sources={"kind": f"panel of {origin.name}", "calibrated": "panel"},
    )
    return dataclasses.replace(panel, header=header)
