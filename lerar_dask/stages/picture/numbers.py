"""The few numbers that a picture's tasks share: sky, slope and white of each channel, and the tone curve.

In   what `measure` found, or what was found again in the linear image; settings
Out  `Balance` and `Tone`: small plain values, arguments of tasks
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.errors import LerarError, UsageError
from lerar_dask.kernels.picture import sky as skies
from lerar_dask.kernels.picture.balance import catalog_factors, star_factors
from lerar_dask.kernels.picture.color import LUMINANCE
from lerar_dask.kernels.picture.sky import TILE_PX, Slope
from lerar_dask.kernels.picture.star_colors import SATURATED, below_saturation
from lerar_dask.kernels.picture.stretch import Histogram, auto_histogram
from lerar_dask.settings import Picture
from lerar_dask.stages.picture.measure import Measured
from lerar_dask.stages.picture.recipe import Recipe

__all__ = ["Balance", "Tone", "balance_of", "facts_of", "light_limits", "tone_of"]

_FOG = 1.0
"""Fog from which on SCNR works on its own, in sigma of a pixel."""


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Linear color: (value - sky - slope) * factor."""

    sky: tuple[float, ...]
    """Of colors and luminance, ADU."""
    noise: tuple[float, ...]
    """Sigma of a pixel of the sky."""
    slopes: tuple[Slope, ...] = ()
    """Taken off, one per color; empty: none."""
    factors: tuple[float, ...]
    fill: bool = False
    """Whether channels without data get the light of the others."""
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """What is told of it."""


@dataclass(frozen=True, kw_only=True)
class Tone:
    """How linear color becomes a picture."""

    white: float
    """Value that becomes 1, ADU."""
    curves: tuple[Histogram, ...]
    """One per color, and one of the luminance."""
    kind: str
    """histogram, arcsinh or hyperbolic."""
    strength: float = 0.0
    """Of arcsinh and hyperbolic."""
    green: str = ""
    """Protection of SCNR; empty: none."""
    floor: float = 0.0
    """Luminance of the colors that is noise, where white is 1."""


def balance_of(
    measured: Measured,
    recipe: Recipe,
    settings: Picture,
    shape: tuple[int, int],
    saturation: tuple[float, ...],
    colors: np.ndarray | None = None,
) -> Balance:
    """Sky, slope and white of a picture.

    Parameters
    ----------
    saturation : of each color and the luminance, ADU of the masters; infinite: unknown
    colors : B-V of each star that was measured, by a catalog; NaN: unknown

    Raises
    ------
    LerarError
        where no part of the canvas has data in all channels.
    """
    n, n_colors = len(recipe.mixes), len(recipe.colors)
    tiles = measured.tiles[:, :, :n]
    where = _region(settings.background_region, tiles) if settings.background_region else skies.sky_tiles(tiles)
    if not where.any():
        raise LerarError(
            "the masters have no tile of 64 px in common that could be sky", "give --background-region x0,y0,x1,y1"
        )
    level, noise = skies.sky_of(tiles, where)
    facts: dict[str, Any] = {"sky_adu": level.tolist(), "noise_adu": noise.tolist(), "sky_tiles": int(where.sum())}
    slopes = _slopes(tiles[:, :, :n_colors, 0], where, shape, settings.degree)
    facts["slopes_sigma"] = [s.range / max(sigma, 1e-30) for s, sigma in zip(slopes, noise, strict=False)]
    factors, told = _factors(measured.stars, recipe, settings, saturation, colors)
    return Balance(
        sky=tuple(map(float, level)),
        noise=tuple(map(float, noise)),
        slopes=tuple(slopes) if settings.degree else (),
        factors=(*factors, *[1.0] * (n - n_colors)),
        fill=settings.uncovered == "gray",
        facts={**facts, **told},
    )


def facts_of(tiles: np.ndarray, recipe: Recipe) -> dict[str, Any]:
    """Sky and fog of an image by its tiles, in words that the report takes."""
    n = len(recipe.mixes)
    where = skies.sky_tiles(tiles[:, :, :n])
    level, noise = skies.sky_of(tiles[:, :, :n], where)
    facts: dict[str, Any] = {"sky": level.tolist(), "noise": noise.tolist()}
    if len(recipe.colors) == 3:
        facts["fog_sky"] = skies.fog_of(tiles[:, :, n], where)
        facts["fog_nebula"] = skies.fog_of(tiles[:, :, n], skies.nebula_tiles(tiles[:, :, :n], where))
    return facts


def tone_of(
    tiles: np.ndarray, recipe: Recipe, balance: Balance, settings: Picture, saturation: tuple[float, ...]
) -> Tone:
    """Tone curve of a linear image.

    Parameters
    ----------
    tiles : of the linear image
    """
    n, n_colors = len(recipe.mixes), len(recipe.colors)
    white = _white(tiles[:, :, :n_colors], balance, saturation[:n_colors])
    level = np.array([skies.level_of(tiles[:, :, c]) for c in range(n)]) / white
    unlinked = settings.stretch == "unlinked" or (settings.stretch == "auto" and recipe.palette in ("sho", "hoo"))
    colors = level[:n_colors] if unlinked else np.repeat(level[:n_colors].mean(axis=0)[None], n_colors, axis=0)
    curves = [_curve(m, s, settings) for m, s in (*colors, *level[n_colors:])]
    facts = facts_of(tiles, recipe)
    fog = max((v for v in (facts.get("fog_sky", 0.0), facts.get("fog_nebula", 0.0)) if np.isfinite(v)), default=0.0)
    green = settings.green_removal
    if green == "auto":
        green = "average" if recipe.palette == "rgb" and n_colors == 3 and fog > _FOG else "none"  # type: ignore[assignment]
    kind = settings.stretch if settings.stretch in ("arcsinh", "hyperbolic") else "histogram"
    return Tone(
        white=white,
        curves=tuple(curves),
        kind=kind,
        strength=_strength(kind, float(level[:n_colors, 1].mean()), settings.sky_shade),
        green="" if green == "none" else green,
        floor=float(
            3 * np.mean([s * f for s, f in zip(balance.noise[:n_colors], balance.factors, strict=False)]) / white
        ),
    )


def light_limits(recipe: Recipe, balance: Balance, saturation: tuple[float, ...]) -> tuple[float, float]:
    """Sigma of a pixel of the linear luminance's sky, and the value from which on it is a lower bound only."""
    full = [(s - b) * f for s, b, f in zip(saturation, balance.sky, balance.factors, strict=True)]
    if recipe.luminance or len(recipe.colors) == 1:
        return balance.noise[-1] * balance.factors[-1], SATURATED * full[-1]
    shares = np.array(LUMINANCE) * np.array(balance.noise) * np.array(balance.factors)
    return float(np.sqrt((shares**2).sum())), SATURATED * min(full)


# ------------------------------------------------------------------------------------------------------------- sky


def _region(text: str, tiles: np.ndarray) -> np.ndarray:
    """Tiles of which most lies in a rectangle."""
    try:
        x0, y0, x1, y1 = (float(v) for v in text.split(","))
    except ValueError as error:
        raise UsageError(f"background_region {text!r} is no rectangle", 'four numbers, as "100,200,400,500"') from error
    inside = skies.tiles_inside(tiles, (x0, y0, x1, y1))
    if not inside.any():
        raise UsageError(
            f"background_region {text!r} holds no tile of {TILE_PX} px with data in all channels", "give a larger one"
        )
    return inside


def _slopes(middle: np.ndarray, where: np.ndarray, shape: tuple[int, int], degree: int) -> list[Slope]:
    """Slope of each color against the mean of the colors, over the sky's tiles; a plane where none is to be taken off."""
    if middle.shape[-1] < 2 or where.sum() < 12:
        return []
    free = np.isfinite(middle).all(axis=-1)
    mean = middle.mean(axis=-1)
    least = np.quantile(mean[free], 0.5)
    free &= mean <= least
    return [skies.fit_slope(middle[..., c] - mean, free, shape, max(degree, 1)) for c in range(middle.shape[-1])]


# ----------------------------------------------------------------------------------------------------------- white


def _factors(
    stars: np.ndarray, recipe: Recipe, settings: Picture, saturation: tuple[float, ...], colors: np.ndarray | None
) -> tuple[tuple[float, ...], dict[str, Any]]:
    """Factors of the colors, and what is told of them."""
    n, n_colors = len(recipe.mixes), len(recipe.colors)
    if settings.white_factors:
        return _given(settings.white_factors, n_colors), {"white": "given"}
    if n_colors < 3 or settings.white == "none":
        return (1.0,) * n_colors, {"white": "none"}
    whole = below_saturation(stars, n, saturation)
    fluxes = stars[whole, 2 : 2 + n_colors]
    by: str = settings.white
    if colors is None:
        factors, scatter, used = star_factors(fluxes, white=settings.white)
    else:
        factors, scatter, used = catalog_factors(fluxes, colors[whole], white=settings.white)
        by = f"{settings.white}, catalog"
    told = {"white": by, "white_stars": used, "white_scatter_mag": scatter, "white_factors": factors.tolist()}
    return tuple(map(float, factors)), told


def _given(text: str, n_colors: int) -> tuple[float, ...]:
    try:
        factors = tuple(float(v) for v in text.split(","))
    except ValueError as error:
        raise UsageError(f"white_factors {text!r} are no numbers", 'as "1.2,1,1.4"') from error
    if len(factors) != n_colors or min(factors) <= 0:
        raise UsageError(f"white_factors {text!r}: {n_colors} factors above 0 are needed", 'as "1.2,1,1.4"')
    return factors


def _white(tiles: np.ndarray, balance: Balance, saturation: tuple[float, ...]) -> float:
    """The value that is white: where the first channel saturates, so that no star is magenta; else the brightest."""
    full = [(s - b) * f for s, b, f in zip(saturation, balance.sky, balance.factors, strict=False)]
    if np.isfinite(full).all():
        return float(min(full))
    with np.errstate(invalid="ignore"):
        tops = np.nanmax(tiles[..., 2], axis=(0, 1))
    return float(max(min(tops.min(), *full), 1e-6))


# ------------------------------------------------------------------------------------------------------------ tone


def _curve(middle: float, sigma: float, settings: Picture) -> Histogram:
    if settings.stretch == "manual":
        return Histogram(shadows=settings.shadows, midtones=settings.midtones, highlights=settings.highlights)
    return auto_histogram(middle, sigma / MAD_TO_SIGMA, target=settings.sky_shade, lowest=-np.inf)


def _strength(kind: str, sigma: float, shade: float) -> float:
    """Strength of a curve that brings 2.8 sigma over black to the sky's shade."""
    if kind == "histogram":
        return 0.0
    over = max(2.8 * sigma, 1e-9)
    low, high = 0.0, 40.0  # of the logarithm
    for _ in range(60):
        middle = 0.5 * (low + high)
        b = np.expm1(middle) + 1e-9
        value = np.arcsinh(b * over) / np.arcsinh(b) if kind == "arcsinh" else np.log1p(b * over) / np.log1p(b)
        low, high = (middle, high) if value < shade else (low, middle)
    return float(np.expm1(0.5 * (low + high)))
