"""`lerar mosaic MASTERS... -o OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from lerar_dask import settings as s
from lerar_dask.cli import log
from lerar_dask.cli.display import Display, progress
from lerar_dask.cli.sources import settings_of
from lerar_dask.cli.stack import tell_of_compiling, tell_summary
from lerar_dask.errors import UsageError
from lerar_dask.runtime.memory import check_address_space, parse_bytes

__all__ = ["mosaic"]

_GROUPS = {
    name: Group(name, sort_key=i) for i, name in enumerate(("Register", "Normalize", "Products", "Run", "Slurm"))
}


def mosaic(
    masters: Annotated[list[Path], Parameter(name="MASTERS")],
    /,
    *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    name: str = "",
    config: Path | None = None,
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
    register: Annotated[s.Register, Parameter(name="*", group=_GROUPS["Register"])] = s.Register(),  # noqa: B008
    normalize: Annotated[s.Normalize, Parameter(name="*", group=_GROUPS["Normalize"])] = s.Normalize(),  # noqa: B008
    products: Annotated[s.Products, Parameter(name="*", group=_GROUPS["Products"])] = s.Products(),  # noqa: B008
    run: Annotated[s.Run, Parameter(name="*", group=_GROUPS["Run"])] = s.Run(),  # noqa: B008
    slurm: Annotated[s.Slurm, Parameter(name="*", group=_GROUPS["Slurm"])] = s.Slurm(),  # noqa: B008
) -> int:
    """Join masters that were made apart, of any program, to a mosaic without seams: one for each filter, on one grid.

    The panels are registered together by their stars, or by their plate solutions where they do not overlap, brought to
    one scale and one sky over all overlaps at once, and weighted by their noise. Panels of a color camera become a mosaic
    for each color: `lerar picture OUT` joins them. Raw panels need none of this: `lerar stack` takes all their subs
    in one go, and knows each one's noise.

    Parameters
    ----------
    masters
        FITS images of one plane or of three colors, or folders of them.
    out
        Folder for the results; made if missing.
    name
        Name of the target; without it, what the masters' headers have in common.
    config
        Settings as TOML; flags and environment go before it.
    """
    check_address_space()
    if not masters:
        raise UsageError("which masters? No file was given", "lerar mosaic PANEL1.fits PANEL2.fits -o OUT")
    if out is None:
        raise UsageError("where should the results go? No folder was given", "lerar mosaic MASTERS -o OUT")
    settings = settings_of([register, normalize, products, run, slurm])
    if settings.run.memory:
        parse_bytes(settings.run.memory)  # what is no size is said before a file is read
    from lerar_dask.pipeline.mosaic import make_mosaic
    from lerar_dask.runtime.events import Bus

    display.log_to_screen()
    log.log_to(out / "lerar.log")
    bus = Bus()
    with progress(display) as show:
        bus.subscribe(log.log_event)
        bus.subscribe(show)
        tell_of_compiling(bus)
        summary = make_mosaic(masters, out, settings, bus=bus, name=name)
    tell_summary(summary, display)
    return summary.exit_code
