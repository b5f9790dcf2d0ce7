"""Previews: sky dark gray, faint light seen, colors neutral, no data black, area means exact."""

import io

import numpy as np
import pytest
from PIL import Image

from lerar_dask.products.fits import rows_of
from lerar_dask.products.preview import autostretch, map_png, reduce_rows, render, write_preview


def sky(rng, shape, level=500.0, sigma=3.0):
    return rng.normal(level, sigma, shape).astype("f4")


def planes_of(image):
    planes = np.zeros((image.shape[0], 5, *image.shape[1:]), "f4")
    planes[:, 0] = image
    return planes


@pytest.mark.parametrize("shape", [(1, 100, 130), (1, 641, 517), (3, 900, 1100)])
@pytest.mark.parametrize("max_px", [64, 200])
def test_reduced_image_keeps_the_mean_light(shape, max_px):
    rng = np.random.default_rng(3)
    image = np.cumsum(rng.normal(0, 1, shape), axis=2).astype("f4")
    reduced = reduce_rows(rows_of(planes_of(image)), shape, max_px=max_px)
    assert max(reduced.shape[1:]) <= max_px
    assert reduced.shape[1] / reduced.shape[2] == pytest.approx(shape[1] / shape[2], rel=0.05)
    for original, small in zip(np.array_split(image, 2, axis=2), np.array_split(reduced, 2, axis=2), strict=True):
        assert np.isfinite(small).all()
        assert abs(small.mean() - original.mean()) < 0.05 * image.std()


def test_blocks_of_a_whole_factor_are_plain_means():
    image = np.arange(1 * 40 * 60, dtype="f4").reshape(1, 40, 60)
    reduced = reduce_rows(rows_of(planes_of(image)), image.shape, max_px=15)
    np.testing.assert_allclose(reduced, image.reshape(1, 10, 4, 15, 4).mean(axis=(2, 4)), rtol=1e-6)


def test_no_data_stays_no_data_and_becomes_black(tmp_path):
    image = sky(np.random.default_rng(1), (1, 300, 400))
    image[:, :60] = np.nan
    reduced = reduce_rows(rows_of(planes_of(image)), image.shape, max_px=100)
    assert np.isnan(reduced[:, :15]).all()
    assert np.isfinite(reduced[:, 15:]).all()
    write_preview(tmp_path / "p.png", rows_of(planes_of(image)), image.shape, max_px=100)
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    assert picture[:15].max() == 0
    assert 30 < np.median(picture[15:]) < 75


def test_sky_is_dark_gray_and_faint_light_is_seen():
    rng = np.random.default_rng(5)
    image = sky(rng, (1, 400, 400))
    image[0, 100:200, 100:200] += 15
    image[0, 300:304, 300:304] = 40000
    stretched = autostretch(image)
    assert np.median(stretched[0, :90]) == pytest.approx(0.2, abs=0.03)
    assert np.median(stretched[0, 100:200, 100:200]) > np.median(stretched[0, :90]) + 0.15
    assert stretched[0, 301, 301] > 0.98
    assert stretched.min() >= 0
    assert stretched.max() <= 1


def test_fog_of_the_sky_and_green_of_the_sensor_are_gone():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:300, :300]
    stars = sum(3000 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 18) for cx, cy in rng.uniform(10, 290, (40, 2)))
    image = np.stack([sky(rng, (300, 300), level) + gain * stars for level, gain in ((400, 0.5), (900, 1), (300, 0.6))])
    stretched = autostretch(image.astype("f4"))
    skies = np.median(stretched.reshape(3, -1), axis=1)
    assert np.ptp(skies) < 0.02
    bright = (stars > 200) & (stars < 1000)
    lights = np.median(stretched[:, bright], axis=1)
    assert np.ptp(lights) < 0.03


@pytest.mark.parametrize("value", [0.0, 7.5, np.nan])
def test_a_constant_image_makes_a_picture(tmp_path, value):
    image = np.full((1, 50, 60), value, "f4")
    write_preview(tmp_path / "p.png", rows_of(planes_of(image)), image.shape)
    assert Image.open(tmp_path / "p.png").size == (60, 50)


@pytest.mark.parametrize("channels", [1, 3])
def test_first_row_is_on_top_unless_rows_run_upwards(channels):
    values = np.zeros((channels, 10, 8), "f4")
    values[:, 0] = 1
    for bottom_up, row in ((False, 0), (True, -1)):
        picture = np.asarray(render(values, bottom_up=bottom_up))
        assert (picture[row] == 255).all()
        assert picture.max(axis=(1, 2) if channels > 1 else 1).sum() == 255


def test_maps_have_the_palette_s_ends_and_holes():
    values = np.array([[0.0, 1.0], [0.5, np.nan]])
    picture = np.asarray(Image.open(io.BytesIO(map_png(values, low=0, high=1))))
    assert tuple(picture[0, 0]) == (68, 1, 84, 255)
    assert tuple(picture[0, 1]) == (253, 231, 36, 255)
    assert picture[1, 1, 3] == 0
    balance = np.asarray(Image.open(io.BytesIO(map_png(values - 0.5, low=-0.5, high=0.5, palette="balance"))))
    assert balance[0, 0, 2] > balance[0, 0, 0]
    assert balance[0, 1, 0] > balance[0, 1, 2]
