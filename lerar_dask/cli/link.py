"""`lerar link NIGHT...`: which dark, flat and bias each light gets, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lerar_dask import settings as s
from lerar_dask.cli.display import Display, print_json
from lerar_dask.cli.sources import settings_of
from lerar_dask.errors import UsageError

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
        if not night.is_dir():
            raise UsageError(f"{night}: " + ("not a folder" if night.exists() else "no such folder"))
    from lerar_dask.pipeline import link as link_nights

    display.log_to_screen()
    links = link_nights(nights, settings_of([rules]))
    lines = links.explain()
    if display.json:
        print_json("links", lines=lines)
    else:
        print(lines if isinstance(lines, str) else "\n".join(lines))
    return 0
