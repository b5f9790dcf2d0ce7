"""Samples on trails and around defects leave the cube."""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.resample import masks
from lerar_dask.kernels.resample.terms import Fallback, Lattice, Part, SubTerms, Target
from tests.kernels.oracles import positions, rotation


def test_footprints_of_defects_leave_the_cube_and_are_kept_aside():
    matrix = rotation(0.5, (30, 30), (0.3, 0.6))
    cube = np.full((60, 1, 60), 5, np.float32)
    fallback = np.zeros((4, 60, 60))
    defects = np.array([31 * 64 + 33, 32 * 64 + 12], np.int32)
    none = np.zeros(0, np.int32)
    sub = SubTerms(matrix, np.linalg.inv(matrix), 64, 64, Part(np.zeros((0, 0), np.uint8), 0, 0), none, defects)
    target = Target(cube, 0, 0, 0, 60, 0)
    n = masks.drop_footprints(defects, sub, Lattice(1, 0, 0), target, Fallback(fallback, 2.0, 3.0))
    sy, sx = positions(matrix, 60, 60)
    expected = np.zeros((60, 60), bool)
    for d in defects:
        dy, dx = abs(sy - d // 64), abs(sx - d % 64)
        expected |= np.maximum(1 - dy, 0) * np.maximum(1 - dx, 0) > 0.02
    np.testing.assert_array_equal(cube[:, 0] > 1e29, expected)
    assert n == expected.sum()
    np.testing.assert_array_equal(fallback[0], np.where(expected, 10, 0))
    np.testing.assert_array_equal(fallback[3], np.where(expected, 12, 0))


def test_lines_leave_the_cube_and_are_counted():
    matrix = rotation(0.5, (30, 30), (0.3, 0.6))
    cube = np.full((60, 1, 64), 5, np.float32)
    high, fallback = np.zeros((60, 64), np.int32), np.zeros((4, 60, 64))
    line = np.array([[5.0, 2.0, 50.0, 60.0, 2.5]])
    n = masks.drop_lines(line, matrix, Target(cube, 0, 0, 0, 64, 0), high, Fallback(fallback, 1.0, 1.0))
    sy, sx = positions(matrix, 60, 64)
    direction = np.array([45.0, 58.0]) / np.hypot(45, 58)
    across = (sx - 2) * direction[0] - (sy - 5) * direction[1]
    along = (sx - 2) * direction[1] + (sy - 5) * direction[0]
    expected = (abs(across) <= 2.5) & (along >= 0) & (along <= np.hypot(45, 58))
    np.testing.assert_array_equal(cube[:, 0] > 1e29, expected)
    assert n == high.sum() == expected.sum() > 300
