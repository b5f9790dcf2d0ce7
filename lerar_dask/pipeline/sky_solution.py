"""The WCS of a master: the plate solutions of its subs, distortion included, brought onto its grid and made one.

In   the original headers of subs, and where they lie on the grid
Out  cards of one solution, TAN or TAN-SIP, in the reference plane

Every solution tells the sky at pixels of its own sub; registration tells where they lie on the grid. One solution is fitted
to all of them together, so that the error of a single plate solution shrinks with their number, and those that point
elsewhere than most are left out. Distortion terms are taken in as far as the fit needs them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.kernels.register.sphere import gnomonic

__all__ = ["joint_solution"]

_MOST_POINTS = 900
_GOOD_PX = 0.03
"""Error of a fit that needs no more terms."""
_DEGREES = (2, 3, 4)
_APART_PX = 2.0
"""A solution that lies further from most, and from three times their scatter, is left out."""


def joint_solution(tables: Sequence[np.ndarray]) -> dict[str, Any] | None:
    """One solution of the points of all subs; None where they do not make one.

    Parameters
    ----------
    tables : of `points_of`, one per sub
    """
    if not tables:
        return None
    kept = _agreeing(tables)
    points = np.concatenate(kept)
    points = points[:: max(1, -(-len(points) // _MOST_POINTS))]
    found, error = _fitted(points, None)
    if found is not None and error > _GOOD_PX:
        for degree in _DEGREES:
            better, left = _fitted(points, degree)
            if better is not None and left < 0.7 * error:
                found, error = better, left
            if error <= _GOOD_PX:
                break
    return found


def _agreeing(tables: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The solutions that point where most do."""
    if len(tables) < 3:
        return list(tables)
    spread = [gnomonic(t[:, 2:], tables[0][0, 2:]) for t in tables]
    scale = np.median([_px_per_degree(table, plane) for table, plane in zip(tables, spread, strict=True)])
    # Where each says that the grid's middle lies: an affine fit of its own points.
    middle = np.median(np.concatenate([t[:, :2] for t in tables]), axis=0)
    places = np.array([_at(table, plane, middle) for table, plane in zip(tables, spread, strict=True)]) * scale
    away = np.hypot(*(places - np.median(places, axis=0)).T)
    limit = max(_APART_PX, 3 * MAD_TO_SIGMA * float(np.median(away)))
    return [table for table, d in zip(tables, away, strict=True) if d <= limit] or list(tables)


def _px_per_degree(table: np.ndarray, plane: np.ndarray) -> float:
    return float(np.hypot(*(table[-1, :2] - table[0, :2])) / max(np.hypot(*(plane[-1] - plane[0])), 1e-12))


def _at(table: np.ndarray, plane: np.ndarray, middle: np.ndarray) -> np.ndarray:
    terms = np.column_stack([table[:, :2] - middle, np.ones(len(table))])
    return np.asarray(np.linalg.lstsq(terms, plane, rcond=None)[0][2])


def _fitted(points: np.ndarray, degree: int | None) -> tuple[dict[str, Any] | None, float]:
    """Cards of a fit, and its error in pixels."""
    from astropy.coordinates import SkyCoord
    from astropy.wcs.utils import fit_wcs_from_points

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sky = SkyCoord(points[:, 2], points[:, 3], unit="deg")
            wcs = fit_wcs_from_points((points[:, 0], points[:, 1]), sky, projection="TAN", sip_degree=degree)
            back = np.column_stack(wcs.all_world2pix(points[:, 2], points[:, 3], 0, quiet=True))
            cards = _cards(wcs.to_header(relax=True))
    except Exception:  # see above: least squares on foreign numbers
        return None, np.inf
    error = float(np.sqrt(np.mean((back - points[:, :2]) ** 2)))
    return (cards, error) if np.isfinite(error) else (None, np.inf)


def _cards(header: Mapping[str, Any]) -> dict[str, Any]:
    """Cards with a CD matrix, which all programs of the field read."""
    step = [float(header.get(f"CDELT{i}", 1.0)) for i in (1, 2)]
    matrix = {
        f"CD{i}_{j}": step[i - 1] * float(header.get(f"PC{i}_{j}", 1.0 if i == j else 0.0))
        for i in (1, 2)
        for j in (1, 2)
    }
    plain = {k: header[k] for k in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2") if k in header}
    terms = {k: v for k, v in header.items() if k.split("_")[0] in ("A", "B", "AP", "BP") and "_" in k}
    return {**plain, **matrix, "RADESYS": header.get("RADESYS", "ICRS"), **terms}
