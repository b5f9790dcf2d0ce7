"""The sky is a sphere: frames that point elsewhere than the reference see it on another tangent plane.

The plane of the reference is the gnomonic projection about the middle of the reference frame, with a focal length in
its pixels. A chart takes that plane to the tangent plane where a frame points; there a similarity suffices for a camera
without distortion. Only the curvature, 1 / focal length squared, has to be known; 0 is the flat sky.
"""

from __future__ import annotations

import numpy as np

__all__ = ["charts_at"]


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
