"""One sub's way into the cube, in two calls: prepare its window, then sample a plane of it.

In   raw pixels of a window, the sub's calibration, defects, transform, sky and trails
Out  a calibrated and repaired window; a plane of the cube with `MISSING` where the sub says nothing

Each call is a chain of kernels that release the interpreter once: threads then hardly wait for each other.
"""

from __future__ import annotations

from numba import njit

from lerar_dask.kernels.masks import drop_footprints, drop_lines
from lerar_dask.kernels.warp import warp_plane
from lerar_dask.kernels.window import calibrate_into, mirror_edges, repair_defects

__all__ = ["prepare_window", "sample_plane"]


@njit(cache=True, nogil=True, error_model="numpy")
def prepare_window(raw, scale, zero, blank, pedestal, gain, at, origin, shape, defects, step, level, pixels):
    """Calibrate a raw window into a buffer and repair its defects.

    Parameters
    ----------
    raw : (h, w) any dtype            its first pixel is `at` (y, x) of the sub
    scale, zero, blank, pedestal, gain    as in `calibrate_into`
    origin : (y0, x0)                 pixel of the sub at pixels[0, 0]; may lie outside it
    shape : (height, width)           of the sub
    defects, step, level              as in `repair_defects`
    pixels : (a, b) float32           written where the raw window lies

    Returns
    -------
    int
        number of pixels without data: when there are any, nothing was repaired
    """
    missing = calibrate_into(
        raw, scale, zero, blank, pedestal, gain, at[0], at[1], pixels, at[0] - origin[0], at[1] - origin[1]
    )
    if missing == 0:
        repair_defects(pixels, origin[0], origin[1], shape[0], shape[1], defects, step, level)
    return missing


@njit(cache=True, nogil=True, error_model="numpy")
def sample_plane(
    pixels, origin, plane_shape, to_plane, gathered, kind, clamping, offset, gain, surface, surface_origin,
    cube, plane, at, columns, halo, floats, runs, nodes,
    lines, defects, matrix, inverse, lattice, shape, weight, variance, dropped, spare,
):  # fmt: skip
    """Mirror the edges of a plane's window, resample it into the cube, and leave out trails and defects.

    Parameters
    ----------
    pixels : (a, b) float32                    window of the plane; its first pixel is `origin` (y, x)
    plane_shape : (height, width)              of the plane
    to_plane : (3, 3) float64                  canvas pixel to plane pixel
    gathered, kind, clamping, offset, gain, surface, floats, runs, nodes    as in `warp_plane`
    surface_origin, at : (y, x)                first node of the surface; canvas pixel of cube[0, :, 0]
    lines : (m, 5) float64                     trails, as in `drop_lines`
    defects, matrix, inverse, shape            as in `drop_footprints`
    lattice : (step, phase_y, phase_x)
    weight, variance : float                   of the sub, for samples that count only in need
    dropped, spare                             as in `drop_lines`

    Returns
    -------
    samples, on_lines, on_defects : int        in the plane; of these left out as trails, and as defects
    """
    mirror_edges(pixels, origin[0], origin[1], plane_shape[0], plane_shape[1])
    samples = warp_plane(
        pixels, origin[0], origin[1], plane_shape[0], plane_shape[1], to_plane, gathered, kind, clamping, offset, gain,
        surface, surface_origin[0], surface_origin[1], cube, plane, at[0], at[1], columns, halo, floats, runs, nodes,
    )  # fmt: skip
    on_lines = on_defects = 0
    if lines.shape[0] > 0:
        on_lines = drop_lines(lines, matrix, cube, plane, at[0], at[1], columns, halo, weight, variance, dropped, spare)
    if defects.size > 0:
        on_defects = drop_footprints(
            defects, matrix, inverse, lattice[0], lattice[1], lattice[2], shape,
            cube, plane, at[0], at[1], columns, halo, weight, variance, spare,
        )  # fmt: skip
    return samples, on_lines, on_defects
