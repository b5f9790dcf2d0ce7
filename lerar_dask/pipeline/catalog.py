"""Colors of stars from a catalog of the user's: a CSV with ra_deg, dec_deg and b_v, matched by the WCS of a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lerar_dask.errors import LerarError, UsageError

__all__ = ["catalog_colors", "read_catalog"]

_NEAR_PX = 3.0
_COLUMNS = ("ra_deg", "dec_deg", "b_v")


def read_catalog(path: Path) -> np.ndarray:
    """Right ascension, declination, B-V of each star, (n, 3) float64; lines without numbers are left out.

    Raises
    ------
    UsageError
        when it cannot be read, or lacks a column.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names = {str(name).strip().lower(): name for name in reader.fieldnames or ()}
            if missing := [c for c in _COLUMNS if c not in names]:
                raise UsageError(f"--catalog {path} has no column {missing[0]}", f"it needs {', '.join(_COLUMNS)}")
            rows = [[_number(row[names[c]]) for c in _COLUMNS] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--catalog {path} cannot be read ({error})") from error
    table = np.array(rows, np.float64).reshape(-1, 3)
    return table[np.isfinite(table).all(axis=1)]


def catalog_colors(path: Path, cards: Mapping[str, Any], stars: np.ndarray) -> np.ndarray:
    """B-V of stars, (n,) float64; NaN where the catalog has none there.

    Parameters
    ----------
    cards : header words of the picture, its WCS among them
    stars : (n, 2+) float64     x, y

    Raises
    ------
    LerarError
        where the picture has no WCS.
    """
    from astropy.io import fits
    from astropy.wcs import WCS

    if "CTYPE1" not in cards:
        raise LerarError("--catalog needs to know where the picture lies in the sky, and no sub has a plate solution")
    table = read_catalog(path)
    plain = {k: v[0] if isinstance(v, tuple | list) else v for k, v in cards.items()}
    colors = np.full(len(stars), np.nan)
    if not len(table) or not len(stars):
        return colors
    wcs = WCS(fits.Header({k: v for k, v in plain.items() if v is not None and v != ""}), naxis=2)
    near = np.cos(np.deg2rad(table[:, 1] - plain["CRVAL2"])) > 0.5  # the other half of the sky has no place in a plane
    xy = np.column_stack(wcs.all_world2pix(table[near, 0], table[near, 1], 0, quiet=True))
    good = np.isfinite(xy).all(axis=1)
    if good.any():
        distance, index = cKDTree(xy[good]).query(stars[:, :2])
        found = distance <= _NEAR_PX
        colors[found] = table[near, 2][good][index[found]]
    return colors


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")
