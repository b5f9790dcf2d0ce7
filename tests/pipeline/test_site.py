"""Place and parity of a group, from headers and from how its subs moved."""

import numpy as np
import pytest

from lerar_dask.frames.header import Header
from lerar_dask.frames.wcs import solution_of
from lerar_dask.kernels.normalize.common_gradient import parallactic_angle
from lerar_dask.pipeline.site import site_of
from lerar_dask.sub import Sub

N = 30
PLACE = {"site_lat_deg": 48.0, "site_lon_deg": 11.0, "ra_deg": 120.0, "dec_deg": 30.0, "scale_arcsec_px": 2.0}
SUBS = [
    Sub(
        id=str(k), path=f"{k}.fits", group="L", geometry="cam", slot=k, measure="m", calibration=None,
        start=1.7e9 + 180.0 * k, exposure_s=60.0, shape=(800, 1000), cfa=None, has_dark=True,
    )
    for k in range(N)
]  # fmt: skip


class Frames:
    """A store of headers."""

    def __init__(self, header, solution=None):
        self.header = Header(**header, wcs=solution).to_dict()

    def frame(self, geometry, slot):
        return {"header": self.header}


def turned(angles):
    found = np.tile(np.eye(3), (N, 1, 1))
    found[:, 0, 0] = found[:, 1, 1] = np.cos(angles)
    found[:, 1, 0], found[:, 0, 1] = np.sin(angles), -np.sin(angles)
    return found


STILL = turned(np.zeros(N))


CENTER = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 120.0, "CRVAL2": 30.0, "CRPIX1": 500, "CRPIX2": 400}


@pytest.mark.parametrize(
    ("cards", "parity"),
    [
        ({"CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4}, -1),
        ({"CD1_1": 0.0, "CD1_2": -1e-4, "CD2_1": 1e-4, "CD2_2": 0.0}, 1),
        ({"CDELT1": -1e-4, "CDELT2": 1e-4}, -1),
        ({"CDELT1": -1e-4, "CDELT2": 1e-4, "PC1_1": -1.0}, 1),
    ],
)
def test_a_plate_solution_tells_it(cards, parity):
    site, text = site_of(Frames(PLACE, solution_of({**CENTER, **cards})), SUBS, STILL)
    assert site.parity == parity
    assert site.field_deg == pytest.approx(1000 * 2 / 3600)
    assert text == ""


@pytest.mark.parametrize("parity", [1, -1])
def test_the_rotation_of_the_field_tells_it(parity):
    zenith = parallactic_angle(
        np.array([s.start + 30 for s in SUBS]), latitude_deg=48.0, longitude_deg=11.0, ra_deg=120.0, dec_deg=30.0
    )
    site, text = site_of(Frames(PLACE), SUBS, turned(parity * (zenith - zenith[0])))
    assert site.parity == parity
    assert "rotation" in text


def test_nothing_tells_it():
    site, text = site_of(Frames(PLACE), SUBS, STILL)
    assert site is None
    assert "mirrored" in text
    assert site_of(Frames(PLACE, solution_of({"CDELT1": -1e-4, "CDELT2": 1e-4})), SUBS, STILL)[0] is None


@pytest.mark.parametrize("word", ["site_lat_deg", "ra_deg"])
def test_a_place_that_is_not_known(word):
    assert site_of(Frames({**PLACE, word: None}), SUBS, STILL) == (None, "")
