"""The joint pass against known transforms: error below the direct fits', no drift, the right model."""

import numpy as np
import pytest

from lerar_dask.kernels.register.joint import joint_pass
from lerar_dask.kernels.register.transform import apply, invert

H, W = 3000, 4000
MIDDLE = np.array([[(W - 1) / 2, (H - 1) / 2]])
FIELD = np.stack(np.meshgrid(np.linspace(0, W, 9), np.linspace(0, H, 7)), -1).reshape(-1, 2)


def night(n, *, noise=0.15, stars=250, stretch=0.0, seed=1):
    """True transforms, first guesses with an error of 0.1 px, star lists with a fifth of strangers."""
    rng = np.random.default_rng(seed)
    sky = rng.uniform(-0.2, 1.2, (2 * stars, 2)) * [W, H]
    flux = 1 / rng.random(len(sky))
    truth, first, lists = [], [], []
    for i in range(n):
        angle = np.radians(rng.uniform(-0.3, 0.3) + 180 * (i >= n / 2)) if i else 0.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn = turn @ np.diag([1.0, 1.0 + stretch * (i > 0)])
        center, matrix = np.array([W / 2, H / 2]), np.eye(3)
        matrix[:2, :2], matrix[:2, 2] = turn, center - turn @ center + (rng.uniform(-100, 100, 2) if i else 0.0)
        seen = apply(matrix, sky)
        inside = ((seen > 0) & (seen < [W, H])).all(axis=1)
        more = inside.sum() // 5
        xy = np.concatenate(
            [seen[inside] + rng.normal(0, noise, (inside.sum(), 2)), rng.uniform(0, 1, (more, 2)) * [W, H]]
        )
        light = np.append(flux[inside], rng.choice(flux, more))
        lists.append(np.column_stack([xy, np.full(len(xy), noise), light])[np.argsort(-light)])
        guess = matrix.copy()
        guess[:2, 2] += rng.normal(0, 0.1, 2) if i else 0.0
        truth.append(matrix)
        first.append(guess)
    return np.array(truth), np.array(first), lists


def mutual(truth, found):
    """Rms over field and frames of where one point of the sky lands, about its mean."""
    at = np.array([apply(invert(f), apply(t, FIELD)) for t, f in zip(truth, found, strict=True)])
    return np.sqrt(np.mean((at - at.mean(axis=0)) ** 2))


def test_error_of_a_night():
    truth, first, lists = night(30)
    joint = joint_pass(first, lists, ["a"] * 30, MIDDLE.repeat(30, 0), reference=0)
    assert joint.model == {"a": "similarity"}
    assert mutual(truth, joint.transforms) < 0.02, "a direct fit of 250 stars of 0.15 px reaches 0.029"
    assert np.array_equal(joint.transforms[0], np.eye(3))
    assert np.median(joint.rms_px) == pytest.approx(0.15, rel=0.1)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_frames_settle(n):
    truth, first, lists = night(n, noise=0.05)
    assert mutual(truth, joint_pass(first, lists, ["a"] * n, MIDDLE.repeat(n, 0), reference=0).transforms) < 0.012


def test_refraction_wants_an_affine_model_for_its_group_alone():
    truth, first, lists = night(12, noise=0.05)
    stretched, guess, more = night(6, noise=0.05, stretch=4e-4)
    joint = joint_pass(
        np.concatenate([first, guess[1:]]),
        [*lists, *more[1:]],
        ["a"] * 12 + ["b"] * 5,
        MIDDLE.repeat(17, 0),
        reference=0,
    )
    assert joint.model == {"a": "similarity", "b": "affine"}
    assert mutual(np.concatenate([truth, stretched[1:]]), joint.transforms) < 0.01


def test_lost_frames_stay_lost_and_order_has_no_say():
    truth, first, lists = night(8)
    first[5] = np.nan
    joint = joint_pass(first, lists, ["a"] * 8, MIDDLE.repeat(8, 0), reference=0)
    assert np.isnan(joint.transforms[5]).all()
    assert np.isfinite(np.delete(joint.transforms, 5, axis=0)).all()
    order = [0, 7, 3, 5, 1, 2, 6, 4]
    turned = joint_pass(first[order], [lists[i] for i in order], ["a"] * 8, MIDDLE.repeat(8, 0), reference=0)
    kept = [i for i in order if i != 5]
    assert mutual(truth[kept], joint.transforms[kept]) < 0.03
    for place, i in enumerate(order):
        if i != 5:
            assert np.abs(apply(turned.transforms[place], FIELD) - apply(joint.transforms[i], FIELD)).max() < 0.02


def test_a_wrong_first_transform_is_dropped():
    _, first, lists = night(6)
    first[3, :2, 2] += 500.0
    lists[3] = lists[3][:40]
    joint = joint_pass(first, lists, ["a"] * 6, MIDDLE.repeat(6, 0), reference=0)
    assert np.isnan(joint.transforms[3]).all()
    assert np.isfinite(joint.transforms[[0, 1, 2, 4, 5]]).all()
