"""Bands of a large image: together they tell what the whole does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerar_dask.kernels.measure.joined import bands_of, join_bands
from lerar_dask.kernels.measure.sub import measure


def sky(height=1024, width=400, n=150, seed=3):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = (1000 + 0.05 * y + rng.normal(0, 6, (height, width))).astype(np.float32)
    for sx, sy, light in zip(
        rng.uniform(5, width - 5, n), rng.uniform(5, height - 5, n), 10 ** rng.uniform(3.5, 5, n), strict=True
    ):
        part = (slice(max(0, int(sy) - 12), int(sy) + 13), slice(max(0, int(sx) - 12), int(sx) + 13))
        image[part] += light / 14 * np.exp(-((x[part] - sx) ** 2 + (y[part] - sy) ** 2) / (2 * 1.5**2))
    return image


def measured(image):
    settings = {"cfa": None, "cell_px": 64, "detection_sigma": 5.0, "max_stars": 500, "max_spikes": 1}
    nothing = {"defects": np.zeros(0, np.int32), "voids": np.zeros((0, 4), np.int32), "blank": False}
    return measure(image.copy(), image.copy(), **settings, saturated_raw=np.inf, **nothing)


@given(st.integers(1, 5000), st.integers(1, 3000), st.sampled_from([16, 20, 64, 256]), st.integers(1_000, 4_000_000))
def test_bands_cover_every_row_once(height, width, cell_px, most_px):
    bands = bands_of((height, width), cell_px=cell_px, most_px=most_px)
    assert [b.own_first for b in bands] == [0, *(b.own_last for b in bands[:-1])]
    assert bands[-1].own_last == height
    for band in bands:
        assert 0 <= band.first <= band.own_first < band.own_last <= band.last <= height
        assert band.first % cell_px == band.own_first % cell_px == band.first % 8 == band.own_first % 8 == 0


def test_bands_tell_what_the_whole_does():
    image = sky()
    bands = bands_of(image.shape, cell_px=64, most_px=640 * 400)
    assert len(bands) > 2
    joined = join_bands([(b, measured(image[b.first : b.last])) for b in bands], cell_px=64, max_stars=500)
    whole = measured(image)
    assert joined.blocks.shape == whole.blocks.shape
    assert joined.grid.shape == whole.grid.shape
    np.testing.assert_allclose(joined.grid, whole.grid, rtol=1e-3, atol=0.05)
    assert np.mean(np.abs(joined.blocks - whole.blocks)[..., 0] < 0.5) > 0.99
    assert len(joined.stars) == pytest.approx(len(whole.stars), abs=2)
    apart = np.hypot(*(joined.stars[:, None, :2] - whole.stars[None, :, :2]).transpose(2, 0, 1)).min(axis=1)
    assert np.quantile(apart, 0.97) < 0.02  # one detection is one star, wherever the bands meet
    assert (np.diff(joined.stars[:, 2]) <= 0).all()
    assert joined.summary["fwhm_px"] == pytest.approx(whole.summary["fwhm_px"], rel=0.01)


def test_a_band_without_data():
    image = sky()
    image[300:] = np.nan
    bands = bands_of(image.shape, cell_px=64, most_px=640 * 400)
    joined = join_bands([(b, measured(image[b.first : b.last])) for b in bands], cell_px=64, max_stars=20)
    assert len(joined.stars) == 20
    assert joined.stars[:, 1].max() < 300
    assert not joined.blocks[0, 60:, :, 1].any()
