"""Parity from moving skies: told in both, silent where nothing tells it."""

import numpy as np
import pytest

from lerar_dask.kernels.normalize.common_gradient import parallactic_angle
from lerar_dask.kernels.register.parity import parity_by_pointing, parity_by_rotation

TIME = 1.7e9 + 240.0 * np.arange(90)
ZENITH = parallactic_angle(TIME, latitude_deg=48.0, longitude_deg=11.0, ra_deg=120.0, dec_deg=30.0)


def altaz_rotation(parity: int) -> np.ndarray:
    """Turn from the first sub to each, of a camera whose y axis points to the zenith."""
    found = []
    for q in ZENITH:
        # Columns: where east and north lie in the picture (x, y).
        north, east = (np.array([-parity * np.sin(q + a), np.cos(q + a)]) for a in (0.0, -np.pi / 2))
        found.append(np.stack([east, north], axis=1))
    turns = [m @ np.linalg.inv(found[0]) for m in found]
    assert all(np.linalg.det(m) * parity > 0 for m in found)
    return np.array([np.arctan2(t[1, 0], t[0, 0]) for t in turns])


@pytest.mark.parametrize("parity", [1, -1])
def test_an_azimuthal_mount_turns_the_field(parity):
    rotation = altaz_rotation(parity)
    assert np.ptp(ZENITH) > 0.1
    assert parity_by_rotation(rotation, ZENITH) == parity
    assert parity_by_rotation(rotation + np.pi * (np.arange(90) > 40), ZENITH) == parity


def test_an_equatorial_mount_does_not():
    rng = np.random.default_rng(1)
    rotation = 0.002 * rng.standard_normal(90) + np.pi * (np.arange(90) > 40)
    assert parity_by_rotation(rotation, ZENITH) == 0
    assert parity_by_rotation(altaz_rotation(1)[:4], ZENITH[:4]) == 0


def pointed(parity, noise_px=0.5, along_ra=False, seed=2):
    """Centers and pointings of dithers at 2 arcsec/px, camera turned by 25 degrees, with a flip of the pier."""
    rng = np.random.default_rng(seed)
    sky = rng.uniform(-20, 20, 24) * 1.0 + 1j * rng.uniform(-20, 20, 24) * (not along_ra)
    side = (np.arange(24) >= 12).astype(int)
    place = (sky if parity > 0 else sky.conj()) / 2.0 * np.exp(0.44j) + np.where(side, 90 - 30j, 0)
    place += noise_px * (rng.standard_normal(24) + 1j * rng.standard_normal(24))
    dec = 47.0 + sky.imag / 3600
    ra = (0.001 + sky.real / 3600 / np.cos(np.radians(47.0))) % 360
    return np.column_stack([place.real, place.imag]), np.column_stack([ra, dec]), side


@pytest.mark.parametrize("parity", [1, -1])
def test_dithers_that_the_mount_wrote(parity):
    assert parity_by_pointing(*pointed(parity)) == parity
    assert parity_by_pointing(*pointed(parity), scale_arcsec_px=2.05) == parity


def test_pointings_that_tell_nothing():
    assert parity_by_pointing(*pointed(1, along_ra=True)) == 0
    assert parity_by_pointing(*pointed(1, noise_px=30.0)) == 0
    assert parity_by_pointing(*pointed(1), scale_arcsec_px=1.0) == 0
    centers, pointings, side = pointed(1)
    assert parity_by_pointing(centers, np.tile(pointings[:1], (24, 1)), side) == 0
    assert parity_by_pointing(centers, np.round(pointings, 1), side) == 0
