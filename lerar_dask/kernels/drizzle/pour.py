"""Pour the pixels of a sub as drops onto a finer grid: variable-pixel linear reconstruction (drizzle).

In   a calibrated window of a sub, its transform, sky and scale, what of it may be used
Out  sums over drops on the fine grid (`SUMS`); from them the planes of a master

A pixel shrunk to a drop falls onto the pixels of the fine grid, each of which gets the share of the drop that lies in it:
Fruchter and Hook 2002 (PASP 114, 144). Kernels as in STScI's drizzle: `square` is the exact overlap of the turned drop,
`gaussian` a round drop whose FWHM is its side, `point` the one pixel that holds its middle. Sums run over the pixels of
a sub in their order, and over subs in theirs, so that no bit depends on windows.
"""

from __future__ import annotations

import math

import numpy as np

from lerar_dask.constants import NOISE_CELL_PX, SIGMA_TO_FWHM
from lerar_dask.kernels.compiled.kernel import kernel, part
from lerar_dask.kernels.drizzle.overlap import cut_edges, lay_edges, overlap
from lerar_dask.kernels.drizzle.terms import GAUSSIAN, POINT
from lerar_dask.kernels.drizzle.use import NONE, USED
from lerar_dask.kernels.resample.warp import SURFACE_NODE

__all__ = ["finish_drops", "pour"]

_SIGMAS = 2.5
"""Reach of a Gaussian drop."""
_LEAST_REACH = 1.2
"""Of a Gaussian drop, in pixels of the sub."""
_WIDEST = 64
"""Fine pixels along a Gaussian drop at most."""
_FAR = 32.0
"""Fine pixels from which on a drop cannot reach the window."""


@kernel
def pour(part, lattice, inverse, drop, sky, rules, fine):
    """Pour the pixels of one color of a sub.

    Parameters
    ----------
    part : Part                  calibrated and repaired window of the sub, float32
    lattice : Lattice            pixels of the color
    inverse : (3, 3) float64     sub pixel (x, y, 1) to canvas pixel
    drop, sky, rules, fine : Drop, Sky, Rules, Fine
    """
    pixels, y0, x0 = part
    step, phase_y, phase_x = lattice
    scale = float(fine.scale)
    middle = 0.5 * (scale - 1.0)
    top, left = float(fine.y0), float(fine.x0)
    bottom, right = top + fine.sums.shape[0] - 1.0, left + fine.sums.shape[1] - 1.0
    edges, across, share = np.empty((4, 4)), np.empty((4, 3)), np.empty(_WIDEST)
    for i in range((phase_y - y0) % step, pixels.shape[0], step):
        for j in range((phase_x - x0) % step, pixels.shape[1], step):
            if rules.use[i, j] == NONE:
                continue
            u, v = float(x0 + j), float(y0 + i)
            z = 1.0 / (inverse[2, 0] * u + inverse[2, 1] * v + inverse[2, 2])
            x = (inverse[0, 0] * u + inverse[0, 1] * v + inverse[0, 2]) * z
            y = (inverse[1, 0] * u + inverse[1, 1] * v + inverse[1, 2]) * z
            fx, fy = scale * x + middle, scale * y + middle
            if fx < left - _FAR or fy < top - _FAR or fx > right + _FAR or fy > bottom + _FAR:
                continue
            row, column = math.floor(y + 0.5), math.floor(x + 0.5)
            a, b = row - rules.y0, column - rules.x0
            known = a >= 0 and b >= 0 and a < rules.rejected.shape[0] and b < rules.rejected.shape[1]
            if known and rules.rejected[a, b] > 0:
                continue
            value = (float(pixels[i, j]) - _sky_at(sky, y, x)) * sky.gain
            gy = min(max(row // NOISE_CELL_PX - rules.cell_y0, 0), rules.model.shape[1] - 1)
            gx = min(max(column // NOISE_CELL_PX - rules.cell_x0, 0), rules.model.shape[0] - 1)
            weight = float(rules.model[gx, gy, 0])
            spare = rules.use[i, j] != USED
            held = (value * weight, weight, weight * weight * rules.model[gx, gy, 1],
                    weight * weight * rules.model[gx, gy, 2], spare)  # fmt: skip
            # the derivative of the map, in fine pixels
            xu, xv = scale * z * (inverse[0, 0] - x * inverse[2, 0]), scale * z * (inverse[0, 1] - x * inverse[2, 1])
            yu, yv = scale * z * (inverse[1, 0] - y * inverse[2, 0]), scale * z * (inverse[1, 1] - y * inverse[2, 1])
            if drop.kernel == POINT:
                _add(fine, math.floor(fy + 0.5), math.floor(fx + 0.5), 1.0, held)
            elif drop.kernel == GAUSSIAN:
                _pour_gaussian(fine, fy, fx, math.sqrt(abs(xu * yv - xv * yu)), drop.size, held, share)
            else:
                _pour_square(fine, fy, fx, (xu, xv, yu, yv), drop.size, held, edges, across)


@part(borrows=True)
def _pour_square(fine, fy, fx, jacobian, size, held, edges, across):
    """A drop with the turned shape of its pixel."""
    xu, xv, yu, yv = jacobian
    half = 0.5 * size
    dx, dy = half * (abs(xu) + abs(xv)), half * (abs(yu) + abs(yv))
    lay_edges(fx, fy, half * xu, half * xv, half * yu, half * yv, edges)
    per_area = -1.0 / (size * size * (xu * yv - xv * yu))
    top, bottom = max(math.floor(fy - dy + 0.5), fine.y0), min(math.floor(fy + dy + 0.5) + 1, _last_row(fine))
    left, right = max(math.floor(fx - dx + 0.5), fine.x0), min(math.floor(fx + dx + 0.5) + 1, _last_column(fine))
    for column in range(left, right):
        cut_edges(edges, float(column), across)
        for row in range(top, bottom):
            # both areas have the sign of the way around the corners
            share = overlap(across, float(row)) * per_area
            if share > 0.0:
                _add(fine, row, column, share, held)


@part(borrows=True)
def _pour_gaussian(fine, fy, fx, side, size, held, share):
    """A round drop whose FWHM is the side of the shrunk pixel."""
    sigma = size * side / SIGMA_TO_FWHM
    reach = max(_SIGMAS * sigma, _LEAST_REACH * side)
    narrow, norm = 0.5 / (sigma * sigma), 0.5 / (math.pi * sigma * sigma)
    top, bottom = max(math.floor(fy - reach + 0.5), fine.y0), min(math.floor(fy + reach + 0.5) + 1, _last_row(fine))
    left = max(math.floor(fx - reach + 0.5), fine.x0)
    right = min(math.floor(fx + reach + 0.5) + 1, _last_column(fine), left + _WIDEST)
    for column in range(left, right):
        share[column - left] = math.exp(-(column - fx) * (column - fx) * narrow)
    for row in range(top, bottom):
        down = norm * math.exp(-(row - fy) * (row - fy) * narrow)
        for column in range(left, right):
            _add(fine, row, column, down * share[column - left], held)


@part(inline="always")
def _last_row(fine):
    """Row after the last of the window."""
    return fine.y0 + fine.sums.shape[0]


@part(inline="always")
def _last_column(fine):
    """Column after the last of the window."""
    return fine.x0 + fine.sums.shape[1]


@part(inline="always")
def _add(fine, row, column, share, held):
    """Add a share of a drop to a fine pixel, counted from the canvas's corner; none outside of the window."""
    i, j = row - fine.y0, column - fine.x0
    if i < 0 or j < 0 or i >= fine.sums.shape[0] or j >= fine.sums.shape[1]:
        return
    light, weight, white, growth, spare = held
    to = fine.sums[i, j]
    if spare:
        to[5] += share * light
        to[6] += share * weight
        to[7] += share * white
        to[8] += share
    else:
        to[0] += share * light
        to[1] += share * weight
        to[2] += share * white
        to[3] += share * growth
        to[4] += share


@part(inline="always")
def _sky_at(sky, y, x):
    """Sky of a sub at a place of the canvas, bilinear between nodes."""
    surface = sky.surface
    v, u = y / SURFACE_NODE - sky.y0, x / SURFACE_NODE - sky.x0
    k = min(max(math.floor(v), 0), surface.shape[0] - 2)
    m = min(max(math.floor(u), 0), surface.shape[1] - 2)
    t, s = v - k, u - m
    upper = surface[k, m] + s * (surface[k, m + 1] - surface[k, m])
    lower = surface[k + 1, m] + s * (surface[k + 1, m + 1] - surface[k + 1, m])
    return upper + t * (lower - upper)


@kernel(borrows=True)
def finish_drops(sums, scale, level, sky, planes):
    """From sums to image, noise and coverage; spare drops fill pixels that no other reaches.

    The image keeps its surface brightness: a pixel of the fine grid has the ADU that one of the canvas would have there.
    NOISE is white-equivalent: right for sums over apertures. COVERAGE counts subs: the mean of `scale^2 * share` is 1 for
    each sub, whatever the size of its drops.

    Parameters
    ----------
    sums : (rows, columns, 9) float64       of `SUMS`
    scale : int                             fine pixels along one of the canvas
    level, sky : float                      value of the sky in the samples; level that is added to the image
    planes : (5, rows, columns) float32     image, noise and coverage are written, NaN where no drop falls
    """
    for i in range(planes.shape[1]):
        for j in range(planes.shape[2]):
            own = sums[i, j]
            light, weight, white, growth, share = own[0], own[1], own[2], own[3], own[4]
            if weight <= 0.0:
                light, weight, white, growth, share = own[5], own[6], own[7], 0.0, own[8]
            if weight <= 0.0:
                planes[0, i, j], planes[1, i, j], planes[2, i, j] = np.nan, np.nan, 0.0
                continue
            mean = light / weight
            variance = white + growth * max(mean - level, 0.0)
            planes[0, i, j] = mean + sky
            planes[1, i, j] = math.sqrt(variance) / weight
            planes[2, i, j] = scale * scale * share
