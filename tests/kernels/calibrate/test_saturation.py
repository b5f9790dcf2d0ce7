"""Where numbers pile up, and where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.kernels.calibrate.saturation import pile_up, saturated_share

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("top", [4095, 16383, 65535, 52000])
def test_clipped_numbers_pile_up(top):
    values = np.minimum(RNG.normal(0.9 * top, 0.1 * top, 20_000), top).round()
    assert pile_up(values) == top
    assert saturated_share(values) == pytest.approx(0.16, abs=0.02)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_noise_and_shading_do_not(dtype):
    noise = RNG.normal(900, 12, 200_000).round().astype(dtype)
    shaded = (np.linspace(18_000, 22_000, 100_000) + RNG.normal(0, 100, 100_000)).astype(dtype)
    assert pile_up(noise) is None
    assert saturated_share(shaded) == 0.0


def test_the_level_of_a_header_counts():
    assert saturated_share(np.array([1.0, 2.0, np.nan, 5.0, 6.0]), saturation=5.0) == 0.5
