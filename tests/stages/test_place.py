"""Images on the grid of a picture: row of chunks by row of chunks as in one piece."""

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.frames.picture import open_picture
from lerar_dask.grid import Canvas
from lerar_dask.kernels.resample.image import place_image
from lerar_dask.stages.picture import place
from lerar_dask.store.access import Store


def placed(tmp_path, image, transform, canvas, *, packed=False):
    path = tmp_path / "image.fits"
    if packed:
        fits.HDUList(
            [fits.PrimaryHDU(), fits.CompImageHDU(image, compression_type="GZIP_1", quantize_level=0)]
        ).writeto(path)
    else:
        fits.writeto(path, image)
    store = Store.create(tmp_path / "store.zarr")
    frame, n = open_picture(path).frame, 1 if image.ndim == 2 else 3
    store.create_master("key", n, canvas.shape)
    step = place.plan(store.url, frame, n, transform, canvas, "key", name="R")
    for task in step.tasks:
        assert not step.is_there(store, task)
        task.function(**task.arguments)
        assert step.is_there(store, task)
    return store.open_array("master/key/image")[...], step


def turned(degrees, dx, dy):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, dx], [s, c, dy], [0, 0, 1.0]])


@pytest.mark.parametrize("degrees", [0.0, 3.0, 90.0, 178.0])
def test_rows_of_chunks_are_those_of_the_whole(tmp_path, degrees):
    rng = np.random.default_rng(1)
    image = rng.normal(100, 5, (700, 620)).astype(np.float32)
    image[400:420, 100:130] = np.nan
    canvas = Canvas((0, 0), (650, 560))
    middle = turned(0, 310, 350) @ turned(degrees, 0.4, -0.3) @ turned(0, -280, -325)
    planes, step = placed(tmp_path, image, middle, canvas)
    assert len(step.tasks) == 3
    whole = place_image(image, middle, (0, 650, 0, 560))
    np.testing.assert_array_equal(np.isnan(planes[0, 0]), np.isnan(whole))
    np.testing.assert_allclose(planes[0, 0], whole, atol=2e-3, equal_nan=True)
    np.testing.assert_array_equal(planes[0, 2], np.isfinite(whole))


def test_pixels_of_the_same_grid_are_taken_as_they_are(tmp_path):
    image = np.random.default_rng(2).normal(100, 5, (3, 600, 530)).astype(np.float32)
    planes, _ = placed(tmp_path, image, np.eye(3), Canvas((0, 0), (600, 530)))
    np.testing.assert_array_equal(planes[:, 0], image)


def test_rows_that_the_image_does_not_reach(tmp_path):
    image = np.random.default_rng(2).normal(100, 5, (300, 530)).astype(np.float32)
    planes, _ = placed(tmp_path, image, turned(0, 0, -400), Canvas((0, 0), (900, 530)))
    assert np.isnan(planes[0, 0, :390]).all()
    assert np.isfinite(planes[0, 0, 410:690, 10:-10]).all()
    assert np.isnan(planes[0, 0, 710:]).all()
    assert not planes[0, 2, 710:].any()


def test_a_packed_image_is_unpacked_once(tmp_path):
    image = np.random.default_rng(2).normal(100, 5, (600, 530)).astype(np.float32)
    planes, step = placed(tmp_path, image, np.eye(3), Canvas((0, 0), (600, 530)), packed=True)
    assert len(step.tasks) == 1
    np.testing.assert_array_equal(planes[0, 0], image)
