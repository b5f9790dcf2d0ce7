"""A whole image on another grid: as the slow taps say, whatever the window."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.kernels.resample.image import place_image
from tests.kernels.oracles import lanczos_sample, pad_mirrored, positions, rotation
from tests.kernels.resample.test_warp import smooth


@pytest.mark.parametrize("degrees", [0.0, 0.4, 30.0, 90.0, 180.2])
def test_as_the_taps_say_in_any_window(degrees):
    image = smooth((140, 190))
    matrix = rotation(degrees, (90, 70), (3.3, -2.6))
    whole = place_image(image, matrix, (0, 140, 0, 190))
    sy, sx = positions(matrix, 140, 190)
    inside = (sy >= 0) & (sx >= 0) & (sy <= 139) & (sx <= 189)
    np.testing.assert_array_equal(np.isfinite(whole), inside)
    wanted = lanczos_sample(pad_mirrored(image, 8), sy + 8, sx + 8)
    assert np.abs(whole - wanted)[inside].max() < 3.0
    for window in ((0, 64, 0, 100), (50, 120, 90, 190)):
        y0, y1, x0, x1 = window
        np.testing.assert_array_equal(place_image(image, matrix, window), whole[y0:y1, x0:x1])


def test_gaps_stay_gaps_and_outside_is_nothing():
    image = smooth((100, 120))
    image[40:50, 60:70] = np.nan
    shifted = place_image(image, np.array([[1, 0, 0.5], [0, 1, 0.25], [0, 0, 1.0]]), (0, 100, 0, 120))
    assert np.isnan(shifted[41:48, 61:68]).all()
    assert np.isfinite(shifted[:35]).mean() > 0.98
    far = np.array([[1, 0, 5000.0], [0, 1, 0], [0, 0, 1]])
    assert np.isnan(place_image(image, far, (0, 10, 0, 10))).all()
