"""Measure: what the masters of a picture tell of their sky and their stars, chunk by chunk.

Reads   master/<key>/image of all masters of the recipe
Writes  picture/<key>/tiles and picture/<key>/stars: one chunk of each per task
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lerar_dask.grid import CHUNK_SHAPE, Canvas
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.picture.sky import tile_statistics
from lerar_dask.kernels.picture.star_colors import STAR_ROOM, measure_colors, star_reach_px
from lerar_dask.stages.picture.chunks import has_tiles, prepare_tiles, tasks_by_chunk
from lerar_dask.stages.picture.pixels import grown, mixed_window
from lerar_dask.stages.picture.recipe import Recipe
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step

__all__ = ["Measured", "load", "measure_key", "plan", "prepare"]


@dataclass(frozen=True)
class Measured:
    """What all tasks together found."""

    tiles: np.ndarray
    """(ty, tx, channel, 3) float32: median, sigma, largest value; channels: colors, luminance, difference."""
    stars: np.ndarray
    """(n, 2 + 2 channels) float64: x, y, fluxes, largest values."""


def measure_key(recipe: Recipe, canvas: Canvas, fwhm_px: float) -> str:
    """Identity of what is measured."""
    return digest("picture measure", code_of(__name__), recipe, canvas, fwhm_px)[:20]


def prepare(store: Store, key: str, recipe: Recipe, canvas: Canvas) -> None:
    """Make the arrays (driver only)."""
    prepare_tiles(store, key, recipe.n_measured, canvas)
    columns = 2 + 2 * len(recipe.mixes)
    if not store.has(f"picture/{key}/stars"):
        store.create_array(
            f"picture/{key}/stars",
            shape=(*canvas.chunk_grid, STAR_ROOM, columns),
            dtype="float64",
            chunks=(1, 1, STAR_ROOM, columns),
            dims=("",) * 4,
        )


def plan(store_url: str, recipe: Recipe, canvas: Canvas, fwhm_px: float, *, name: str) -> Step:
    """One task per chunk of the canvas."""
    key = measure_key(recipe, canvas, fwhm_px)
    common = {"store_url": store_url, "recipe": recipe, "canvas": canvas, "fwhm_px": fwhm_px}
    n = len(recipe.mixes)
    tasks = tasks_by_chunk(key, canvas, measure_chunk, common, label=f"{name}/measure", n=n)
    return Step(
        name="picture: measure",
        tasks=tasks,
        task_bytes=(n + 6) * 8 * CHUNK_SHAPE[0] * CHUNK_SHAPE[1],
        is_there=lambda store, task: (
            has_tiles(store, key, task)
            and store.has_part(f"picture/{key}/stars", (task.arguments["cy"], task.arguments["cx"], 0, 0))
        ),
    )


def measure_chunk(
    *, store_url: str, recipe: Recipe, canvas: Canvas, fwhm_px: float, cy: int, cx: int
) -> dict[str, Any]:
    """Tiles and stars of one chunk."""
    store, key = open_store(store_url), measure_key(recipe, canvas, fwhm_px)
    window, reach = canvas.chunk(cy, cx), star_reach_px(fwhm_px)
    pixels = mixed_window(store_url, recipe, grown(window, reach), canvas.shape)
    inside = np.ascontiguousarray(pixels[:, reach : reach + window.shape[0], reach : reach + window.shape[1]])
    written = store.write_part(f"picture/{key}/tiles", (cy, cx, 0, 0), tiles_of(inside, recipe))
    found = measure_colors(pixels, fwhm_px, inside=(reach, reach + window.shape[0], reach, reach + window.shape[1]))
    found[:, 0] += window.x0 - reach
    found[:, 1] += window.y0 - reach
    written += store.write_part(f"picture/{key}/stars", (cy, cx, 0, 0), found[None, None])
    return {"n_stars": len(found), "written_bytes": written}


def tiles_of(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Median, sigma and largest value of tiles, (ty, tx, channel, 3) float32."""
    return tile_statistics(_with_difference(pixels) if len(recipe.colors) == 3 else pixels)


def _with_difference(pixels: np.ndarray) -> np.ndarray:
    """Colors and luminance, and behind them G - (R + B) / 2."""
    r, g, b = pixels[:3]
    return np.concatenate([pixels, (g - (r + b) / np.float32(2))[None]])


def load(store_url: str, key: str) -> Measured:
    """What the tasks wrote."""
    store = open_store(store_url)
    stars = store.read_array(f"picture/{key}/stars")
    stars = stars.reshape(-1, stars.shape[-1])
    stars = stars[np.isfinite(stars[:, 0])]
    return Measured(store.read_array(f"picture/{key}/tiles"), stars)
