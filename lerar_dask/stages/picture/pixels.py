"""Windows of masters and of steps of a picture, put together from chunks.

In   keys of arrays that are cut into chunks of `CHUNK_SHAPE`
Out  (channel, y, x) of a window; NaN beyond the canvas and where no sub reaches
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from lerar_dask.constants import PLANES
from lerar_dask.grid import CHUNK_SHAPE, Window
from lerar_dask.stages.picture.recipe import Recipe
from lerar_dask.store.access import open_store

__all__ = ["grown", "mixed_window", "step_window"]

_KEPT = 24
"""Chunks that a process keeps of each kind: neighbors of a chunk are read for its border, and for themselves."""


def grown(window: Window, px: int) -> Window:
    """A window with a border; it may reach beyond the canvas."""
    return Window(window.y0 - px, window.y1 + px, window.x0 - px, window.x1 + px)


def mixed_window(store_url: str, recipe: Recipe, window: Window, shape: tuple[int, int]) -> np.ndarray:
    """Colors and luminance of a recipe, (channel, y, x) float32, as the masters have them.

    Parameters
    ----------
    shape : of the canvas
    """
    masters = {
        key: _assembled(lambda cy, cx, key=key: _master_chunk(store_url, key, cy, cx), n, window, shape)  # type: ignore[misc]
        for key, n in recipe.masters.items()
    }
    out = np.zeros((len(recipe.mixes), *window.shape), np.float32)
    for to, mix in zip(out, recipe.mixes, strict=True):
        for share, channel in zip(mix.shares, mix.channels, strict=True):
            to += np.float32(share) * masters[channel.master][channel.channel]
    return out


def step_window(store_url: str, key: str, n_channels: int, window: Window, shape: tuple[int, int]) -> np.ndarray:
    """Channels of a step of a picture, (channel, y, x) float32."""
    return _assembled(lambda cy, cx: _step_chunk(store_url, key, cy, cx), n_channels, window, shape)


def _assembled(
    read: Callable[[int, int], np.ndarray], n_channels: int, window: Window, shape: tuple[int, int]
) -> np.ndarray:
    out = np.full((n_channels, *window.shape), np.nan, np.float32)
    inside = window & Window(0, shape[0], 0, shape[1])
    height, width = CHUNK_SHAPE
    for cy in range(inside.y0 // height, -(-inside.y1 // height)):
        for cx in range(inside.x0 // width, -(-inside.x1 // width)):
            part = inside & Window(cy * height, (cy + 1) * height, cx * width, (cx + 1) * width)
            chunk = read(cy, cx)
            out[:, part.y0 - window.y0 : part.y1 - window.y0, part.x0 - window.x0 : part.x1 - window.x0] = chunk[
                :, part.y0 - cy * height : part.y1 - cy * height, part.x0 - cx * width : part.x1 - cx * width
            ]
    return out


@lru_cache(maxsize=_KEPT)
def _master_chunk(store_url: str, key: str, cy: int, cx: int) -> np.ndarray:
    """Image plane of a chunk of a master; not to be written to."""
    return np.ascontiguousarray(open_store(store_url).read_chunk(key, cy, cx)[:, PLANES.index("image")])


@lru_cache(maxsize=_KEPT)
def _step_chunk(store_url: str, key: str, cy: int, cx: int) -> np.ndarray:
    """A chunk of a step; not to be written to."""
    return open_store(store_url).read_part(f"picture/{key}/image", (0, cy, cx))
