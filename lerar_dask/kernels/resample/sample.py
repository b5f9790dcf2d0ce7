"""One sub's way into the cube, in two calls: prepare its window, then sample a plane of it.

In   raw pixels of a window, the sub's calibration, voids, defects, transform, sky and trails
Out  a calibrated and repaired window, and what of it is no sample or a clipped one; a plane of the cube with `MISSING`
     where the sub says nothing

Each call is a chain of kernels that release the interpreter once: threads then hardly wait for each other.
"""

from __future__ import annotations

import numpy as np

from lerar_dask.constants import MISSING
from lerar_dask.kernels.compiled.kernel import kernel, part
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


@kernel
def prepare_window(part, numbers, pedestal, gain, shape, voids, defects, step, level, window):
    """Calibrate a raw window into a buffer, repair its defects, and tell what is no sample or a clipped one.

    Parameters
    ----------
    part : Part                       raw pixels of the sub, any dtype
    numbers : Numbers
    pedestal, gain                    as in `calibrate_into`
    shape : (height, width)           of the sub
    voids : (m, 4) int32              rectangles of the sub without data, as in `voids.find_voids`
    defects, step, level              as in `repair_defects`
    window : Part                     of the sub, float32: written where the raw pixels lie

    Returns
    -------
    missing : (a, b) uint8            1 where there is no sample; (0, 0) when there is one everywhere
    saturated : int32                 sorted flat indices into the sub
    """
    raw, y0, x0 = part
    pixels, wy0, wx0 = window
    height, width = shape
    top, left = y0 - wy0, x0 - wx0
    count = calibrate_into(raw, numbers.scale, numbers.zero, numbers.blank, pedestal, gain, y0, x0, pixels, top, left)
    count += lay_voids(pixels, wy0, wx0, height, width, voids)
    missing = np.zeros((0, 0), np.uint8)
    if count > 0:
        missing = np.zeros(pixels.shape, np.uint8)
        for i in range(top, top + raw.shape[0]):
            for j in range(left, left + raw.shape[1]):
                missing[i, j] = np.uint8(pixels[i, j] == MISSING)
    repair_defects(pixels, wy0, wx0, height, width, defects, step, level)
    if count > 0:
        fill_missing(pixels, missing, top, left, raw.shape[0], raw.shape[1], step, level)
    return missing, find_saturated(raw, numbers.saturation, y0, x0, width)


@kernel(borrows=True)
def sample_plane(part, plane, lattice, sub, method, sky, target, scratch, fallback):
    """Mirror the edges of a plane's window, resample it into the cube; leave out voids, clipped samples and defects.

    Parameters
    ----------
    part : Part                         of the plane, float32
    plane : (height, width, matrix)     shape of the plane; canvas pixel to plane pixel, (3, 3) float64
    lattice : Lattice                   that the plane was taken from
    sub : SubTerms
    method, sky, target, scratch, fallback : Method, Sky, Target, Scratch, Fallback

    Returns
    -------
    int
        number of samples in the plane
    """
    height, width, matrix = plane
    mirror_edges(part.pixels, part.y0, part.x0, height, width)
    samples = warp_plane(part, height, width, matrix, method, sky, target, scratch)
    if sub.missing.pixels.size > 0:
        samples -= drop_missing(sub.missing, sub.matrix, lattice, target)
    if sub.saturated.size > 0:
        samples -= drop_footprints(sub.saturated, sub, lattice, target, fallback)
    if sub.defects.size > 0:
        samples -= drop_footprints(sub.defects, sub, lattice, target, fallback)
    return samples


@kernel(borrows=True)
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
        if halo <= r < cube.shape[0] - halo:
            both += _both_in(to[halo : columns - halo], more[halo : columns - halo])
        for j in range(columns):
            a, b = to[j], more[j]
            # `MISSING` is larger than any sample
            low, high = min(a, b), max(a, b)
            to[j] = np.float32(0.5) * (a + b) if high < MISSING else low
    return both


@part(borrows=True)
def _both_in(first, second):
    """Number of places where two rows have a sample."""
    n = np.int32(0)
    for j in range(first.size):
        n += np.int32(max(first[j], second[j]) < MISSING)
    return np.int64(n)
