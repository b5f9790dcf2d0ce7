"""Finish: from linear color to the picture: stretch, luminance, saturation, noise of colors, green.

Reads   picture/<linear key>/image
Writes  picture/<key>/image: one chunk per task, values in 0..1
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lerar_dask.grid import CHUNK_SHAPE, Canvas, Window
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.picture.color import to_lab
from lerar_dask.kernels.picture.green import remove_green
from lerar_dask.kernels.picture.lrgb import chroma_reach_px, combine_lrgb, linear_lrgb, smooth_chroma
from lerar_dask.kernels.picture.stretch import arcsinh_stretch, hyperbolic_stretch
from lerar_dask.settings import Picture
from lerar_dask.stages.picture.chunks import has_image, prepare_image, tasks_by_chunk
from lerar_dask.stages.picture.numbers import Tone
from lerar_dask.stages.picture.pixels import grown, step_window
from lerar_dask.stages.picture.recipe import Recipe
from lerar_dask.store.access import Store, open_store
from lerar_dask.tasks import Step

__all__ = ["finish_key", "finished_pixels", "plan", "prepare", "stretched"]


def finish_key(linear_key: str, sharp_key: str, tone: Tone, settings: Picture) -> str:
    """Identity of a finished picture."""
    looks = (settings.lrgb, settings.lightness, settings.saturation, settings.chroma_layers, settings.green_amount)
    return digest("picture finish", code_of(__name__), linear_key, sharp_key, tone, looks)[:20]


def prepare(store: Store, key: str, n_colors: int, canvas: Canvas) -> None:
    """Make the array (driver only)."""
    prepare_image(store, key, n_colors, canvas)


def plan(
    store_url: str,
    linear_key: str,
    sharp_key: str,
    recipe: Recipe,
    canvas: Canvas,
    tone: Tone,
    settings: Picture,
    *,
    name: str,
) -> Step:
    """One task per chunk of the canvas.

    Parameters
    ----------
    sharp_key : of the deconvolved luminance; empty: there is none
    """
    key = finish_key(linear_key, sharp_key, tone, settings)
    common = {
        "store_url": store_url,
        "linear_key": linear_key,
        "sharp_key": sharp_key,
        "recipe": recipe,
        "canvas": canvas,
        "tone": tone,
        "settings": settings,
        "key": key,
    }
    n = len(recipe.mixes)
    tasks = tasks_by_chunk(key, canvas, write_chunk, common, label=f"{name}/finish", n=n)
    reach = 2 * chroma_reach_px(settings.chroma_layers)
    return Step(
        name="picture: finish",
        tasks=tasks,
        task_bytes=24 * 4 * (CHUNK_SHAPE[0] + reach) * (CHUNK_SHAPE[1] + reach),
        is_there=lambda store, task: has_image(store, key, task),
    )


def write_chunk(
    *,
    store_url: str,
    linear_key: str,
    sharp_key: str,
    recipe: Recipe,
    canvas: Canvas,
    tone: Tone,
    settings: Picture,
    key: str,
    cy: int,
    cx: int,
) -> dict[str, Any]:
    """One chunk of the picture; the pixels of it that are cut at both ends."""
    window = canvas.chunk(cy, cx)
    pixels = finished_pixels(store_url, linear_key, sharp_key, recipe, canvas, tone, settings, window)
    written = open_store(store_url).write_part(f"picture/{key}/image", (0, cy, cx), pixels)
    there = np.isfinite(pixels)
    counts = {name: int((there & end).sum()) for name, end in (("black", pixels <= 0), ("white", pixels >= 1))}
    return {**counts, "valid": int(there.sum()), "written_bytes": written}


def finished_pixels(
    store_url: str,
    linear_key: str,
    sharp_key: str,
    recipe: Recipe,
    canvas: Canvas,
    tone: Tone,
    settings: Picture,
    window: Window,
) -> np.ndarray:
    """Colors of a window in 0..1, (channel, y, x) float32; NaN where no color has data."""
    n_colors = len(recipe.colors)
    reach = chroma_reach_px(settings.chroma_layers) if n_colors == 3 else 0
    linear = step_window(store_url, linear_key, len(recipe.mixes), grown(window, reach), canvas.shape)
    if sharp_key:
        sharp = step_window(store_url, sharp_key, 1, grown(window, reach), canvas.shape)[0]
        linear = _sharpened(linear, sharp, recipe, tone)
    linear /= np.float32(tone.white)
    colors, light = linear[:n_colors], linear[n_colors] if recipe.luminance else None
    if light is not None and settings.lrgb == "linear":
        colors, light = _joined(light, colors, tone.floor), None
    colors = np.minimum(colors, np.float32(1))  # where a channel saturates, all end: white, never magenta
    picture = stretched(colors, tone)
    if n_colors == 3:
        picture = _colored(picture, light, tone, settings)
    return picture[:, reach : reach + window.shape[0], reach : reach + window.shape[1]].astype(np.float32)


def _sharpened(linear: np.ndarray, sharp: np.ndarray, recipe: Recipe, tone: Tone) -> np.ndarray:
    """Linear channels with the deconvolved luminance in the place of theirs."""
    n_colors = len(recipe.colors)
    if recipe.luminance or n_colors == 1:
        linear[-1] = sharp
        return linear
    linear[:3] = linear_lrgb(sharp, linear[:3], floor=tone.floor * tone.white)
    return linear


def stretched(linear: np.ndarray, tone: Tone) -> np.ndarray:
    """The tone curve of the colors."""
    black = tone.curves[0].shadows
    if tone.kind == "arcsinh":
        return arcsinh_stretch(linear, tone.strength, black=black)
    if tone.kind == "hyperbolic":
        shown = (linear - np.float32(black)) / np.float32(1 - black)
        return hyperbolic_stretch(shown, tone.strength, shape=-1.0)
    return np.stack([curve.apply(channel) for curve, channel in zip(tone.curves, linear, strict=False)])


def _joined(light: np.ndarray, colors: np.ndarray, floor: float) -> np.ndarray:
    """Luminance in place of the colors' own; where there is none, theirs stays."""
    joined = linear_lrgb(light, colors, floor=floor)
    return np.where(np.isfinite(light), joined, colors)


def _colored(picture: np.ndarray, light: np.ndarray | None, tone: Tone, settings: Picture) -> np.ndarray:
    """Green, luminance, saturation and noise of the colors."""
    if tone.green:
        picture = remove_green(picture, protection=tone.green, amount=settings.green_amount)  # type: ignore[arg-type]
    own = to_lab(picture)[0]
    lightness = own
    if light is not None:
        gray = tone.curves[-1].apply(np.minimum(light, np.float32(1)))
        lightness = np.where(np.isfinite(gray), to_lab(np.stack([gray] * 3))[0], own)
    picture = combine_lrgb(
        lightness, picture, lightness_transfer=settings.lightness, saturation_transfer=settings.saturation
    )
    return smooth_chroma(picture, settings.chroma_layers)
