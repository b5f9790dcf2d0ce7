"""Stars of a catalog of the user's: any table with right ascension and declination, brightest first."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from lerar_dask.errors import UsageError

__all__ = ["read_stars"]

_RA = ("ra_deg", "ra", "raj2000", "_raj2000", "ra_icrs", "radeg")
_DEC = ("dec_deg", "dec", "de", "dej2000", "_dej2000", "dec_icrs", "de_icrs", "dedeg")
_MAG = ("mag", "phot_g_mean_mag", "gmag", "vtmag", "vmag", "v", "g", "rmag", "r", "magnitude")


def read_stars(path: Path) -> np.ndarray:
    """Right ascension and declination in degrees (ICRS) of the stars of a table, (n, 2) float64, brightest first.

    Anything that astropy reads by its name: CSV, ECSV, FITS, VOTable. Columns as Gaia and VizieR call them; without one of
    magnitudes the order of the table is that of brightness.

    Raises
    ------
    UsageError
        when it cannot be read, or lacks a column.
    """
    from astropy.table import Table

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = Table.read(path)
    except Exception as error:  # each format's reader has errors of its own
        raise UsageError(f"--solve {path} cannot be read as a table of stars ({error})") from error
    names = {str(name).strip().lower(): name for name in table.colnames}
    columns = []
    for known, what in ((_RA, "right ascension"), (_DEC, "declination")):
        name = next((names[word] for word in known if word in names), None)
        if name is None:
            raise UsageError(f"--solve {path} has no column of {what}", f"it may be called {', '.join(known)}")
        columns.append(_numbers(table[name]))
    light = next((_numbers(table[names[word]]) for word in _MAG if word in names), None)
    stars = np.column_stack([*columns, np.arange(len(table)) if light is None else light])
    stars = stars[np.isfinite(stars).all(axis=1) & (np.abs(stars[:, 1]) <= 90)]
    return np.asarray(stars[np.argsort(stars[:, 2], kind="stable"), :2])


def _numbers(column: object) -> np.ndarray:
    """Values as float64; NaN where there is none."""
    try:
        return np.ma.asarray(column, np.float64).filled(np.nan)
    except (TypeError, ValueError):
        return np.full(len(column), np.nan)  # type: ignore[arg-type]
