"""What a picture is made of: which channels of which masters, and in what shares.

In   names of filters, a palette or formulas as "0.8*Ha + 0.2*SII"
Out  a recipe that tasks take as their argument
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lerar_dask.errors import LerarError, UsageError

__all__ = ["PALETTES", "Channel", "Mix", "Recipe", "make_recipe"]

PALETTES = {
    "rgb": ("R", "G", "B"),
    "sho": ("SII", "Ha", "OIII"),
    "hoo": ("Ha", "OIII", "OIII"),
}
"""Filters of red, green and blue."""
_TERM = re.compile(r"\s*([+-])?\s*(?:(\d+(?:\.\d*)?|\.\d+)\s*\*\s*)?([A-Za-z][A-Za-z0-9]*)\s*")


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One channel of a master."""

    master: str
    """Key in the store."""
    channel: int
    n_channels: int
    group: str
    """Name, for people."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Channels in shares."""

    shares: tuple[float, ...]
    channels: tuple[Channel, ...]

    @property
    def text(self) -> str:
        """In words."""
        one = len(self.shares) == 1 and self.shares[0] == 1
        return " + ".join(
            c.group if one else f"{s:g} {c.group}" for s, c in zip(self.shares, self.channels, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The channels of a picture."""

    colors: tuple[Mix, ...]
    """Red, green, blue; or one, of a gray picture."""
    luminance: Mix | None = None
    palette: str = "rgb"
    """rgb, sho, hoo, or gray."""
    notes: tuple[str, ...] = field(default=())

    @property
    def mixes(self) -> tuple[Mix, ...]:
        """Colors, and luminance behind them."""
        return (*self.colors, self.luminance) if self.luminance else self.colors

    @property
    def n_measured(self) -> int:
        """Channels whose tiles are measured: colors and luminance, and of three colors G - (R + B) / 2."""
        return len(self.mixes) + (len(self.colors) == 3)

    @property
    def masters(self) -> dict[str, int]:
        """Keys of all masters, with their numbers of channels."""
        return {c.master: c.n_channels for mix in self.mixes for c in mix.channels}


def make_recipe(
    known: Mapping[str, Channel], *, palette: str = "auto", formulas: Sequence[str] = ("", "", ""), luminance: str = ""
) -> Recipe:
    """A recipe from the masters that there are.

    Parameters
    ----------
    known : channels by role: L, R, G, B, Ha, OIII, SII, or another filter's key
    palette : auto, rgb, sho, hoo, gray
    formulas : for red, green and blue, each in place of the palette's filter where it is not empty
    luminance : formula; empty: L where there is one and the palette is rgb; `none`

    Raises
    ------
    UsageError
        for a formula that names no master, or a palette without its masters.
    LerarError
        when no picture can be made of what there is.
    """
    chosen = _palette(known, palette) if not all(formulas) else "own"
    if luminance == "none":
        light = None
    elif luminance:
        light = _mix(luminance, known)
    else:
        light = _mix("L", known) if "L" in known and chosen in ("rgb", "own") else None
    if chosen == "gray":
        name = next((role for role in ("L", "Ha", "G") if role in known), min(known))
        return Recipe(colors=(_mix(name, known),), palette="gray")
    filters = PALETTES.get(chosen, ("", "", ""))
    mixes = tuple(_mix(own or usual, known) for own, usual in zip(formulas, filters, strict=True))
    return Recipe(colors=mixes, luminance=light, palette="rgb" if chosen == "own" else chosen)


def _palette(known: Mapping[str, Channel], palette: str) -> str:
    """The palette for what there is."""
    if palette == "auto":
        for name in PALETTES:
            if all(role in known for role in PALETTES[name]):
                return name
        colors = [role for role in ("R", "G", "B", "Ha", "OIII", "SII") if role in known]
        if len(known) == 1 or not colors:
            return "gray"
        missing = [role for role in PALETTES["rgb"] if role not in known]
        raise LerarError(
            f"no color picture can be made of {', '.join(sorted(known))}: {' and '.join(missing)} missing",
            'give formulas, as --red Ha --green "0.5*Ha + 0.5*OIII" --blue OIII, or --palette gray',
        )
    if palette != "gray" and (missing := [role for role in PALETTES[palette] if role not in known]):
        raise UsageError(
            f"--palette {palette} needs {', '.join(sorted(set(missing)))}", f"there is {', '.join(sorted(known))}"
        )
    return palette


def _mix(formula: str, known: Mapping[str, Channel]) -> Mix:
    """Channels and shares of a formula."""
    lower = {name.lower(): name for name in known}
    shares, channels, at = [], [], 0
    while at < len(formula):
        term = _TERM.match(formula, at)
        if term is None or term.end() == at or (at > 0 and not term[1]):
            raise UsageError(
                f"{formula!r} is no mix of filters", 'names with factors, as "0.8*Ha + 0.2*SII" or "Ha - 0.1*R"'
            )
        if term[3].lower() not in lower:
            raise UsageError(f"no master is of {term[3]}", f"there is {', '.join(sorted(known))}")
        shares.append(float(term[2] or 1.0) * (-1 if term[1] == "-" else 1))
        channels.append(known[lower[term[3].lower()]])
        at = term.end()
    if not channels:
        raise UsageError("a formula without a filter", 'as "0.8*Ha + 0.2*SII"')
    return Mix(shares=tuple(shares), channels=tuple(channels))
