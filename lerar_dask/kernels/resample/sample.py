"""One sub's way into the cube, in two calls: prepare its window, then sample a plane of it.

In   raw pixels of a window, the sub's calibration, voids, defects, transform, sky and trails
Out  a calibrated and repaired window, and what of it is no sample or a clipped one; a plane of the cube with `MISSING`
     where the sub says nothing

Each call is a chain of kernels that release the interpreter once: threads then hardly wait for each other.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lerar_dask.constants import MISSING
from lerar_dask.kernels.resample.masks import drop_footprints, drop_missing
from lerar_dask.kernels.resample.warp import warp_plane
from lerar_dask.kernels.resample.window import (
    calibrate_into,
    fill_missing,
    find_saturated,
    lay_voids,
    mirror_edges,
    repair_defects,
)

__all__ = ["join_lattices", "prepare_window", "sample_plane"]


@njit(cache=True, nogil=True, error_model="numpy")
def prepare_window(
    raw, scale, zero, blank, saturation, pedestal, gain, at, origin, shape, voids, defects, step, level, pixels
):
    """Calibrate a raw window into a buffer, repair its defects, and tell what is no sample or a clipped one.

    Parameters
    ----------
    raw : (h, w) any dtype            its first pixel is `at` (y, x) of the sub
    scale, zero, blank, pedestal, gain    as in `calibrate_into`
    saturation : float64              raw value from which on a pixel is saturated
    origin : (y0, x0)                 pixel of the sub at pixels[0, 0]; may lie outside it
    shape : (height, width)           of the sub
    voids : (m, 4) int32              rectangles of the sub without data, as in `voids.find_voids`
    defects, step, level              as in `repair_defects`
    pixels : (a, b) float32           written where the raw window lies

    Returns
    -------
    missing : (a, b) uint8            1 where there is no sample; (0, 0) when there is one everywhere
    saturated : int32                 sorted flat indices into the sub
    """
    top, left = at[0] - origin[0], at[1] - origin[1]
    count = calibrate_into(raw, scale, zero, blank, pedestal, gain, at[0], at[1], pixels, top, left)
    count += lay_voids(pixels, origin[0], origin[1], shape[0], shape[1], voids)
    missing = np.zeros((0, 0), np.uint8)
    if count > 0:
        missing = np.zeros(pixels.shape, np.uint8)
        for i in range(top, top + raw.shape[0]):
            for j in range(left, left + raw.shape[1]):
                missing[i, j] = np.uint8(pixels[i, j] == MISSING)
    repair_defects(pixels, origin[0], origin[1], shape[0], shape[1], defects, step, level)
    if count > 0:
        fill_missing(pixels, missing, top, left, raw.shape[0], raw.shape[1], step, level)
    return missing, find_saturated(raw, saturation, at[0], at[1], shape[1])


@njit(cache=True, nogil=True, error_model="numpy")
def sample_plane(
    pixels, origin, plane_shape, to_plane, gathered, kind, clamping, offset, gain, surface, surface_origin,
    cube, plane, at, columns, halo, floats, runs, nodes,
    missing, saturated, defects, matrix, inverse, lattice, shape, weight, variance, spare,
):  # fmt: skip
    """Mirror the edges of a plane's window, resample it into the cube; leave out voids, clipped samples and defects.

    Parameters
    ----------
    pixels : (a, b) float32                    window of the plane; its first pixel is `origin` (y, x)
    plane_shape : (height, width)              of the plane
    to_plane : (3, 3) float64                  canvas pixel to plane pixel
    gathered, kind, clamping, offset, gain, surface, floats, runs, nodes    as in `warp_plane`
    surface_origin, at : (y, x)                first node of the surface; canvas pixel of cube[0, :, 0]
    missing : (a, b) uint8, origin `lattice[3:]`    of the sub's window, from `prepare_window`
    saturated, defects, matrix, inverse, shape      as in `drop_footprints`
    lattice : (step, phase_y, phase_x, y0, x0)      of the plane; pixel of the sub at missing[0, 0]
    weight, variance : float                   of the sub, for samples that count only in need
    spare                                      as in `drop_footprints`

    Returns
    -------
    int
        number of samples in the plane
    """
    mirror_edges(pixels, origin[0], origin[1], plane_shape[0], plane_shape[1])
    samples = warp_plane(
        pixels, origin[0], origin[1], plane_shape[0], plane_shape[1], to_plane, gathered, kind, clamping, offset, gain,
        surface, surface_origin[0], surface_origin[1], cube, plane, at[0], at[1], columns, halo, floats, runs, nodes,
    )  # fmt: skip
    if missing.size > 0:
        samples -= drop_missing(
            missing, lattice[3], lattice[4], matrix, lattice[0], lattice[1], lattice[2],
            cube, plane, at[0], at[1], columns, halo,
        )  # fmt: skip
    if saturated.size > 0:
        samples -= drop_footprints(
            saturated, matrix, inverse, lattice[0], lattice[1], lattice[2], shape,
            cube, plane, at[0], at[1], columns, halo, weight, variance, spare,
        )  # fmt: skip
    if defects.size > 0:
        samples -= drop_footprints(
            defects, matrix, inverse, lattice[0], lattice[1], lattice[2], shape,
            cube, plane, at[0], at[1], columns, halo, weight, variance, spare,
        )  # fmt: skip
    return samples


@njit(cache=True, nogil=True, error_model="numpy")
def join_lattices(cube, plane, other, columns, halo):
    """Put the mean of two planes into the first; where one has no sample, the other's.

    The two greens of a sub see a star at different phases of their lattices. As two samples they would be tested
    against each other, and the steep flank of a small star would look like an outlier.

    Returns
    -------
    int
        number of pixels inside the halo where both had a sample
    """
    both = 0
    for r in range(cube.shape[0]):
        to, more = cube[r, plane, :columns], cube[r, other, :columns]
        inner = halo <= r < cube.shape[0] - halo
        for j in range(columns):
            if to[j] < MISSING and more[j] < MISSING:
                to[j] = np.float32(0.5) * (to[j] + more[j])
                both += inner and halo <= j < columns - halo
            elif more[j] < MISSING:
                to[j] = more[j]
    return both
