"""Linear: the colors of a picture with their sky at 0 and their white balanced, and luminance behind them.

Reads   master/<key>/image of all masters of the recipe
Writes  picture/<key>/image and picture/<key>/tiles: one chunk of each per task
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lerar_dask.grid import CHUNK_SHAPE, Canvas, Window
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.picture.fill import fill_missing
from lerar_dask.kernels.picture.sky import neutralize, slope_at
from lerar_dask.stages.picture.chunks import has_image, has_tiles, prepare_image, prepare_tiles, tasks_by_chunk
from lerar_dask.stages.picture.measure import tiles_of
from lerar_dask.stages.picture.numbers import Balance
from lerar_dask.stages.picture.pixels import mixed_window
from lerar_dask.stages.picture.recipe import Recipe
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step

__all__ = ["linear_key", "linear_pixels", "plan", "prepare"]


def linear_key(recipe: Recipe, canvas: Canvas, balance: Balance) -> str:
    """Identity of a linear image."""
    numbers = (balance.sky, balance.factors, balance.slopes, balance.fill)
    return digest("picture linear", code_of(__name__), recipe, canvas, numbers)[:20]


def prepare(store: Store, key: str, recipe: Recipe, canvas: Canvas) -> None:
    """Make the arrays (driver only)."""
    prepare_image(store, key, len(recipe.mixes), canvas)
    prepare_tiles(store, key, recipe.n_measured, canvas)


def plan(store_url: str, recipe: Recipe, canvas: Canvas, balance: Balance, *, name: str) -> Step:
    """One task per chunk of the canvas."""
    key = linear_key(recipe, canvas, balance)
    common = {"store_url": store_url, "recipe": recipe, "canvas": canvas, "balance": balance, "key": key}
    n = len(recipe.mixes)
    tasks = tasks_by_chunk(key, canvas, write_chunk, common, label=f"{name}/linear", n=n)
    return Step(
        name="picture: linear",
        tasks=tasks,
        task_bytes=(len(recipe.mixes) + 4) * 8 * CHUNK_SHAPE[0] * CHUNK_SHAPE[1],
        is_there=lambda store, task: has_image(store, key, task) and has_tiles(store, key, task),
    )


def write_chunk(
    *, store_url: str, recipe: Recipe, canvas: Canvas, balance: Balance, key: str, cy: int, cx: int
) -> dict[str, Any]:
    """One chunk of the linear image, and its tiles."""
    store = open_store(store_url)
    pixels = linear_pixels(store_url, recipe, canvas, balance, canvas.chunk(cy, cx))
    written = store.write_part(f"picture/{key}/tiles", (cy, cx, 0, 0), tiles_of(pixels, recipe))
    written += store.write_part(f"picture/{key}/image", (0, cy, cx), pixels)
    return {"written_bytes": written}


def linear_pixels(store_url: str, recipe: Recipe, canvas: Canvas, balance: Balance, window: Window) -> np.ndarray:
    """Neutral, balanced colors and luminance of a window, (channel, y, x) float32."""
    pixels = neutralize(mixed_window(store_url, recipe, window, canvas.shape), np.array(balance.sky))
    for channel, slope in zip(pixels, balance.slopes, strict=False):
        channel -= slope_at(slope, window.y0, window.x0, window.shape)
    pixels *= np.array(balance.factors, np.float32)[:, None, None]
    if balance.fill:
        pixels[: len(recipe.colors)] = fill_missing(pixels[: len(recipe.colors)])
    return pixels
