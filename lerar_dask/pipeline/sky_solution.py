"""The WCS of a master: the plate solutions of its subs, distortion included, brought onto its grid and made one.

In   the original headers of subs, and where they lie on the grid
Out  cards of one solution, TAN or TAN-SIP, in the reference plane

Every solution tells the sky at pixels of its own sub; registration tells where they lie on the grid. One solution is fitted
to all of them together, so that the error of a single plate solution shrinks with their number, and those that point
elsewhere than most are left out. Distortion terms are taken in as far as the fit needs them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerar_dask.constants import MAD_TO_SIGMA

__all__ = ["joint_solution", "points_of"]

_WORDS = re.compile(
    r"C(TYPE|RVAL|RPIX|DELT|ROTA|UNIT)[12]|(CD|PC|PV)[12]_\d+|[AB]P?_(ORDER|\d_\d)|L(ON|AT)POLE|RADESYS|EQUINOX|WCSAXES"
)
_GRID = 9
"""Points along each side of a sub."""
_MOST_POINTS = 900
_GOOD_PX = 0.03
"""Error of a fit that needs no more terms."""
_DEGREES = (2, 3, 4)
_APART_PX = 2.0
"""A solution that lies further from most, and from three times their scatter, is left out."""


def points_of(cards: Sequence[str], shape: tuple[int, int], transform: np.ndarray) -> np.ndarray | None:
    """Points of a sub on the grid and in the sky by the solution of its header; None where it has none.

    Parameters
    ----------
    cards : original header cards, 80 characters each
    transform : (3, 3) float64     reference plane to sub

    Returns
    -------
    (n, 4) float64     x, y in the reference plane (the first pixel is 0); right ascension and declination, degrees
    """
    from astropy.io import fits
    from astropy.wcs import WCS

    ys, xs = np.meshgrid(np.linspace(0, shape[0] - 1, _GRID), np.linspace(0, shape[1] - 1, _GRID), indexing="ij")
    pixels = np.column_stack([xs.ravel(), ys.ravel()])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solution = WCS(fits.Header.fromstring("".join(_of_solution(cards))), naxis=2)
            if not solution.has_celestial:
                return None
            sky = solution.all_pix2world(pixels, 0)
        back = np.linalg.inv(transform)
    except Exception:  # headers are foreign, and a solution is a bonus: what cannot be used is none
        return None
    here = np.column_stack([pixels, np.ones(len(pixels))]) @ back.T
    table = np.column_stack([here[:, :2] / here[:, 2:], sky])
    return table if np.isfinite(table).all() else None


def _of_solution(cards: Sequence[str]) -> list[str]:
    """Cards of a plate solution, the first of each word: those of a packed file's table stand among them."""
    found: dict[str, str] = {}
    for card in cards:
        word = card[:8].strip()
        if _WORDS.fullmatch(word):
            found.setdefault(word, card.ljust(80)[:80])
    return list(found.values())


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
    spread = [_tangent(t, tables[0][0, 2:]) for t in tables]
    scale = np.median([_px_per_degree(table, plane) for table, plane in zip(tables, spread, strict=True)])
    # Where each says that the grid's middle lies: an affine fit of its own points.
    middle = np.median(np.concatenate([t[:, :2] for t in tables]), axis=0)
    places = np.array([_at(table, plane, middle) for table, plane in zip(tables, spread, strict=True)]) * scale
    away = np.hypot(*(places - np.median(places, axis=0)).T)
    limit = max(_APART_PX, 3 * MAD_TO_SIGMA * float(np.median(away)))
    return [table for table, d in zip(tables, away, strict=True) if d <= limit] or list(tables)


def _tangent(table: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Gnomonic plane about a point of the sky, degrees."""
    ra, dec = np.deg2rad(table[:, 2] - center[0]), np.deg2rad(table[:, 3])
    d0 = np.deg2rad(center[1])
    depth = np.sin(d0) * np.sin(dec) + np.cos(d0) * np.cos(dec) * np.cos(ra)
    x = np.cos(dec) * np.sin(ra) / depth
    y = (np.cos(d0) * np.sin(dec) - np.sin(d0) * np.cos(dec) * np.cos(ra)) / depth
    return np.rad2deg(np.column_stack([x, y]))


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
