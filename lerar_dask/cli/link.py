"""`lerar link NIGHT...`: which dark, flat and bias each light gets, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lerar_dask import settings as s
from lerar_dask.cli.display import Display, print_aside, print_json
from lerar_dask.cli.places import needs_folder
from lerar_dask.cli.sources import settings_of
from lerar_dask.cli.text import say

__all__ = ["link"]


def link(
    nights: Annotated[list[Path], Parameter(name="NIGHT", negative="")],
    /,
    *,
    config: Path | None = None,
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
    rules: Annotated[s.Link, Parameter(name="*", group="Link")] = s.Link(),  # noqa: B008
) -> int:
    """Show which dark, flat and bias each light gets, and why; nothing is written.

    Parameters
    ----------
    nights
        Folders of raw frames.
    config
        Settings as TOML.
    """
    for night in nights:
        needs_folder(night)
    from lerar_dask.pipeline import link as link_nights

    display.log_to_screen()
    links = link_nights(nights, settings_of([rules]))
    rows = links.explain()
    aside = [(str(frame.path), reason) for frame, reason in links.aside]
    if display.json:
        print_json("links", links=rows, aside=aside, notes=list(links.notes))
        return 0
    if not rows:
        say("no lights")
    for row in rows:
        _print_row(row)
    for note in links.notes:
        say(f"note: {note}")
    print_aside(aside)
    return 0


def _print_row(row: Mapping[str, Any]) -> None:
    """Lights of a group that share one link: what they get, why, and what was nearly taken."""
    say(f"{row['group']}, {row['n_lights']} light" + "s" * (row["n_lights"] != 1))
    for line in row["lines"]:
        say(f"  {line}")
    for line in row["near_misses"]:
        say(f"  near miss: {line}")
    for line in row["notes"]:
        say(f"  note: {line}")
    say()
