"""Where a target lies in the sky, by `--solve`: its own stars against a catalog of the user's, or by `solve-field`.

In   the stars of all its subs together, on its grid; what the headers say of pointing and scale, if they do
Out  cards of a solution in the reference plane, or a sentence why there is none

A catalog of any size serves: where headers do not tell the pointing it must show one region of the sky. Its stars are
matched as those of another sub are, with a proof; then every star that both have takes part in the fit. `solve-field` is
astrometry.net's own program, with the index files of the user's.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lerar_dask.constants import MAD_TO_SIGMA
from lerar_dask.errors import LerarError, UsageError
from lerar_dask.identity import code_of, digest
from lerar_dask.kernels.register.asterism import StarList, match_stars
from lerar_dask.kernels.register.joint import mean_catalogue
from lerar_dask.kernels.register.sphere import gnomonic
from lerar_dask.kernels.register.transform import apply
from lerar_dask.pipeline.session import Session
from lerar_dask.pipeline.sky_solution import joint_solution
from lerar_dask.pipeline.star_catalog import read_stars
from lerar_dask.pipeline.work import TargetWork
from lerar_dask.stages.register.lists import MATCH_STARS, SIGMA_PX, stars_of

__all__ = ["check_solver", "plate_solution"]

SOLVE_FIELD = "solve-field"
_MOST_SUBS = 40
_SECONDS = 300
_SCALES_ARCSEC_PX = (0.4, 2.0, 10.0, 50.0)
"""Tried in turn where no header tells the scale; a match finds any that is up to 3 times another."""
_WIDEST_DEG = 25.0
"""A catalog of a larger part of the sky needs a pointing."""
_SEARCH_PX = (6.0, 3.0, 1.5)
_FEWEST = 10
"""Stars in a solution that is believed."""
_ACCEPT = float(np.log(1e9))
"""Log-odds of a match that is believed."""
_APART = 4.0
"""Sigma from which on a pair is none."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """What is to be solved."""

    stars: np.ndarray
    """(n, 2) float64 on the canvas, brightest first."""
    shape: tuple[int, int]
    pointing_deg: tuple[float, float] | None
    scale_arcsec_px: float | None


def check_solver(wanted: str) -> None:
    """Refuse what cannot solve before anything is read.

    Raises
    ------
    UsageError
        for a program that is not installed, or a file that is no catalog.
    """
    if not wanted:
        return
    if Path(wanted).name == SOLVE_FIELD:
        if not shutil.which(wanted):
            raise UsageError(
                f"--solve {wanted}: no such program", "astrometry.net brings it, in a package of that name"
            )
        return
    if not Path(wanted).is_file():
        raise UsageError(f"--solve {wanted}: no such file", f"give a table of stars, or {SOLVE_FIELD}")
    read_stars(Path(wanted))


def plate_solution(session: Session, target: TargetWork) -> tuple[dict[str, Any] | None, str]:
    """Cards of a target's solution, and a sentence on how it was found, or why it was not."""
    wanted = session.settings.products.solve
    if not wanted or target.canvas is None:
        return None, ""
    made_of = digest("solve", code_of(__name__), target.registration_key, target.canvas, wanted, _seen(wanted))
    key = f"solve/{target.name}"
    record = session.known.get(key)
    if record is None or record["digest"] != made_of:
        field = _field_of(session, target)
        try:
            points, how = _by_program(wanted, field) if _is_program(wanted) else _by_catalog(Path(wanted), field)
            origin = target.canvas.origin_yx[::-1]
            cards = joint_solution([np.column_stack([points[:, :2] + origin, points[:, 2:]])])
            result = {"cards": cards or {}, "note": f"{target.name}: solved by {how}"}
        except LerarError as error:
            result = {"cards": {}, "note": f"{target.name}: no plate solution by --solve: {error.message}"}
        session.note(key, made_of, result=result)
    told = session.known[key]["result"]
    return dict(told["cards"]) or None, str(told["note"])


def _is_program(wanted: str) -> bool:
    return Path(wanted).name == SOLVE_FIELD


def _seen(wanted: str) -> tuple[int, int]:
    """Size and time of a catalog."""
    if _is_program(wanted):
        return 0, 0
    stat = Path(wanted).stat()
    return stat.st_size, stat.st_mtime_ns


def _field_of(session: Session, target: TargetWork) -> Field:
    """Stars of the target's subs together, and what their headers say."""
    assert target.registration is not None
    assert target.canvas is not None
    good = [i for i, reason in enumerate(target.reasons) if not reason]
    chosen = [good[k] for k in np.unique(np.linspace(0, len(good) - 1, _MOST_SUBS).round().astype(int))]
    subs = [target.subs[i] for i in chosen]
    stars = [stars_of(session.store, sub) for sub in subs]
    catalogue = mean_catalogue(target.transforms[chosen], stars, reference=0, merge_px=2.5)
    xy = catalogue.xy[np.argsort(-catalogue.flux, kind="stable")] - target.canvas.origin_yx[::-1]
    inside = ((xy >= 0) & (xy <= np.array(target.canvas.shape[::-1]) - 1)).all(axis=1)
    headers = [session.store.frame(sub.geometry, sub.slot)["header"] for sub in subs]
    scales = [sub.scale_arcsec_px for sub in (target.reference, *subs) if sub and sub.scale_arcsec_px]
    return Field(
        stars=xy[inside],
        shape=target.canvas.shape,
        pointing_deg=_pointing(headers),
        scale_arcsec_px=scales[0] if scales else None,
    )


def _pointing(headers: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Where the telescope pointed, in degrees, by the first header that says so."""
    for header in headers:
        if header.get("ra_deg") is not None and header.get("dec_deg") is not None:
            return float(header["ra_deg"]), float(header["dec_deg"])
    return None


# ----------------------------------------------------------------------------------------------------- by a catalog


def _by_catalog(path: Path, field: Field) -> tuple[np.ndarray, str]:
    """Points (x, y, right ascension, declination) of stars that a catalog has too, and a word on it."""
    catalog = read_stars(path)
    center = np.array(field.pointing_deg or _middle_of(catalog, path))
    scales = (field.scale_arcsec_px,) if field.scale_arcsec_px else _SCALES_ARCSEC_PX
    for scale in scales:
        points = _matched(catalog, center, scale, field)
        if points is not None:
            break
    else:
        raise LerarError(f"the stars of {path.name} match those of the subs not")
    for search_px in _SEARCH_PX:
        points = _paired(catalog, points, field, search_px)
        if len(points) < _FEWEST:
            raise LerarError(f"only {len(points)} stars of {path.name} lie where the subs have one")
    return points, f"{len(points)} stars of {path.name}"


def _middle_of(catalog: np.ndarray, path: Path) -> tuple[float, float]:
    """Middle of a catalog of one region."""
    if not len(catalog):
        raise LerarError(f"{path.name} holds no star")
    ra, dec = np.deg2rad(catalog.T)
    rays = np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    mean = rays.mean(axis=0)
    mean /= max(float(np.linalg.norm(mean)), 1e-12)
    if np.rad2deg(np.arccos(np.clip(rays @ mean, -1, 1))).max() > _WIDEST_DEG:
        raise LerarError(f"no header says where the telescope pointed, and {path.name} shows more than one region")
    return float(np.rad2deg(np.arctan2(mean[1], mean[0])) % 360), float(np.rad2deg(np.arcsin(mean[2])))


def _matched(catalog: np.ndarray, center: np.ndarray, scale: float, field: Field) -> np.ndarray | None:
    """Pairs of a match with a proof; None where there is none."""
    height, width = field.shape
    reach_deg = min(float(np.hypot(height, width)) * scale / 3600, 60.0)
    near = _separation(catalog, center) < reach_deg
    plane = gnomonic(catalog[near], center) * 3600 / scale
    if len(plane) < _FEWEST:
        return None
    low = plane.min(axis=0)
    shape = tuple(int(n) + 1 for n in (plane.max(axis=0) - low)[::-1])
    ours, theirs = StarList(field.stars[:MATCH_STARS], field.shape), StarList((plane - low)[: 4 * MATCH_STARS], shape)  # type: ignore[arg-type]
    found = match_stars(theirs, ours, sigma_px=SIGMA_PX, accept=_ACCEPT)
    if found is None:
        return None
    return _pairs(apply(found.transform, plane - low), catalog[near], field, 2 * _SEARCH_PX[0])


def _separation(sky_deg: np.ndarray, center_deg: np.ndarray) -> np.ndarray:
    """Angle to a center, degrees (haversine)."""
    ra, dec = np.deg2rad(sky_deg.T)
    ra0, dec0 = np.deg2rad(center_deg)
    h = np.sin((dec - dec0) / 2) ** 2 + np.cos(dec) * np.cos(dec0) * np.sin((ra - ra0) / 2) ** 2
    return np.asarray(np.rad2deg(2 * np.arcsin(np.sqrt(np.clip(h, 0, 1)))))


def _pairs(xy: np.ndarray, sky: np.ndarray, field: Field, search_px: float) -> np.ndarray:
    """Stars that are each other's nearest within a distance: x, y, right ascension, declination."""
    there = np.isfinite(xy).all(axis=1)
    xy, sky = xy[there], sky[there]
    if not len(xy):
        return np.zeros((0, 4))
    distance, theirs = cKDTree(xy).query(field.stars)
    _, back = cKDTree(field.stars).query(xy)
    both = (distance < search_px) & (back[theirs] == np.arange(len(field.stars)))
    return np.column_stack([field.stars[both], sky[theirs[both]]])


def _paired(catalog: np.ndarray, points: np.ndarray, field: Field, search_px: float) -> np.ndarray:
    """Pairs by a fit to pairs, without those that lie apart from it."""
    from astropy.io import fits
    from astropy.wcs import WCS

    cards = joint_solution([points])
    if cards is None:
        raise LerarError("the stars that match make no solution")
    near = catalog[_separation(catalog, points[:, 2:].mean(axis=0) if len(points) else catalog[0]) < 60]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wcs = WCS(fits.Header(cards), naxis=2)
        xy = np.column_stack(wcs.all_world2pix(near[:, 0], near[:, 1], 0, quiet=True))
        found = _pairs(xy, near, field, search_px)
        apart = np.hypot(
            *(np.column_stack(wcs.all_world2pix(found[:, 2], found[:, 3], 0, quiet=True)) - found[:, :2]).T
        )
    usual = MAD_TO_SIGMA * float(np.median(apart)) if len(apart) else 0.0
    return found[apart <= max(_APART * usual, 0.05)]


# ------------------------------------------------------------------------------------------------------ by solve-field


def _by_program(program: str, field: Field) -> tuple[np.ndarray, str]:
    """Points of the solution that astrometry.net finds for the stars."""
    from astropy.io import fits
    from astropy.table import Table
    from astropy.wcs import WCS

    height, width = field.shape
    with tempfile.TemporaryDirectory(prefix="lerar-solve-") as folder:
        stars = field.stars[:MATCH_STARS] + 1
        order = np.arange(len(stars), 0, -1, dtype=np.float32)
        Table({"X": stars[:, 0], "Y": stars[:, 1], "FLUX": order}).write(Path(folder) / "stars.xyls", format="fits")
        size = ["--width", str(width), "--height", str(height)]
        columns = ["--x-column", "X", "--y-column", "Y", "--sort-column", "FLUX"]
        command = [program, "--overwrite", "--no-plots", "--cpulimit", str(_SECONDS), *size, *columns, *_hints(field)]
        try:
            done = subprocess.run(
                [*command, "--dir", folder, str(Path(folder) / "stars.xyls")],
                capture_output=True,
                text=True,
                timeout=2 * _SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LerarError(f"{program} did not end well ({error})") from error
        solution = Path(folder) / "stars.wcs"
        if not solution.exists():
            said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise LerarError(f"{program} found none" + (f" ({said[-1][:200]})" if said else ""))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(fits.getheader(solution), naxis=2)
            ys, xs = np.meshgrid(np.linspace(0, height - 1, 25), np.linspace(0, width - 1, 25), indexing="ij")
            pixels = np.column_stack([xs.ravel(), ys.ravel()])
            return np.column_stack([pixels, wcs.all_pix2world(pixels, 0)]), SOLVE_FIELD


def _hints(field: Field) -> list[str]:
    """Where and how large the field is, as far as headers tell."""
    hints = []
    if field.scale_arcsec_px:
        low, high = 0.5 * field.scale_arcsec_px, 2 * field.scale_arcsec_px
        hints += ["--scale-units", "arcsecperpix", "--scale-low", f"{low:.4f}", "--scale-high", f"{high:.4f}"]
    if field.pointing_deg:
        hints += ["--ra", f"{field.pointing_deg[0]:.6f}", "--dec", f"{field.pointing_deg[1]:.6f}", "--radius", "10"]
    return hints
