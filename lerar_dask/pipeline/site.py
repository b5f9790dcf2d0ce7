"""Where a group was taken from, and how the sky lies in its picture: then the horizon's turning tells the sky's gradient.

Place, time and pointing come from the headers. The camera's angle does not matter, but whether the picture is mirrored
does: a plate solution tells it, else the rotation of the field, else the pointings that the mount wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.frames.header import Header
from lerar_dask.kernels.normalize.channel import Site
from lerar_dask.kernels.normalize.common_gradient import parallactic_angle
from lerar_dask.kernels.register.parity import parity_by_pointing, parity_by_rotation
from lerar_dask.store.access import Store
from lerar_dask.sub import Sub

__all__ = ["site_of"]

USUAL_FIELD_DEG = 1.5
"""Field where no header tells the scale: it weighs the horizon's part a little more or less."""
_PLACE = ("site_lat_deg", "site_lon_deg", "ra_deg", "dec_deg")


def site_of(store: Store, subs: Sequence[Sub], transforms: np.ndarray) -> tuple[Site | None, str]:
    """Place, pointing and parity of a group, when they can be had.

    Parameters
    ----------
    transforms : (n, 3, 3) float64     reference plane to sub

    Returns
    -------
    site : Site or None
    text : str     a sentence when only the parity is missing, or was not told by a plate solution; else empty
    """
    frames = [store.frame(s.geometry, s.slot) for s in subs]
    headers = [f["header"] for f in frames]
    if not headers or any(h.get(word) is None for h in headers for word in _PLACE) or not all(s.start for s in subs):
        return None, ""
    scale = headers[0].get("scale_arcsec_px")
    parity, how = _solved_parity(frames, transforms), ""
    if not parity:
        parity, how = _moved_parity(subs, headers, transforms, scale)
    if not parity:
        return (
            None,
            "no header tells whether the picture is mirrored (a plate solution would): the gradient that all subs "
            "share is told without the horizon",
        )
    site = Site(
        latitude_deg=headers[0]["site_lat_deg"],
        longitude_deg=headers[0]["site_lon_deg"],
        ra_deg=headers[0]["ra_deg"],
        dec_deg=headers[0]["dec_deg"],
        parity=parity,
        field_deg=scale * max(subs[0].shape) / 3600.0 if scale else USUAL_FIELD_DEG,
    )
    return site, how and f"the horizon helps to tell the sky's gradient: {how} told how the sky lies"


def _solved_parity(frames: Sequence[Mapping[str, Any]], transforms: np.ndarray) -> int:
    """Parity of the reference plane by a plate solution in a header; 0 without one."""
    for frame, transform in list(zip(frames, transforms, strict=True))[:20]:
        own = Header.from_dict(frame["header"]).wcs
        sign = own.parity if own else 0
        if sign:
            return sign * int(np.sign(np.linalg.det(transform[:2, :2])))
    return 0


def _moved_parity(
    subs: Sequence[Sub], headers: Sequence[Mapping[str, Any]], transforms: np.ndarray, scale: float | None
) -> tuple[int, str]:
    """Parity by how the subs moved, and what told it."""
    rotation = np.arctan2(transforms[:, 1, 0], transforms[:, 0, 0])
    first = headers[0]
    zenith = parallactic_angle(
        np.array([s.start + s.exposure_s / 2 for s in subs]),
        latitude_deg=first["site_lat_deg"],
        longitude_deg=first["site_lon_deg"],
        ra_deg=first["ra_deg"],
        dec_deg=first["dec_deg"],
    )
    parity = parity_by_rotation(rotation, zenith)
    if parity:
        return parity, "the rotation of the field"
    middles = np.array([[(s.shape[1] - 1) / 2, (s.shape[0] - 1) / 2, 1.0] for s in subs])
    mapped = np.einsum("kij,kj->ki", np.linalg.inv(transforms), middles)
    parity = parity_by_pointing(
        mapped[:, :2] / mapped[:, 2:],
        np.array([[h["ra_deg"], h["dec_deg"]] for h in headers]),
        (np.cos(rotation - rotation[0]) < 0).astype(int),
        scale_arcsec_px=scale,
    )
    return parity, "the pointings in the headers" if parity else ""
