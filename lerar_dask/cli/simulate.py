"""`lerar simulate DIR`: a night with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lerar_dask.cli.display import Display, print_json
from lerar_dask.cli.text import say

__all__ = ["simulate"]


def simulate(
    folder: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    kind: Literal["plain", "moon", "cirrus", "narrowband", "partial", "steady"] = "plain",
    subs: int = 18,
    width: int = 1200,
    height: int = 900,
    seed: int = 11,
    cfa: Literal["RGGB", "BGGR", "GRBG", "GBRG"] | None = None,
    darks: int = 10,
    flats: int = 10,
    bias: int = 10,
    exposure_s: float = 120.0,
    seeing: float = 1.0,
    filter_name: Annotated[str, Parameter(name="--filter")] = "L",
    filters: str = "",
    target: str = "Sim",
    display: Annotated[Display, Parameter(name="*")] = Display(),  # noqa: B008
) -> int:
    """Make a night of raw frames with known truth: lights, darks, flats, bias, and what was put into them.

    Parameters
    ----------
    folder
        Folder for the night; made if missing, must be empty.
    kind
        Night: plain, under the moon, with cirrus, narrowband, partly covered, or a gradient fixed to the horizon.
    subs
        Number of lights.
    width
        Columns, in pixels.
    height
        Rows, in pixels.
    seed
        The same seed gives the same bytes.
    cfa
        Color pattern of the sensor; without it the camera is monochrome.
    darks
        Number of darks.
    flats
        Number of flats.
    bias
        Number of bias frames.
    exposure_s
        Exposure of a light, in seconds.
    seeing
        FWHM of the stars relative to 2.6 to 3.8 pixels; 0.5 makes a night for drizzle.
    filter_name
        FILTER in the headers.
    filters
        Several filters, as "L,R,G,B" or "Ha,OIII,SII": a field with colors, so many lights through each.
    target
        OBJECT in the headers.
    """
    from lerar_dask.simulate import simulate as simulate_night
    from lerar_dask.simulate import simulate_colors

    if filters:
        names = [name.strip() for name in filters.split(",")]
        shape = (height, width)
        made = simulate_colors(
            folder,
            filters=names,
            n=subs,
            shape=shape,
            seed=seed,
            target=target,
            exposure_s=exposure_s,
            n_darks=darks,
            n_flats=flats,
        )
        return _told(
            made, f"{subs} lights and {flats} flats through each of {', '.join(names)}, {darks} darks", shape, display
        )

    made = simulate_night(
        folder,
        kind=kind,
        n=subs,
        shape=(height, width),
        seed=seed,
        cfa=cfa,
        n_darks=darks,
        n_flats=flats,
        n_bias=bias,
        filter_name=filter_name,
        target=target,
        exposure_s=exposure_s,
        seeing=seeing,
    )
    what = f"{subs} lights, {darks} darks, {flats} flats, {bias} bias"
    return _told(made, what, (height, width), display)


def _told(made: Path, what: str, shape: tuple[int, int], display: Display) -> int:
    """Say what was made."""
    if display.json:
        print_json("simulated", folder=made)
    elif not display.quiet:
        say(f"{what} of {shape[1]} x {shape[0]} px in {made}")
        say(f"next: lerar stack {made} -o {made}-stack")
    return 0
