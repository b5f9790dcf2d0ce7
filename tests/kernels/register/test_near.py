"""Matches where the place is known but for some pixels: few common stars suffice, and chance makes none."""

import numpy as np
import pytest

from lerar_dask.kernels.register.near import match_near
from lerar_dask.kernels.register.transform import apply

SHAPE = (1000, 1500)
ACCEPT = 20.7 - 9.2


def lists(rng, n_common, n_own):
    """Where stars are expected and where they are; only some are in both, the brightest of them first."""
    common = rng.uniform(0, 1, (n_common, 2)) * [120, SHAPE[0]]
    a = np.concatenate([common, rng.uniform(-30, 1, (n_own, 2)) * [1, SHAPE[0]]])
    away = apply(np.array([[1, -1e-3, 11.0], [1e-3, 1, -7.0], [0, 0, 1]]), common) + rng.normal(0, 0.2, common.shape)
    b = np.concatenate([away, rng.uniform(0, 1, (n_own, 2)) * SHAPE[::-1]])
    return a[rng.permutation(len(a))], b[rng.permutation(len(b))], common


def matched(a, b):
    return match_near(a, b, SHAPE, radius_px=30.0, sigma_px=1.0, accept=ACCEPT)


@pytest.mark.parametrize("seed", range(5))
def test_ten_stars_in_a_thin_overlap_suffice(seed):
    rng = np.random.default_rng(seed)
    a, b, common = lists(rng, 10, 60)
    found = matched(a, b)
    assert found is not None
    assert found.n_pairs >= 8
    truth = apply(np.array([[1, -1e-3, 11.0], [1e-3, 1, -7.0], [0, 0, 1]]), common)
    assert np.abs(apply(found.transform, common) - truth).max() < 0.8


def test_chance_is_not_believed():
    rng = np.random.default_rng(7)
    believed = 0
    for _ in range(400):
        n, m = rng.integers(6, 200, 2)
        a, b = rng.uniform(0, 1, (n, 2)) * SHAPE[::-1], rng.uniform(0, 1, (m, 2)) * SHAPE[::-1]
        believed += matched(a, b) is not None
    assert believed == 0


def test_too_few_stars_give_none():
    rng = np.random.default_rng(3)
    assert matched(rng.uniform(0, 900, (5, 2)), rng.uniform(0, 900, (50, 2))) is None
    assert matched(np.zeros((0, 2)), rng.uniform(0, 900, (50, 2))) is None
    assert matched(rng.uniform(0, 200, (30, 2)), rng.uniform(600, 900, (30, 2))) is None
