"""`lerar picture OUT`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from lerar_dask import settings as s
from lerar_dask.cli import log
from lerar_dask.cli.display import Display, print_json, print_pairs, progress
from lerar_dask.cli.places import needs_folder
from lerar_dask.cli.sources import settings_of
from lerar_dask.cli.text import say
from lerar_dask.products.quantities import duration, size

if TYPE_CHECKING:
    from lerar_dask.pipeline.picture_work import PictureSummary

__all__ = ["picture"]

_GROUPS = {name: Group(name, sort_key=i) for i, name in enumerate(("Picture", "Run", "Slurm"))}


def picture(
    out: Annotated[Path, Parameter(name="OUT")],
    /,
    *,
    l: Path | None = None,  # noqa: E741
    r: Path | None = None,
    g: Path | None = None,
    b: Path | None = None,
    ha: Path | None = None,
    oiii: Path | None = None,
    sii: Path | None = None,
    rgb: Path | None = None,
    config: Path | None = None,
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
    picture: Annotated[s.Picture, Parameter(name="*", group=_GROUPS["Picture"])] = s.Picture(),  # noqa: B008
    run: Annotated[s.Run, Parameter(name="*", group=_GROUPS["Run"])] = s.Run(),  # noqa: B008
    slurm: Annotated[s.Slurm, Parameter(name="*", group=_GROUPS["Slurm"])] = s.Slurm(),  # noqa: B008
) -> int:
    """Make a color picture of the masters that `lerar stack` left, or of FITS masters of any program.

    The linear order: combine the channels, take the sky off, balance the white; then stretch, and join luminance and
    color. A changed setting does again only what depends on it.

    Parameters
    ----------
    out
        The folder that `lerar stack -o` wrote; with masters of one's own, a new folder for the picture.
    l
        FITS master of the luminance; masters that are given are registered to one another, and only they are taken.
    r
        FITS master of red.
    g
        FITS master of green.
    b
        FITS master of blue.
    ha
        FITS master of H-alpha.
    oiii
        FITS master of OIII.
    sii
        FITS master of SII.
    rgb
        FITS master of a color camera, of three planes.
    config
        Settings as TOML; without it, those in OUT/lerar.toml. Flags and environment go before it.
    """
    given = {"L": l, "R": r, "G": g, "B": b, "Ha": ha, "OIII": oiii, "SII": sii, "RGB": rgb}
    files = {role: path for role, path in given.items() if path is not None}
    if not files:
        needs_folder(out)
    from lerar_dask.pipeline.picture import make_pictures
    from lerar_dask.runtime.events import Bus

    settings = settings_of([picture, run, slurm])
    display.log_to_screen()
    if files:
        from lerar_dask.pipeline.picture import check_out

        check_out(out.absolute(), {role: path.absolute() for role, path in files.items()})
    log.log_to(out / "lerar.log")
    bus = Bus()
    with progress(display) as show:
        bus.subscribe(log.log_event)
        bus.subscribe(show)
        summary = make_pictures(out, settings, bus=bus, files=files)
    if display.json:
        print_json("picture", result=_plain(summary))
    elif not display.quiet:
        _print(summary)
    return summary.exit_code


def _print(summary: PictureSummary) -> None:
    from lerar_dask.pipeline.picture_report import told_of_picture

    if summary.did_nothing:
        say("nothing to do: all is there already")
    for work in summary.pictures:
        if work.problem:
            say(f"{work.target}: {work.problem}")
            continue
        say(work.target)
        print_pairs(told_of_picture(work))
        for note in work.recipe.notes if work.recipe else ():
            say(f"note: {note}")
        for path in work.files.values():
            say(f"  {path}")
    say(f"{duration(summary.seconds)}, {size(summary.peak_bytes)} memory")


def _finite(value: Any) -> Any:
    """Values as JSON has them: what is no number is null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(summary: PictureSummary) -> dict[str, object]:
    """The summary as JSON types."""
    rows = [
        {
            "target": w.target,
            "problem": w.problem,
            "facts": _finite(dict(w.facts)),
            "files": {k: str(v) for k, v in w.files.items()},
            "notes": list(w.recipe.notes) if w.recipe else [],
        }
        for w in summary.pictures
    ]
    return {"pictures": rows, "did_nothing": summary.did_nothing, "seconds": summary.seconds}
