"""Lattices of a color camera: the pixels of one color, every second one of every second row.

In   pattern of a camera, or a row of a sub
Out  lattices, or the two halves of the row, in which the pixels of a color lie side by side, as vector code needs them
"""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.compiled.kernel import part

__all__ = ["join_pairs", "lattices", "part_pairs"]


def lattices(cfa: str | None) -> np.ndarray:
    """Lattices that a sub's channels consist of, (n, 4) int64: channel, first row, first column, stride.

    >>> lattices("RGGB").tolist()
    [[0, 0, 0, 2], [1, 0, 1, 2], [1, 1, 0, 2], [2, 1, 1, 2]]
    """
    if not cfa:
        return np.array([[0, 0, 0, 1]], np.int64)
    return np.array([["RGB".index(color), i // 2, i % 2, 2] for i, color in enumerate(cfa)], np.int64)


@part(borrows=True)
def part_pairs(row, even, odd):
    """Copy the places 0, 2, ... of a row into one half, the places 1, 3, ... into the other.

    Parameters
    ----------
    row : (n,)
    even, odd : ((n + 1) // 2,) and (n // 2,)
    """
    # Both at once: only so the loop is vector code.
    for i in range(odd.size):
        even[i], odd[i] = row[2 * i], row[2 * i + 1]
    if even.size > odd.size:
        even[odd.size] = row[2 * odd.size]


@part(borrows=True)
def join_pairs(even, odd, row):
    """What `part_pairs` takes apart."""
    for i in range(odd.size):
        row[2 * i], row[2 * i + 1] = even[i], odd[i]
    if even.size > odd.size:
        row[2 * odd.size] = even[odd.size]
