"""Pictures as files: put together from bands, whatever their direction."""

import numpy as np
import pytest
from PIL import Image

from lerar_dask.products.picture_files import JPEG_PX, PictureImage, jpeg_factor, write_jpeg


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bottom_up", [False, True])
def test_a_jpeg_of_many_bands_shows_the_picture(tmp_path, channels, bottom_up):
    y, x = np.mgrid[:700, :500]
    data = np.stack([(y / 700 + k * x / 500) / (1 + k) for k in range(channels)]).astype(np.float32)
    data[:, :100, :50] = np.nan
    image = PictureImage(read_rows=lambda y0, y1: data[:, y0:y1], shape=data.shape, bottom_up=bottom_up)
    assert write_jpeg(tmp_path / "p.jpg", image) == (700, 500)
    shown = np.asarray(Image.open(tmp_path / "p.jpg")).reshape(700, 500, channels)
    wanted = np.moveaxis(np.nan_to_num(data), 0, -1)[:: -1 if bottom_up else 1]
    assert np.abs(shown / 255 - wanted).max() < 0.15  # at the edge of what has no data
    assert np.abs(shown / 255 - wanted).mean() < 0.005


def test_large_pictures_are_reduced():
    assert jpeg_factor(4176, 6248) == 1
    assert jpeg_factor(100, 33_000) == 3
    for height, width in ((20_000, 30_000), (40_000, 60_000), (9000, 9000)):
        factor = jpeg_factor(height, width)
        assert -(-height // factor) * -(-width // factor) <= 1.01 * JPEG_PX
        assert (height // (factor - 1)) * (width // (factor - 1)) > 0.9 * JPEG_PX
