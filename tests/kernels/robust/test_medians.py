"""Medians of kernels against numpy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lerar_dask.kernels.robust.medians import median, median_of, median_of_few, middle_of_sorted, upper_median

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@given(VALUES)
def test_they_are_numpys(values):
    wanted = np.array(values, np.float32)
    assert (
        median_of_few(wanted.copy())
        == np.float32(0.5) * (np.sort(wanted)[[(len(wanted) - 1) // 2, len(wanted) // 2]]).sum()
    )
    assert median_of(wanted.astype(float)) == np.median(wanted.astype(float))
    assert upper_median(wanted.astype(float)) == np.sort(wanted)[len(wanted) // 2]
    assert middle_of_sorted(np.sort(wanted), 1) == wanted.min()


def test_of_nothing():
    assert np.isnan(middle_of_sorted(np.zeros(3, np.float32), 0))


@settings(max_examples=100, deadline=None)
@given(
    values=arrays(
        st.sampled_from([np.float32, np.float64, np.uint16]),
        array_shapes(min_dims=1, max_dims=3, max_side=20),
        elements=st.integers(0, 999),
    ),
    axis=st.integers(0, 2),
)
def test_the_median_of_an_array_is_that_of_numpy(values, axis):
    assert median(values) == np.median(values)
    axis %= values.ndim
    np.testing.assert_array_equal(median(values, axis), np.median(values, axis=axis))
    assert median(values).dtype == np.median(values).dtype
