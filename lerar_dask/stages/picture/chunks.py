"""Tasks of a picture's stages, one per chunk of the canvas, and the arrays that they fill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lerar_dask.grid import CHUNK_SHAPE, Canvas
from lerar_dask.identity import digest
from lerar_dask.kernels.picture.sky import TILE_PX
from lerar_dask.store.access import Store
from lerar_dask.tasks import Task

__all__ = ["has_image", "has_tiles", "prepare_image", "prepare_tiles", "tasks_by_chunk"]


def tasks_by_chunk(
    key: str,
    canvas: Canvas,
    function: Callable[..., Mapping[str, Any]],
    common: Mapping[str, Any],
    *,
    label: str,
    n: int,
) -> list[Task]:
    """One task per chunk.

    Parameters
    ----------
    common : arguments of all tasks; `cy` and `cx` are added
    label : beginning of the tasks' keys
    n : channels that a task goes through
    """
    tasks = []
    for cy, cx in canvas.chunks():
        height, width = canvas.chunk(cy, cx).shape
        tasks.append(
            Task(
                key=f"color/{label}/{cy}.{cx}",
                digest=digest(key, cy, cx),
                function=function,
                arguments={**common, "cy": cy, "cx": cx},
                pixels=n * height * width,
            )
        )
    return tasks


def prepare_image(store: Store, key: str, n_channels: int, canvas: Canvas) -> None:
    """Make the array of a step's pixels (driver only)."""
    _prepare(store, f"picture/{key}/image", (n_channels, *canvas.shape), (n_channels, *CHUNK_SHAPE))


def prepare_tiles(store: Store, key: str, n_channels: int, canvas: Canvas) -> None:
    """Make the array of statistics of tiles (driver only)."""
    ty, tx = (-(-side // TILE_PX) for side in canvas.shape)
    per_chunk = (CHUNK_SHAPE[0] // TILE_PX, CHUNK_SHAPE[1] // TILE_PX)
    _prepare(store, f"picture/{key}/tiles", (ty, tx, n_channels, 3), (*per_chunk, n_channels, 3))


def has_image(store: Store, key: str, task: Task) -> bool:
    """Whether a task's chunk of a step's pixels was written."""
    return store.has_part(f"picture/{key}/image", (0, task.arguments["cy"], task.arguments["cx"]))


def has_tiles(store: Store, key: str, task: Task) -> bool:
    """Whether a task's statistics of tiles were written."""
    return store.has_part(f"picture/{key}/tiles", (task.arguments["cy"], task.arguments["cx"], 0, 0))


def _prepare(store: Store, path: str, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    if not store.has(path):
        store.create_array(path, shape=shape, dtype="float32", chunks=chunks, dims=("",) * len(shape))
