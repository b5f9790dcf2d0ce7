"""The image that sets the grid: measured once; what is no image is the user's mistake."""

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import UsageError
from lerar_dask.settings import Ingest
from lerar_dask.stages.register.align_image import measure_align_image
from lerar_dask.store.access import Store


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store.zarr")


def test_stars_of_an_image(store, tmp_path):
    rng = np.random.default_rng(1)
    image = rng.normal(1000, 10, (300, 420)).astype(np.float32)
    y, x = np.mgrid[:300, :420]
    places = [(30.0 + 60 * i, 40.0 + 37 * ((3 * i) % 6)) for i in range(6)] + [(200.3, 150.6), (380.0, 250.0)]
    for px, py in places:
        image += 3000 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 1.4**2)).astype(np.float32)
    fits.writeto(tmp_path / "guide.fits", image)
    at, shape = measure_align_image(store, tmp_path / "guide.fits", Ingest())
    stars = store.read_array(at)
    assert shape == (300, 420)
    for px, py in places:
        assert np.hypot(stars[:, 0] - px, stars[:, 1] - py).min() < 0.1


def test_what_is_no_image(store, tmp_path):
    with pytest.raises(UsageError, match="align-to"):
        measure_align_image(store, tmp_path / "missing.fits", Ingest())
    fits.writeto(tmp_path / "empty.fits", np.random.default_rng(1).normal(10, 1, (200, 200)).astype(np.float32))
    with pytest.raises(UsageError, match="too few stars"):
        measure_align_image(store, tmp_path / "empty.fits", Ingest())
