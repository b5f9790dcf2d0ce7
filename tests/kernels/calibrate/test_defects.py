"""Bad pixels in masters and subs: all of those that were put there, and hardly any other."""

import numpy as np
import pytest
from scipy.stats import poisson

from lerar_dask.kernels.calibrate.defects import (
    _poisson_limit,
    defects_from_dark,
    defects_from_flat,
    defects_from_subs,
)

SHAPE = (120, 160)


def test_hot_and_cold_pixels_of_a_dark():
    rng = np.random.default_rng(0)
    dark = rng.normal(100, 2, SHAPE).astype(np.float32)
    bad = np.sort(rng.choice(dark.size, 40, replace=False))
    dark.reshape(-1)[bad[:30]] += 200
    dark.reshape(-1)[bad[30:]] -= 60
    found = defects_from_dark(dark, sigma=8.0)
    assert found.dtype == np.int32
    assert found.tolist() == bad.tolist()


def test_a_sloping_dark_is_not_bad():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    glow = 100 + 400 * np.exp(-(x**2 + y**2) / 3000)
    dark = (glow + np.random.default_rng(0).normal(0, 2, SHAPE)).astype(np.float32)
    assert len(defects_from_dark(dark, sigma=8.0)) <= 3


def test_dead_pixels_and_columns_of_a_flat():
    rng = np.random.default_rng(1)
    flat = rng.normal(1.0, 0.004, SHAPE).astype(np.float32)
    flat[:, 70] *= 0.8
    flat[30, 40] = 0.0
    flat[50, 60] = 0.7
    found = defects_from_flat(flat, sigma=8.0)
    rows, columns = np.divmod(found, SHAPE[1])
    assert (columns == 70).sum() == SHAPE[0]
    others = set(zip(rows[columns != 70].tolist(), columns[columns != 70].tolist(), strict=True))
    assert others == {(30, 40), (50, 60)}


def test_colors_of_a_flat_are_compared_apart():
    rng = np.random.default_rng(2)
    flat = rng.normal(1.0, 0.004, SHAPE).astype(np.float32)
    flat[0::2, 0::2] *= 0.6
    flat[1::2, 1::2] *= 0.4
    flat[20, 20] *= 0.7
    assert defects_from_flat(flat, sigma=8.0, cfa="RGGB").tolist() == [20 * SHAPE[1] + 20]


@pytest.fixture
def night():
    """Six subs in which two pixels stay and everything else moves with the sky."""
    rng = np.random.default_rng(3)
    stays = np.array([[10.0, 20.0, 900.0], [100.0, 50.0, 400.0]])
    subs = [np.concatenate([stays, np.column_stack([rng.uniform(0, 120, (5, 2)), np.ones(5)])]) for _ in range(6)]
    return subs, rng.uniform(-40, 40, (6, 2))


def test_what_stays_on_the_sensor_is_bad(night):
    assert defects_from_subs(*night, shape=SHAPE).tolist() == [20 * 160 + 10, 50 * 160 + 100]


def test_without_dithers_nothing_can_be_told(night):
    subs, places = night
    assert len(defects_from_subs(subs, np.zeros_like(places), shape=SHAPE)) == 0
    assert len(defects_from_subs(subs[:2], places[:2], shape=SHAPE)) == 0


def test_of_many_subs_only_what_stays_is_bad_and_not_what_meets_by_chance():
    rng = np.random.default_rng(8)
    places = rng.uniform(-400, 400, (600, 2))
    hot = rng.choice(120 * 160, 25, replace=False)
    subs = []
    for _ in places:
        there = np.concatenate([hot[rng.random(25) < 0.7], rng.integers(0, 120 * 160, 60)])
        subs.append(np.column_stack([there % 160, there // 160, np.ones(len(there))]).astype(float))
    assert defects_from_subs(subs, places, shape=(120, 160)).tolist() == sorted(hot.tolist())


def test_of_few_subs_on_a_sensor_full_of_hot_pixels_all_are_found():
    rng = np.random.default_rng(9)
    hot = np.sort(rng.choice(120 * 160, 600, replace=False))
    subs = [np.column_stack([hot % 160, hot // 160, np.ones(600)]).astype(float)] * 3
    assert defects_from_subs(subs, np.array([[0.0, 0], [9, 0], [0, 9]]), shape=(120, 160)).tolist() == hot.tolist()


def test_the_limit_of_chance_is_that_of_scipy():
    for mean in (1e-6, 1e-3, 0.05, 0.7, 4.6):
        for chance in (1e-2, 1e-6, 1e-9, 1e-12):
            assert _poisson_limit(mean, chance) == poisson.isf(chance, mean), (mean, chance)
