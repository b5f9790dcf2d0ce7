"""Everything measured on a sub of known sky, noise and stars."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.kernels.measure.sub import measure, measure_shapes

SHAPE, SKY, NOISE, SIGMA = (256, 320), 400.0, 8.0, 1.3
OPTIONS = dict(cell_px=64, detection_sigma=5.0, max_stars=100, max_spikes=50, saturated_raw=60000.0)
NO_DEFECTS = np.zeros(0, np.int32)


def places(step: int = 40) -> np.ndarray:
    ys, xs = np.mgrid[30 : SHAPE[0] - 20 : step, 30 : SHAPE[1] - 20 : step]
    return np.stack([xs.ravel() + 0.3, ys.ravel() - 0.2], axis=1).astype(float)


def sub(flux: float = 20000.0) -> np.ndarray:
    rng = np.random.default_rng(5)
    image = rng.normal(SKY, NOISE, SHAPE)
    ys, xs = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    for x, y in places():
        image += flux / (2 * np.pi * SIGMA**2) * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * SIGMA**2))
    return np.round(image).astype(np.uint16)


def measured(raw, cfa=None, defects=NO_DEFECTS):
    return measure(
        raw.astype(np.float32), raw, cfa=cfa, defects=defects, voids=np.zeros((0, 4), np.int32), blank=False, **OPTIONS
    )


@pytest.mark.parametrize("cfa", [None, "RGGB"])
def test_shapes_are_those_told_before(cfa):
    shapes = measure_shapes(SHAPE, cfa=cfa, cell_px=64, max_stars=100, max_spikes=50)
    found = measured(sub(), cfa)
    assert found.blocks.shape == shapes["blocks"]
    assert found.grid.shape == shapes["grid"]
    assert found.stars.shape[1:] == shapes["stars"][1:]
    assert len(found.stars) <= 100


@pytest.mark.parametrize(("cfa", "within"), [(None, 0.1), ("RGGB", 0.4)])
def test_stars_sky_and_noise_are_found(cfa, within):
    found = measured(sub(), cfa)
    assert found.summary["background_adu"] == pytest.approx(SKY, abs=2.0)
    assert found.summary["noise_adu"] == pytest.approx(NOISE, rel=0.1)
    apart = np.linalg.norm(found.stars[:, None, :2] - places()[None], axis=2)
    assert (apart.min(axis=0) < within).mean() > 0.95
    assert found.summary["n_stars"] == len(found.stars)
    assert len(found.stars) <= len(places()) + 2
    assert (np.diff(found.stars[:, 2]) <= 0).all()


def test_fwhm_and_flux():
    found = measured(sub())
    assert found.summary["fwhm_px"] == pytest.approx(2.355 * SIGMA, rel=0.1)
    assert np.median(found.stars[:, 2]) == pytest.approx(20000, rel=0.05)


def test_empty_sky_has_no_stars():
    assert measured(sub(0.0)).summary["n_stars"] <= 1


def test_hot_pixels_given_as_defects_are_left_out():
    raw = sub()
    raw[100, 100] = 50000
    at = np.array([100 * SHAPE[1] + 100], np.int32)
    without, plain = measured(raw, defects=at), measured(sub(), defects=at)
    np.testing.assert_array_equal(without.stars, plain.stars)
    assert without.blocks[0, 12, 12, 1] == 63
    assert measured(sub()).blocks[0, 0, 0, 1] == 64
