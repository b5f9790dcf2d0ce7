"""Two lattices of a sub become one sample."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lerar_dask.constants import MISSING
from lerar_dask.kernels.resample.sample import join_lattices


@given(st.integers(0, 10_000), st.integers(0, 2))
def test_joined_lattices_are_the_mean_of_what_is_there(seed, halo):
    rng = np.random.default_rng(seed)
    cube = rng.normal(100, 10, (9, 3, 20)).astype(np.float32)
    cube[rng.random(cube.shape) < 0.3] = MISSING
    before = np.where(cube < MISSING, cube, np.nan).astype(np.float64)
    both = join_lattices(cube, 0, 2, 17, halo)
    a, b = before[:, 0, :17], before[:, 2, :17]
    expected = np.where(np.isnan(a), b, np.where(np.isnan(b), a, (a + b) / 2))
    got = np.where(cube[:, 0, :17] < MISSING, cube[:, 0, :17], np.nan)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    inside = (slice(halo, 9 - halo), slice(halo, 17 - halo))
    assert both == np.isfinite(a + b)[inside].sum()
    np.testing.assert_array_equal(np.where(cube[:, 1] < MISSING, cube[:, 1], np.nan), before[:, 1].astype(np.float32))
