"""White by a catalog: stars are found by the WCS, and the factors are those that their colors ask for."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lerar_dask.errors import LerarError, UsageError
from lerar_dask.kernels.picture.balance import WHITES, band_ratios, catalog_factors
from lerar_dask.pipeline.catalog import catalog_colors, read_catalog

CARDS = {
    **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 41.0, "CRPIX1": 500.0, "CRPIX2": 400.0},
    **{
        "CD1_1": -3e-4,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": 3e-4,
        "OBJECT": ("M 31", "target"),
        "TELESCOP": ("", "none"),
    },
}


@pytest.fixture
def sky(tmp_path):
    """Forty stars in the picture, their catalog, and stars of the other side of the sky."""
    rng = np.random.default_rng(5)
    xy = np.column_stack([rng.uniform(20, 980, 40), rng.uniform(20, 780, 40)])
    plain = {k: v for k, v in CARDS.items() if not isinstance(v, tuple)}
    world = WCS(fits.Header(plain)).all_pix2world(xy, 0)
    colors = rng.uniform(-0.1, 1.6, 40)
    lines = [f"{ra:.7f},{dec:.7f},{c:.3f}" for (ra, dec), c in zip(world, colors, strict=True)]
    path = tmp_path / "stars.csv"
    path.write_text("\n".join(["RA_deg,dec_deg,b_v,name", *lines, "190,-41,0.5,far", "10,41,,nothing", "x,y,z"]))
    return xy, colors, path


def test_colors_are_found(sky):
    xy, colors, path = sky
    stars = np.column_stack([xy + 0.5, np.ones((40, 3))])
    stars = np.vstack([stars, [[-50, -50, 1, 1, 1]]])
    found = catalog_colors(path, CARDS, stars)
    np.testing.assert_allclose(found[:40], colors, atol=1e-3)
    assert np.isnan(found[40])
    assert len(read_catalog(path)) == 41


def test_factors_undo_the_cast_whatever_the_stars(sky):
    _, colors, _ = sky
    cast = np.array([0.7, 1.0, 0.4])
    fluxes = np.array([band_ratios(c, WHITES["g2v"]) for c in colors]) * cast
    for chosen in (colors < 0.6, colors > 0.9):  # a field of blue, or of red stars
        factors, scatter, used = catalog_factors(fluxes[chosen], colors[chosen], white="g2v")
        np.testing.assert_allclose(factors * cast, 1, rtol=1e-3)
        assert scatter < 0.01
        assert used == chosen.sum()
    assert catalog_factors(fluxes, np.full(40, np.nan))[0].tolist() == [1, 1, 1]


def test_rubbish_is_said(sky, tmp_path):
    xy, _, path = sky
    with pytest.raises(LerarError, match="plate solution"):
        catalog_colors(path, {}, xy)
    with pytest.raises(UsageError, match="cannot be read"):
        read_catalog(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("ra,dec\n1,2\n")
    with pytest.raises(UsageError, match="no column ra_deg"):
        read_catalog(tmp_path / "other.csv")


def test_the_balance_takes_the_catalogs_word():
    """A field of red stars alone: by the stars it would come out white, by the catalog red."""
    from lerar_dask.settings import Picture
    from lerar_dask.stages.picture.measure import Measured
    from lerar_dask.stages.picture.numbers import balance_of
    from lerar_dask.stages.picture.recipe import Channel, make_recipe

    recipe = make_recipe({r: Channel(master=r, channel=0, n_channels=1, group=r) for r in "RGB"})
    colors = np.random.default_rng(2).normal(1.3, 0.1, 60)
    fluxes = (
        np.array([band_ratios(c, WHITES["g2v"]) for c in colors])
        * [0.7, 1.0, 0.4]
        * np.geomspace(1e3, 1e5, 60)[:, None]
    )
    stars = np.column_stack([np.arange(60.0), np.arange(60.0), fluxes, fluxes / 10])
    tiles = np.ones((6, 6, 4, 3), np.float32) * [100, 2, 5000]
    given = (Measured(tiles.astype(np.float32), stars), recipe)
    full = (np.inf,) * 3
    by_stars = balance_of(*given, Picture(white="g2v"), (384, 384), full)
    by_catalog = balance_of(*given, Picture(white="g2v"), (384, 384), full, colors)
    np.testing.assert_allclose(np.array(by_catalog.factors) * [0.7, 1, 0.4], 1, rtol=1e-3)
    assert by_stars.factors[0] < 0.85 * by_catalog.factors[0]
    assert by_catalog.facts["white"] == "g2v, catalog"
