"""A whole image brought onto another grid, window by window: Lanczos-3 with clamping.

In   an image with gaps (y, x) float32, a 3x3 matrix from canvas pixel to its pixels
Out  a window of the canvas; NaN where the image has no data within the kernel's reach
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import PRESENT
from lerar_dask.kernels.resample import warp
from lerar_dask.kernels.resample.terms import Lattice, Method, Part, Sky, Target
from lerar_dask.kernels.resample.window import mirror_edges, take_plane

__all__ = ["HALO_PX", "place_image"]

_CLAMPING = 0.3
HALO_PX = warp.HALO + 2
"""Pixels around what a window needs that its kernel reaches."""


def place_image(image: np.ndarray, matrix: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """Resample what a window of the canvas needs.

    Parameters
    ----------
    image : (y, x) float32         NaN: no data
    matrix : (3, 3) float64        canvas pixel (x, y, 1) to image pixel
    window : y0, y1, x0, x1        of the canvas

    Returns
    -------
    (y1 - y0, x1 - x0) float32
    """
    y0, y1, x0, x1 = window
    out = np.full((y1 - y0, x1 - x0), np.nan, np.float32)
    turn, turned = warp.choose_turn(matrix, image.shape)
    height, width = image.shape[::-1] if turn[0] else image.shape
    box = _needed(turned, window, (height, width))
    if box is None:
        return out
    top, bottom, left, right = box
    part = Part(np.zeros((bottom - top, right - left), np.float32), top, left)
    take_plane(Part(image, 0, 0), Lattice(1, 0, 0), *image.shape, turn, part)
    mirror_edges(part.pixels, top, left, height, width)
    cube = np.empty((y1 - y0, 1, x1 - x0), np.float32)
    nodes = ((y1 - y0) // warp.SURFACE_NODE + 3, (x1 - x0) // warp.SURFACE_NODE + 3)
    flat = Sky(np.zeros(nodes, np.float32), y0 // warp.SURFACE_NODE, x0 // warp.SURFACE_NODE, np.float32(1))
    method = Method(warp.LANCZOS3, np.float32(_CLAMPING), np.float32(0), warp.stride_of(turned, (height, width)))
    scratch = warp.warp_scratch(x1 - x0, part.pixels.shape[1])
    warp.warp_plane(part, height, width, turned, method, flat, Target(cube, 0, y0, x0, x1 - x0, 0), scratch)
    return np.where(cube[:, 0] < PRESENT, cube[:, 0], out)


def _needed(
    matrix: np.ndarray, window: tuple[int, int, int, int], shape: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Box of the plane that a window needs, with room for the kernel; None where it lies outside."""
    y0, y1, x0, x1 = window
    corners = np.array([[x, y, 1.0] for y in (y0, y1 - 1) for x in (x0, x1 - 1)]) @ matrix.T
    points = corners[:, :2] / corners[:, 2:]
    left, top = np.floor(points.min(axis=0)).astype(int) - HALO_PX
    right, bottom = np.ceil(points.max(axis=0)).astype(int) + HALO_PX + 1
    if bottom < 0 or right < 0 or top >= shape[0] or left >= shape[1]:
        return None
    return (
        max(int(top), -HALO_PX),
        min(int(bottom), shape[0] + HALO_PX),
        max(int(left), -HALO_PX),
        min(int(right), shape[1] + HALO_PX),
    )
