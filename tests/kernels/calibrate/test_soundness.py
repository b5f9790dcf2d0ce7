"""Which frames of a set do not fit: each kind of fault found, and none where frames only vary as frames do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.kernels.calibrate.soundness import flat_misfits, look_at, misfits, over_the_lights


def dark(rng, level=500.0, glow=80.0, noise=4.0, shape=(64, 200)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (level + glow * np.exp(-np.hypot(x - shape[1], y) / 40) + rng.normal(0, noise, shape)).astype(np.float32)


def flat(rng, level=20000.0, fall=0.3, shape=(64, 200)):
    x = np.linspace(-1, 1, shape[1])[None, :]
    return (level * (1 - fall * x**2) + rng.normal(0, np.sqrt(level), shape)).astype(np.float32)


def test_the_numbers_of_a_look():
    rng = np.random.default_rng(1)
    rows = dark(rng, glow=0.0, noise=4.0)
    look = look_at(rows)
    assert look.level == pytest.approx(np.median(rows))
    assert look.mean == pytest.approx(rows.mean(dtype=float))
    assert look.noise == pytest.approx(4.0, rel=0.05)
    assert look.n_blank == 0
    assert look.cells[2, 3] == pytest.approx(np.median(rows[16:24, 75:100]))
    assert look_at(rows, below=rows).level == 0.0


def test_rows_without_a_picture_are_counted():
    rows = dark(np.random.default_rng(2))
    rows[3] = 7.0
    rows[9] = rows[8]
    rows[20] = np.nan
    assert look_at(rows).n_blank == 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 9))
def test_frames_that_vary_as_frames_do_all_fit(seed, n):
    rng = np.random.default_rng(seed)
    looks = [look_at(dark(rng, level=500 + rng.normal(0, 0.8))) for _ in range(n)]
    assert misfits(looks) == {}
    flats = [look_at(flat(rng, level=rng.uniform(9000, 40000), fall=0.3 + rng.normal(0, 0.01))) for _ in range(n)]
    assert flat_misfits(flats) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows + 60, "does not fit"),
        (lambda rows: rows - 60, "does not fit"),
        (lambda rows: rows + 40 * (np.arange(200) > 150), "saw light"),
        (lambda rows: np.where(np.arange(64)[:, None] > 60, np.float32(0), rows), "no picture"),
        (lambda rows: np.vstack([rows[:50], np.repeat(rows[49:50], 14, axis=0)]), "no picture"),
    ],
)
def test_the_odd_dark_is_named(change, words):
    rng = np.random.default_rng(3)
    frames = [dark(rng) for _ in range(5)]
    frames[2] = change(frames[2]).astype(np.float32)
    found = misfits([look_at(rows) for rows in frames])
    assert list(found) == [2]
    assert words in found[2]


def test_a_sensor_with_a_dead_row_is_no_misfit():
    rng = np.random.default_rng(4)
    frames = [dark(rng) for _ in range(4)]
    for rows in frames:
        rows[17] = 0
    assert misfits([look_at(rows) for rows in frames]) == {}


def test_where_half_do_not_fit_none_is_named():
    rng = np.random.default_rng(5)
    assert misfits([look_at(dark(rng, level=level)) for level in (500, 500, 700, 700)]) == {}


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (lambda rng: flat(rng, level=1500.0), "little light"),
        (lambda rng: flat(rng) * np.where(np.arange(200) > 100, 0.7, 1.0), "falls otherwise"),
        (lambda rng: rng.normal(0, 4, (64, 200)), "no brighter"),
        (lambda rng: np.minimum(flat(rng, level=70000.0), 65535), "saturated"),
    ],
)
def test_the_odd_flat_is_named(odd, words):
    rng = np.random.default_rng(6)
    frames = [flat(rng, level=level) for level in (20000, 26000, 33000)] + [odd(rng).astype(np.float32)]
    found = flat_misfits([look_at(rows) for rows in frames])
    assert list(found) == [3]
    assert words in found[3]


def test_all_flats_without_light_are_named():
    rng = np.random.default_rng(7)
    assert len(flat_misfits([look_at(dark(rng, level=1.0, glow=0.0)) for _ in range(3)])) == 3


def test_darks_above_the_lights_are_named_and_warmer_by_less_than_noise_are_not():
    rng = np.random.default_rng(8)
    lights = [look_at(dark(rng, level=530.0, noise=15.0)) for _ in range(3)]
    darks = [look_at(dark(rng, level=level)) for level in (500, 540, 900)]
    assert list(over_the_lights(darks, lights)) == [2]
    assert over_the_lights(darks, []) == {}
