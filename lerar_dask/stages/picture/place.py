"""Place: a FITS master of another program on the grid of a picture.

Reads   the file
Writes  master/<key>/image: its pixels as the plane `image`; NOISE unknown, coverage 1 where it has data
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lerar_dask.constants import PLANES
from lerar_dask.frames.frame import Frame
from lerar_dask.frames.reader import band_of
from lerar_dask.grid import CHUNK_SHAPE, Canvas
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.resample.image import HALO_PX, place_image
from lerar_dask.store.access import open_store
from lerar_dask.tasks import Step, Task

__all__ = ["place_key", "plan"]


def place_key(path: Path, frame: Frame, transform: np.ndarray, canvas: Canvas) -> str:
    """Identity of an image on a grid: path, size and time of the file, and where it lies."""
    made_of = (str(path.resolve()), frame.size, frame.mtime_ns, transform.tolist(), canvas)
    return digest("picture place", code_of(__name__), made_of)[:20]


def plan(
    store_url: str, frame: Frame, n_channels: int, transform: np.ndarray, canvas: Canvas, key: str, *, name: str
) -> Step:
    """A task per row of chunks; one for all rows of a file that can only be unpacked as a whole.

    Parameters
    ----------
    transform : (3, 3) float64     grid to image; the unit matrix: pixels are taken as they are
    """
    assert frame.pixels is not None
    rows = range(canvas.chunk_grid[0])
    parts = [(cy, cy + 1) for cy in rows] if frame.pixels.layout == "plain" else [(0, len(rows))]
    arguments = {
        "store_url": store_url,
        "frame": frame,
        "n_channels": n_channels,
        "transform": transform,
        "canvas": canvas,
        "key": key,
    }
    tasks = [
        Task(
            key=f"color/{name}/place/{first}",
            digest=digest(key, first, last),
            function=place_rows,
            arguments={**arguments, "chunk_rows": (first, last)},
            pixels=n_channels * (last - first) * CHUNK_SHAPE[0] * canvas.shape[1],
        )
        for first, last in parts
    ]
    needed = max(_bytes_of(frame, n_channels, transform, canvas, part) for part in parts)
    return Step(
        name="picture: place",
        tasks=tasks,
        task_bytes=needed + n_channels * len(PLANES) * 4 * CHUNK_SHAPE[0] * CHUNK_SHAPE[1],
        is_there=lambda store, task: all(
            store.has_chunk(key, cy, cx)
            for cy in range(*task.arguments["chunk_rows"])
            for cx in range(canvas.chunk_grid[1])
        ),
    )


def place_rows(
    *,
    store_url: str,
    frame: Frame,
    n_channels: int,
    transform: np.ndarray,
    canvas: Canvas,
    key: str,
    chunk_rows: tuple[int, int],
) -> dict[str, Any]:
    """Some rows of chunks: no more of the image is read than they need."""
    store, read = open_store(store_url), _rows_of_image(frame, transform, canvas, chunk_rows)
    moved = transform.copy()
    moved[1] -= read.start * transform[2]
    same = np.array_equal(transform, np.eye(3)) and canvas.shape == frame.shape
    chunks = [(cy, cx) for cy in range(*chunk_rows) for cx in range(canvas.chunk_grid[1])]
    planes = [band_of(frame, read.start, read.stop, plane=c) for c in range(n_channels)] if read else []
    written = 0
    for cy, cx in chunks:
        w = canvas.chunk(cy, cx)
        chunk = np.full((n_channels, len(PLANES), *w.shape), np.nan, np.float32)
        chunk[:, [PLANES.index(word) for word in ("coverage", "rejlow", "rejhigh")]] = 0
        for c, plane in enumerate(planes):
            box = (w.y0, w.y1, w.x0, w.x1)
            pixels = plane[w.y0 - read.start :, w.x0 : w.x1][: w.shape[0]] if same else place_image(plane, moved, box)
            chunk[c, PLANES.index("image")] = pixels
            chunk[c, PLANES.index("coverage")] = np.isfinite(pixels)
        written += store.write_chunk(key, cy, cx, chunk)
    return {"read_bytes": 4 * n_channels * len(read) * frame.shape[1], "written_bytes": written}


def _rows_of_image(frame: Frame, transform: np.ndarray, canvas: Canvas, chunk_rows: tuple[int, int]) -> range:
    """Rows of the image that rows of chunks need; all where the file cannot be read in parts."""
    assert frame.pixels is not None
    height = frame.shape[0]
    if frame.pixels.layout != "plain":
        return range(height)
    y0, y1 = chunk_rows[0] * CHUNK_SHAPE[0], min(chunk_rows[1] * CHUNK_SHAPE[0], canvas.shape[0])
    corners = np.array([[x, y, 1.0] for y in (y0, y1 - 1) for x in (0, canvas.shape[1] - 1)]) @ transform.T
    rows = corners[:, 1] / corners[:, 2]
    return range(max(0, int(np.floor(rows.min())) - HALO_PX), min(height, int(np.ceil(rows.max())) + HALO_PX + 1))


def _bytes_of(frame: Frame, n_channels: int, transform: np.ndarray, canvas: Canvas, chunk_rows: tuple[int, int]) -> int:
    """Memory for the rows that are read, as stored and as float32 (one plane at a time is stored)."""
    return (8 + 4 * n_channels) * len(_rows_of_image(frame, transform, canvas, chunk_rows)) * frame.shape[1]
