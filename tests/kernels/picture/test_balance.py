"""White balance by stars: the median star becomes white, whatever a few colored ones do."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.kernels.picture.balance import WHITES, band_ratios, star_factors


def test_factors_undo_a_cast():
    rng = np.random.default_rng(2)
    colors = np.array([band_ratios(c, 0.7) for c in rng.normal(0.7, 0.25, 400)])
    cast = np.array([0.6, 1.0, 0.45])
    fluxes = colors * cast * rng.uniform(1, 100, (400, 1))
    fluxes[:40, 0] *= 8  # carbon stars
    fluxes[40] = [1, 2, -1]
    fluxes[41, 1] = np.nan
    factors, scatter, used = star_factors(fluxes)
    np.testing.assert_allclose(factors * cast, [1, 1, 1], rtol=0.04)
    assert 0.05 < scatter < 0.4
    assert 300 < used <= 398


def test_few_stars_change_nothing():
    factors, scatter, used = star_factors(np.ones((4, 3)))
    assert factors.tolist() == [1, 1, 1]
    assert np.isnan(scatter)
    assert used == 4


def test_whites_are_ordered_by_their_color():
    """The bluer what is white, the yellower the usual star."""
    fluxes = np.ones((50, 3)) * np.arange(1, 51)[:, None]
    red = {name: star_factors(fluxes, white=name)[0][0] for name in WHITES}
    assert red["stars"] == pytest.approx(1)
    assert red["stars"] < red["g2v"] < red["spiral"]
    assert band_ratios(1.5, 0.65)[0] > 1.4  # an orange giant
    assert band_ratios(0.0, 0.65)[2] > 1.2  # Vega
