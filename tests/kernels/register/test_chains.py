"""Chains of overlapping frames against all pairs of clipped rectangles."""

from __future__ import annotations

import numpy as np

from lerar_dask.kernels.register.chains import chains_of


def shifted(places):
    transforms = np.tile(np.eye(3), (len(places), 1, 1))
    transforms[:, :2, 2] = -np.array(places, float)
    return transforms


def test_a_strip_of_panels_is_one_chain_and_what_lies_apart_is_not():
    places = [(k * 340, 20 * k) for k in range(9)] + [(9000, 0), (9100, 50)]
    boxes = np.tile([0, 300, 0, 400], (len(places), 1))
    order = np.random.default_rng(1).permutation(len(places))
    chains = chains_of(shifted(places)[order], boxes)
    first, second = set(chains[order < 9]), set(chains[order >= 9])
    assert len(first) == len(second) == 1
    assert first != second


def test_gaps_wider_than_a_quarter_of_a_frame_part_and_overlaps_of_a_quarter_join():
    boxes = np.tile([0, 300, 0, 400], (2, 1))
    for gap, same in ((-100, True), (100, False)):
        for across in range(0, 60, 7):
            chains = chains_of(shifted([(across, 0), (across + 400 + gap, 3)]), boxes)
            assert (chains[0] == chains[1]) == same


def test_turned_and_scaled_frames_join_where_they_lie_on_one_another():
    turn = np.array([[0.0, -2, 900], [2, 0, 100], [0, 0, 1]])
    chains = chains_of(np.stack([np.eye(3), turn]), np.array([[0, 600, 0, 800], [0, 1200, 0, 1600]]))
    assert chains[0] == chains[1]
