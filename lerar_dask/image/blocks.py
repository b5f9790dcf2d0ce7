"""Functions of arrays over lazy images: pixel by pixel, with borders, and what is measured on whole images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lerar_dask.errors import UsageError
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.image.state import Image
from lerar_dask.kernels.picture import sky as skies
from lerar_dask.kernels.picture.star_colors import measure_colors, star_reach_px

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["by_chunks", "pointwise", "stars_of", "tiles_of", "tiles_with_sky", "with_border"]


def by_chunks(data: da.Array) -> da.Array:
    """The array in chunks of the masters' size."""
    return data.rechunk((data.shape[0], *CHUNK_SHAPE))


def pointwise(
    function: Callable[[np.ndarray], np.ndarray], data: da.Array, *, n_channels: int | None = None
) -> da.Array:
    """A function of all channels of a pixel, lazily."""
    chunks: Any = by_chunks(data)
    n = n_channels or data.shape[0]
    return chunks.map_blocks(
        lambda block: np.asarray(function(block), np.float32),
        chunks=((n,), *chunks.chunks[1:]),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )


def with_border(function: Callable[[np.ndarray], np.ndarray], data: da.Array, reach_px: int) -> da.Array:
    """A function of pixels and what lies around them within some reach, lazily."""
    chunks: Any = by_chunks(data)
    return chunks.map_overlap(  # type: ignore[no-any-return]
        function,
        depth=(0, reach_px, reach_px),
        boundary="none",
        allow_rechunk=True,
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )


def tiles_of(image: Image) -> np.ndarray:
    """Statistics of tiles, (ty, tx, channel, 3)."""
    chunks: Any = by_chunks(image.data)
    n, (height, width) = image.shape[0], image.shape[1:]
    per = [tuple(-(-size // skies.TILE_PX) for size in axis) for axis in chunks.chunks[1:]]
    lazy = chunks.map_blocks(
        lambda block: np.moveaxis(skies.tile_statistics(np.asarray(block)).reshape(*_grid(block), -1), -1, 0),
        chunks=((3 * n,), *per),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )
    found = np.moveaxis(lazy.compute(), 0, -1)
    assert found.shape[:2] == (-(-height // skies.TILE_PX), -(-width // skies.TILE_PX))
    return found.reshape(*found.shape[:2], n, 3)


def _grid(block: np.ndarray) -> tuple[int, int]:
    return -(-block.shape[1] // skies.TILE_PX), -(-block.shape[2] // skies.TILE_PX)


def tiles_with_sky(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of tiles, and which of them are sky."""
    tiles = tiles_of(image)
    where = skies.sky_tiles(tiles)
    if not where.any():
        raise UsageError("no tile of 64 px has data in all channels and could be sky")
    return tiles, where


def stars_of(image: Image, fwhm_px: float) -> np.ndarray:
    """Rows of `measure_colors` of the whole image."""
    reach = star_reach_px(fwhm_px)
    height, width = image.shape[1:]
    rows = []
    for y0 in range(0, height, CHUNK_SHAPE[0]):
        for x0 in range(0, width, CHUNK_SHAPE[1]):
            y1, x1 = min(y0 + CHUNK_SHAPE[0], height), min(x0 + CHUNK_SHAPE[1], width)
            a, b, c, d = max(y0 - reach, 0), min(y1 + reach, height), max(x0 - reach, 0), min(x1 + reach, width)
            block = np.asarray(image.data[:, a:b, c:d].compute())
            found = measure_colors(block, fwhm_px, inside=(y0 - a, y1 - a, x0 - c, x1 - c))
            found[:, 0] += c
            found[:, 1] += a
            rows.append(found)
    return np.concatenate(rows)
