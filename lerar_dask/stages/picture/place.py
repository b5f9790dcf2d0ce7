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
from lerar_dask.frames.picture import Picture
from lerar_dask.grid import Canvas
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.resample.image import place_image
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
    """One task: an image is read once.

    Parameters
    ----------
    transform : (3, 3) float64     grid to image; the unit matrix: pixels are taken as they are
    """
    arguments = {
        "store_url": store_url,
        "frame": frame,
        "n_channels": n_channels,
        "transform": transform,
        "canvas": canvas,
        "key": key,
    }
    task = Task(
        key=f"color/{name}/place",
        digest=digest(key),
        function=place_master,
        arguments=arguments,
        pixels=n_channels * frame.shape[0] * frame.shape[1],
    )
    return Step(
        name="picture: place",
        tasks=[task],
        task_bytes=2 * 4 * n_channels * frame.shape[0] * frame.shape[1],
        is_there=lambda store, _: all(store.has_chunk(key, cy, cx) for cy, cx in canvas.chunks()),
    )


def place_master(
    *, store_url: str, frame: Frame, n_channels: int, transform: np.ndarray, canvas: Canvas, key: str
) -> dict[str, Any]:
    """All chunks of one image."""
    store = open_store(store_url)
    planes = Picture(frame, n_channels).planes()
    same = np.array_equal(transform, np.eye(3)) and canvas.shape == frame.shape
    written = 0
    for cy, cx in canvas.chunks():
        w = canvas.chunk(cy, cx)
        box = (w.y0, w.y1, w.x0, w.x1)
        chunk = np.full((n_channels, len(PLANES), *w.shape), np.nan, np.float32)
        for c, plane in enumerate(planes):
            pixels = plane[w.y0 : w.y1, w.x0 : w.x1] if same else place_image(plane, transform, box)
            chunk[c, PLANES.index("image")] = pixels
            chunk[c, PLANES.index("coverage")] = np.isfinite(pixels)
        chunk[:, [PLANES.index("rejlow"), PLANES.index("rejhigh")]] = 0
        written += store.write_chunk(key, cy, cx, chunk)
    return {"read_bytes": frame.size, "written_bytes": written}
