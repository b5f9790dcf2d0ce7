"""Medians inside compiled kernels (`np.median` takes two seconds to compile)."""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import kernel, part

__all__ = ["median_of", "median_of_few", "middle_of_sorted", "upper_median"]


@kernel
def middle_of_sorted(values, n):
    """Median of the first `n` of sorted values; NaN of none."""
    if n == 0:
        return np.float32(np.nan)
    return np.float32(0.5) * (values[(n - 1) // 2] + values[n // 2])


@kernel
def median_of_few(values):
    """Median of a few values, which are sorted in place."""
    for i in range(1, values.size):
        v, j = values[i], i
        while j > 0 and values[j - 1] > v:
            values[j] = values[j - 1]
            j -= 1
        values[j] = v
    return middle_of_sorted(values, values.size)


@kernel
def median_of(values):
    """Median of numbers, which are put in another order."""
    k = values.size // 2
    _select(values, k)
    if values.size % 2 == 1:
        return np.float64(values[k])
    below = values[0]
    for i in range(1, k):
        below = max(below, values[i])
    return np.float64((below + values[k]) / 2)


@kernel
def upper_median(values):
    """The upper of the two middle values."""
    own = values.copy()
    _select(own, own.size // 2)
    return own[own.size // 2]


@part
def _select(values, k):
    """Quickselect: the k-th smallest value at its place, smaller ones before it."""
    low, high = 0, values.size - 1
    while low < high:
        pivot, i, j = values[(low + high) // 2], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
