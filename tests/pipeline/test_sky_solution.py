"""One solution from those of many subs: distortion kept, errors averaged, wrong ones left out."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, Sip

from lerar_dask.frames.sky_points import points_of
from lerar_dask.pipeline.sky_solution import joint_solution

SHAPE = (2000, 3000)


def solution(*, distortion=0.0, shift=(0.0, 0.0)) -> WCS:
    """1.3 arcsec per pixel, turned by 20 degrees; `distortion` px at the corners."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if distortion else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = [1500.0 + shift[0], 1000.0 + shift[1]]
    wcs.wcs.crval = [359.99, 62.0]
    c, s, step = np.cos(0.35), np.sin(0.35), 1.3 / 3600
    wcs.wcs.cd = step * np.array([[-c, s], [s, c]])
    if distortion:
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        k = distortion / 1800**3
        a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = k
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def cards_of(wcs) -> list[str]:
    header = fits.Header({"OBJECT": "x"})
    header.update(wcs.to_header(relax=True))
    return [card.image for card in header.cards]


def placed(turn_deg, shift) -> np.ndarray:
    """Grid to sub."""
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]], [2e-8, -1e-8, 1.0]])


@pytest.mark.parametrize("distortion", [0.0, 6.0])
def test_the_sky_stays_where_it_is(distortion):
    sub, transform = solution(distortion=distortion), placed(3.0, (40.0, -25.0))
    found = joint_solution([points_of(cards_of(sub), SHAPE, transform)])
    assert ("A_ORDER" in found) == bool(distortion)
    ys, xs = np.mgrid[100:1900:7j, 100:2900:9j]
    here = np.column_stack([xs.ravel(), ys.ravel()])
    there = np.column_stack([here, np.ones(len(here))]) @ transform.T
    sky = sub.all_pix2world(there[:, :2] / there[:, 2:], 0)
    back = WCS(fits.Header(found)).all_world2pix(sky, 0)
    assert np.abs(back - here).max() < 0.1


def test_errors_shrink_and_wrong_solutions_are_left_out():
    rng = np.random.default_rng(3)
    tables = []
    for k in range(12):
        transform = placed(rng.uniform(-1, 1), rng.uniform(-30, 30, 2))
        moved = WCS(naxis=2)
        moved.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        true = solution()
        # A sub's own solution: the field's, seen through its transform, with an error of 0.4 px.
        center = transform @ np.array([1499.0, 999.0, 1.0])
        moved.wcs.crpix = center[:2] / center[2] + 1 + rng.normal(0, 0.4, 2) + (25.0 if k == 5 else 0.0)
        moved.wcs.crval = true.wcs.crval
        moved.wcs.cd = true.wcs.cd @ np.linalg.inv(transform[:2, :2])
        tables.append(points_of(cards_of(moved), SHAPE, transform))
    found = WCS(fits.Header(joint_solution(tables)))
    here = np.array([[200.0, 150.0], [1500.0, 1000.0], [2800.0, 1900.0]])
    error = found.all_world2pix(solution().all_pix2world(here, 0), 0) - here
    assert np.abs(error).max() < 0.35  # 0.4 px over root 11, and the small perspective
    single = WCS(fits.Header(joint_solution(tables[5:6])))
    assert np.abs(single.all_world2pix(solution().all_pix2world(here, 0), 0) - here).max() > 10


@pytest.mark.parametrize(
    "cards",
    [
        [],
        ["OBJECT  = 'x'"],
        ["CTYPE1  = 'RA---TAN'", "CTYPE2  = 'DEC--TAN'", "CRVAL1  = 'abc'"],
        ["CTYPE1  = 'RA---TAN-SIP'", "CTYPE2  = 'DEC--TAN-SIP'", "A_ORDER =                   99"],
        ["\0" * 80, "CTYPE1  = 'GLON-CAR'"],
    ],
)
def test_rubbish_is_no_solution(cards):
    table = points_of(cards, SHAPE, np.eye(3))
    assert table is None or table.shape[1] == 4
    assert joint_solution([]) is None
