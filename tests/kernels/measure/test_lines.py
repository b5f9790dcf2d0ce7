"""Beads of a trail are found, and stars are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.kernels.measure.lines import off_lines


@pytest.mark.parametrize("n_stars", [6, 40, 200])
@given(st.integers(0, 2**32 - 1), st.floats(0, np.pi), st.integers(1, 2))
@settings(deadline=None, max_examples=40)
def test_beads_go_and_stars_stay(n_stars, seed, angle, n_trails):
    rng = np.random.default_rng(seed)
    stars = rng.uniform([0, 0], [1200, 900], (n_stars, 2))
    beads = []
    for k in range(n_trails):
        center = rng.uniform([300, 200], [900, 700])
        t = rng.uniform(-400, 400, 25)[:, None]
        direction = [np.cos(angle + k), np.sin(angle + k)]
        beads.append(center + t * direction + rng.normal(0, 0.4, (25, 2)))
    xy = np.concatenate([*beads, stars])
    keep = off_lines(xy)
    n = 25 * n_trails
    assert keep[:n].sum() <= 1
    assert keep[n:].sum() >= len(stars) - max(4, 0.12 * len(stars))


def test_stars_alone_stay():
    for seed in range(50):
        xy = np.random.default_rng(seed).uniform([0, 0], [900, 700], (60, 2))
        assert off_lines(xy).all()


@pytest.mark.parametrize("n", [0, 1, 7])
def test_few_points_stay(n):
    assert off_lines(np.zeros((n, 2))).all()
