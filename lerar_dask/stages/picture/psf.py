"""PSF: the point spread function of a picture's luminance, over the field.

Reads   picture/<linear key>/image at the stars that `measure` found
Writes  picture/<key>/psf: one row per star fitted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.grid import Canvas, Window
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.picture.color import luminance_of
from lerar_dask.kernels.picture.psf import Model, Psf, fit_star, usual_psf
from lerar_dask.kernels.picture.star_colors import below_saturation
from lerar_dask.settings import Picture
from lerar_dask.stages.picture.pixels import step_window
from lerar_dask.stages.picture.recipe import Recipe
from lerar_dask.store.access import open_store
from lerar_dask.tasks import Step, Task

__all__ = ["PsfField", "light_of", "load", "plan", "psf_key"]

_ZONES = 3
"""Zones along each side of the canvas."""
_PER_ZONE = 14
"""Stars that are fitted in a zone, of those of middle brightness."""
_LEAST = 8
"""Stars from which on a zone has a PSF of its own."""


@dataclass(frozen=True, kw_only=True)
class PsfField:
    """PSFs in zones of a canvas."""

    zones: tuple[tuple[Psf, ...], ...]
    """Rows of zones."""
    usual: Psf
    shape: tuple[int, int]

    def at(self, y: float, x: float) -> Psf:
        """The PSF at a place: between the middles of zones by their shares."""
        rows, columns = (_shares(v, n) for v, n in zip((y, x), self.shape, strict=True))
        table = np.zeros(4)
        for j, wy in rows:
            for i, wx in columns:
                table += wy * wx * self.zones[j][i].numbers
        return Psf.of_numbers(table, stars=self.usual.stars)


def psf_key(linear_key: str, settings: Picture) -> str:
    """Identity of fits."""
    return digest("picture psf", code_of(__name__), linear_key, settings.psf_model)[:20]


def plan(
    store_url: str,
    measured_key: str,
    linear_key: str,
    recipe: Recipe,
    canvas: Canvas,
    fwhm_px: float,
    saturation: tuple[float, ...],
    settings: Picture,
    *,
    name: str,
) -> Step:
    """One task."""
    key = psf_key(linear_key, settings)
    arguments = {
        "store_url": store_url,
        "measured_key": measured_key,
        "linear_key": linear_key,
        "recipe": recipe,
        "canvas": canvas,
        "fwhm_px": fwhm_px,
        "saturation": saturation,
        "model": settings.psf_model,
        "key": key,
    }
    task = Task(key=f"color/{name}/psf", digest=digest(key), function=fit_stars, arguments=arguments)
    return Step(
        name="picture: PSF",
        tasks=[task],
        task_bytes=64 << 20,
        is_there=lambda store, _: store.has(f"picture/{key}/psf"),
    )


def fit_stars(
    *,
    store_url: str,
    measured_key: str,
    linear_key: str,
    recipe: Recipe,
    canvas: Canvas,
    fwhm_px: float,
    saturation: tuple[float, ...],
    model: Model,
    key: str,
) -> dict[str, Any]:
    """Fit the stars of middle brightness, zone by zone."""
    store = open_store(store_url)
    stars = store.read_array(f"picture/{measured_key}/stars")
    stars = stars.reshape(-1, stars.shape[-1])
    stars = stars[np.isfinite(stars[:, 0])]
    stars = stars[below_saturation(stars, len(recipe.mixes), saturation)]
    half = max(6, int(np.ceil(3.5 * fwhm_px)))
    rows = []
    for chosen in _by_zone(stars, canvas.shape):
        for x, y in chosen[:, :2]:
            window = Window(int(y) - half, int(y) + half + 1, int(x) - half, int(x) + half + 1)
            pixels = step_window(store_url, linear_key, len(recipe.mixes), window, canvas.shape)
            found = fit_star(light_of(pixels, recipe), model=model)
            if found is not None:
                rows.append((x, y, found.fwhm_x_px, found.fwhm_y_px, found.theta, 1 / found.beta))
    table = np.array(rows, np.float64).reshape(-1, 6)
    store.write_array(f"picture/{key}/psf", table, dims=("star", "psf_column"))
    return {"n_stars": len(rows)}


def light_of(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Luminance of linear pixels: that of the recipe, else that of the colors, else the only channel."""
    if recipe.luminance:
        return pixels[-1]
    return luminance_of(pixels[:3]) if len(recipe.colors) == 3 else pixels[0]


def load(store_url: str, key: str, shape: tuple[int, int]) -> PsfField | None:
    """PSFs over the field; None where too few stars were fitted."""
    table = open_store(store_url).read_array(f"picture/{key}/psf")
    usual = usual_psf([_psf(row) for row in table]) if len(table) >= _LEAST else None
    if usual is None:
        return None
    zones = [usual_psf([_psf(r) for r in own]) if len(own) >= _LEAST else None for own in _split(table, shape)]
    grid = [tuple(z or usual for z in zones[j * _ZONES : (j + 1) * _ZONES]) for j in range(_ZONES)]
    return PsfField(zones=tuple(grid), usual=usual, shape=shape)


def _psf(row: np.ndarray) -> Psf:
    fx, fy, theta, inverse = (float(v) for v in row[2:6])
    return Psf(fwhm_x_px=fx, fwhm_y_px=fy, theta=theta, beta=1 / inverse if inverse > 1e-9 else float("inf"))


def _split(table: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """Rows (x, y, ...) by zone, row after row."""
    j = np.clip(table[:, 1] * _ZONES // shape[0], 0, _ZONES - 1).astype(int)
    i = np.clip(table[:, 0] * _ZONES // shape[1], 0, _ZONES - 1).astype(int)
    return [table[(j == a) & (i == b)] for a in range(_ZONES) for b in range(_ZONES)]


def _by_zone(stars: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """Stars of each zone to be fitted: the brightest but for the very brightest tenth."""
    chosen = []
    for own in _split(stars, shape):
        order = np.argsort(-own[:, -1], kind="stable")
        skipped = len(own) // 10
        chosen.append(own[order[skipped : skipped + _PER_ZONE]])
    return chosen


def _shares(value: float, side: int) -> Sequence[tuple[int, float]]:
    """Zones about a place and their shares."""
    at = min(max(value / side * _ZONES - 0.5, 0.0), _ZONES - 1.0)
    low = min(int(at), _ZONES - 2)
    return [(low, 1 - (at - low)), (low + 1, at - low)]
