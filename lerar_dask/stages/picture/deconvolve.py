"""Deconvolve: the luminance of a linear image with the blur of its PSF taken back.

Reads   picture/<linear key>/image
Writes  picture/<key>/image: one channel, one chunk per task
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lerar_dask.grid import CHUNK_SHAPE, Canvas
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.picture import deconvolve as kernel
from lerar_dask.kernels.picture.psf import psf_image
from lerar_dask.settings import Picture
from lerar_dask.stages.picture.chunks import has_image, prepare_image, tasks_by_chunk
from lerar_dask.stages.picture.pixels import grown, step_window
from lerar_dask.stages.picture.psf import PsfField, light_of
from lerar_dask.stages.picture.recipe import Recipe
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step

__all__ = ["deconvolve_key", "plan", "prepare"]


def deconvolve_key(linear_key: str, field: PsfField, noise: float, full: float, settings: Picture) -> str:
    """Identity of a sharpened luminance."""
    made_of = (field, noise, full, settings.iterations, settings.deringing)
    return digest("picture deconvolve", code_of(__name__), linear_key, made_of)[:20]


def prepare(store: Store, key: str, canvas: Canvas) -> None:
    """Make the array (driver only)."""
    prepare_image(store, key, 1, canvas)


def plan(
    store_url: str,
    linear_key: str,
    recipe: Recipe,
    canvas: Canvas,
    field: PsfField,
    noise: float,
    full: float,
    settings: Picture,
    *,
    name: str,
) -> Step:
    """One task per chunk of the canvas.

    Parameters
    ----------
    noise, full : sigma of a pixel of the luminance's sky; from where on it is a lower bound only
    """
    key = deconvolve_key(linear_key, field, noise, full, settings)
    common = {
        "store_url": store_url,
        "linear_key": linear_key,
        "recipe": recipe,
        "canvas": canvas,
        "field": field,
        "noise": noise,
        "full": full,
        "settings": settings,
        "key": key,
    }
    tasks = tasks_by_chunk(key, canvas, write_chunk, common, label=f"{name}/deconvolve", n=1)
    reach = 2 * kernel.reach_px(field.usual.fwhm_px * 1.3)
    return Step(
        name="picture: deconvolve",
        tasks=tasks,
        task_bytes=(len(recipe.mixes) + 24) * 4 * (CHUNK_SHAPE[0] + reach) * (CHUNK_SHAPE[1] + reach),
        is_there=lambda store, task: has_image(store, key, task),
    )


def write_chunk(
    *,
    store_url: str,
    linear_key: str,
    recipe: Recipe,
    canvas: Canvas,
    field: PsfField,
    noise: float,
    full: float,
    settings: Picture,
    key: str,
    cy: int,
    cx: int,
) -> dict[str, Any]:
    """One chunk, with the PSF of its middle."""
    window = canvas.chunk(cy, cx)
    psf = field.at(0.5 * (window.y0 + window.y1), 0.5 * (window.x0 + window.x1))
    reach = kernel.reach_px(psf.fwhm_px)
    pixels = step_window(store_url, linear_key, len(recipe.mixes), grown(window, reach), canvas.shape)
    sharper, used = kernel.deconvolve(
        np.ascontiguousarray(light_of(pixels, recipe)),
        psf_image(psf, kernel.psf_radius_px(psf.fwhm_px)),
        noise,
        saturation=full,
        iterations=settings.iterations,
        deringing=settings.deringing,
    )
    inside = sharper[reach : reach + window.shape[0], reach : reach + window.shape[1]]
    written = open_store(store_url).write_part(f"picture/{key}/image", (0, cy, cx), inside[None])
    return {"iterations": used, "written_bytes": written}
