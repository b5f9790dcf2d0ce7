"""The sky is a sphere: frames that point elsewhere than the reference see it on another tangent plane.

The plane of the reference is the gnomonic projection about the middle of the reference frame, with a focal length in
its pixels. A chart takes that plane to the tangent plane where a frame points; there a similarity suffices for a camera
without distortion. Only the curvature, 1 / focal length squared, has to be known; 0 is the flat sky.
"""

from __future__ import annotations

import numpy as np

__all__ = ["charts_at", "gnomonic"]


def charts_at(pointings: np.ndarray, axis: np.ndarray, curvature: float) -> np.ndarray:
    """Maps from the plane of the reference to the tangent planes at points of it; each leaves its own point in place.

    The rotation that takes one direction to another the shortest way, by Rodrigues' formula, between the two
    projections (Hartley & Zisserman 2004, "Multiple View Geometry", section 8.4: views of a turning camera).

    Parameters
    ----------
    pointings : (n, 2) float64     where frames point, px of the plane
    axis : (2,) float64     the point where the plane touches the sphere
    curvature : px^-2, >= 0

    Returns
    -------
    (n, 3, 3) float64
    """
    out = np.broadcast_to(np.eye(3), (len(pointings), 3, 3)).copy()
    if not curvature > 0:
        return out
    f = curvature**-0.5
    to_rays = np.array([[1 / f, 0, -axis[0] / f], [0, 1 / f, -axis[1] / f], [0, 0, 1.0]])
    back = np.linalg.inv(to_rays)
    for i, point in enumerate(pointings):
        ray = to_rays @ np.array([*point, 1.0])
        ray /= np.linalg.norm(ray)
        turn = _turn(ray)
        home = np.array([[1, 0, point[0] - axis[0]], [0, 1, point[1] - axis[1]], [0, 0, 1.0]])
        chart = home @ back @ turn @ to_rays
        out[i] = chart / chart[2, 2]
    return out


def _turn(ray: np.ndarray) -> np.ndarray:
    """Rotation that takes a unit vector to (0, 0, 1)."""
    x, y, z = ray
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0.0]])
    turn: np.ndarray = np.eye(3) + cross + cross @ cross / (1 + z)
    return turn


def gnomonic(sky_deg: np.ndarray, center_deg: np.ndarray) -> np.ndarray:
    """Points of the sky on the plane that touches it at a center (Calabretta & Greisen 2002, section 5.1.3).

    Parameters
    ----------
    sky_deg : (n, 2) float64     right ascension, declination
    center_deg : (2,) float64

    Returns
    -------
    (n, 2) float64     degrees to the east and to the north; NaN for points that lie 90 degrees from the center or more
    """
    ra, dec = np.deg2rad(sky_deg[:, 0] - center_deg[0]), np.deg2rad(sky_deg[:, 1])
    d0 = np.deg2rad(center_deg[1])
    depth = np.sin(d0) * np.sin(dec) + np.cos(d0) * np.cos(dec) * np.cos(ra)
    depth = np.where(depth > 0, depth, np.nan)
    x = np.cos(dec) * np.sin(ra) / depth
    y = (np.cos(d0) * np.sin(dec) - np.sin(d0) * np.cos(dec) * np.cos(ra)) / depth
    return np.rad2deg(np.column_stack([x, y]))
