"""What belongs together on a sub's way into the cube, as named tuples that compiled kernels take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Fallback", "Lattice", "Method", "Numbers", "Part", "Scratch", "Sky", "SubTerms", "Target"]


class Part(NamedTuple):
    """Pixels of a part of a frame or of a plane."""

    pixels: np.ndarray
    """(h, w)"""
    y0: int
    """Pixel of the frame at pixels[0, 0]; may lie outside it."""
    x0: int


class Numbers(NamedTuple):
    """What a sub's raw numbers mean."""

    scale: float
    zero: float
    blank: float
    """Raw number of pixels without data; NaN: none."""
    saturation: float
    """Raw number from which on a pixel is saturated."""


class Lattice(NamedTuple):
    """Pixels of one color of a sub as a plane: sub pixel = phase + step * plane pixel; (1, 0, 0) without CFA."""

    step: int
    phase_y: int
    phase_x: int


class SubTerms(NamedTuple):
    """A sub and what of it is not to be used."""

    matrix: np.ndarray
    """(3, 3) float64, canvas pixel (x, y, 1) to sub pixel."""
    inverse: np.ndarray
    height: int
    width: int
    missing: Part
    """uint8, 1 where there is no sample; (0, 0) pixels: there is one everywhere."""
    saturated: np.ndarray
    """int32, sorted flat indices into the sub."""
    defects: np.ndarray
    """int32, sorted flat indices into the sub."""


class Method(NamedTuple):
    """How samples are interpolated."""

    kind: int
    """LANCZOS3 or BILINEAR."""
    clamping: np.float32
    """float32, share of the positive part that negative lobes may reach where they would make a ring; 1e30: no clamping."""
    offset: np.float32
    """float32, added before clamping and taken off after it (12 sigma - sky: clamping then neither depends on the sky's
    level nor touches noise)."""
    stride: int
    """Canvas columns a column of the plane apart: 1 or 2; 0: 36 taps per pixel in place of two passes (`stride_of`)."""


class Sky(NamedTuple):
    """What is taken off a sub."""

    surface: np.ndarray
    """(ny, nx) float32, at canvas rows and columns multiple of 32."""
    y0: int
    """First node."""
    x0: int
    gain: np.float32
    """float32, 1 / scale of the sub."""


class Target(NamedTuple):
    """Where samples go."""

    cube: np.ndarray
    """(rows, planes, pitch) float32: rows y0.., columns x0..x0 + columns - 1 of the canvas are written."""
    plane: int
    y0: int
    x0: int
    columns: int
    halo: int
    """Rows and columns on every side that are not counted."""


class Scratch(NamedTuple):
    """Work arrays of the warp (`warp_scratch`)."""

    floats: np.ndarray
    runs: np.ndarray
    nodes: np.ndarray
    taps: np.ndarray
    places: np.ndarray


class Fallback(NamedTuple):
    """Samples that count only in need, where no other sub has one."""

    sums: np.ndarray
    """(4, rows, columns) float64: sums of weight * value, weight, count and weight^2 * variance; added to."""
    weight: float
    variance: float
    """Of the sub."""
