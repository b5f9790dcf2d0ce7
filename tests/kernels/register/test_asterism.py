"""Star lists with known truth: any rotation, mirrored, scaled, dithered; strangers and hot pixels must not match."""

import numpy as np
import pytest

from lerar_dask.kernels.register.asterism import StarList, match_stars

SHAPE = (3000, 4000)


def pair(
    seed, *, n=300, spurious=0.5, noise=0.3, dither=0.3, scales=(1.0, 1.0), mirrored=False, related=True, turn=None
):
    """Two lists by brightness, and five points of the sky in both frames (complex)."""
    rng = np.random.default_rng(seed)
    h, w = SHAPE
    scale = np.exp(rng.uniform(*np.log(scales)))
    angle = rng.uniform(0, 2 * np.pi) if turn is None else turn
    alpha, true = scale * np.exp(1j * angle), round(n * (1 - spurious))
    small = min(1.0, 1 / scale)
    center = complex((w - 1) / 2, (h - 1) / 2)
    off = complex(rng.uniform(-dither, dither) * w, rng.uniform(-dither, dither) * h) * small

    def move(z):
        z = z - center - off
        return alpha * (z.conj() if mirrored else z) + center

    reach = 1.6 * max(SHAPE) * max(1.0, 1 / scale)
    count = int(4 * reach**2 * true / (w * h * min(1.0, 1 / scale**2))) + 50
    sky = center + rng.uniform(-reach, reach, count) + 1j * rng.uniform(-reach, reach, count)
    flux = 1 / rng.random(count)

    def seen(z):
        inside = (z.real > 0) & (z.real < w - 1) & (z.imag > 0) & (z.imag < h - 1)
        z, f = z[inside], flux[inside] * 10 ** (0.06 * rng.standard_normal(inside.sum()))
        z, f = z[np.argsort(-f)][:true], -np.sort(-f)[:true]
        z = z + noise * (rng.standard_normal(len(z)) + 1j * rng.standard_normal(len(z)))
        more = n - true
        z = np.append(z, rng.uniform(0, w - 1, more) + 1j * rng.uniform(0, h - 1, more))
        order = np.argsort(-np.append(f, rng.choice(f, more)), kind="stable")
        return np.column_stack([z.real, z.imag])[order]

    first = seen(sky)
    second = seen(move(sky if related else sky[rng.permutation(count)].real + 1j * sky.imag))
    points = center + off + small * np.array([0, 300, -300, 300j, -300j])
    return first, second, points, move(points)


def matched(first, second, **how):
    return match_stars(StarList(first, SHAPE), StarList(second, SHAPE), sigma_px=1.0, accept=20.7, **how)


def error(match, points, moved):
    xy = np.column_stack([points.real, points.imag, np.ones(len(points))]) @ match.transform.T
    return np.hypot(xy[:, 0] - moved.real, xy[:, 1] - moved.imag).max()


@pytest.mark.parametrize("seed", range(10))
def test_half_the_stars_spurious_any_rotation(seed):
    first, second, points, moved = pair(seed)
    match = matched(first, second, same_camera=seed % 2 == 0)
    assert match is not None
    assert match.n_pairs >= 20
    assert error(match, points, moved) < 0.5


@pytest.mark.parametrize("seed", range(12))
def test_any_scale_mirrored_half_a_frame_away(seed):
    first, second, points, moved = pair(seed, scales=(0.3, 3.0), mirrored=seed % 2 == 0, dither=0.5)
    match = matched(first, second)
    assert match is not None
    assert (np.linalg.det(match.transform) < 0) == (seed % 2 == 0)
    assert error(match, points, moved) < 2.0


def test_flip_of_the_same_camera():
    first, second, points, moved = pair(5, turn=np.pi, dither=0.02)
    match = matched(first, second, same_camera=True)
    assert error(match, points, moved) < 0.3
    assert match.transform[0, 0] == pytest.approx(-1.0, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_strangers_do_not_match(seed):
    first, second, *_ = pair(seed, n=80, related=False)
    assert matched(first, second, same_camera=True) is None


def test_few_stars():
    first, second, *_ = pair(1, n=12, spurious=0.0, dither=0.02)
    assert matched(first[:12], second[:12]) is not None
    assert matched(first[:5], second[:5]) is None
    assert matched(first[:0], second) is None


def test_one_place_many_times_is_no_asterism():
    assert matched(np.full((30, 2), 700.0), np.full((30, 2), 700.0)) is None
    line = np.column_stack([np.linspace(0, 3999, 40), np.linspace(0, 2999, 40)])
    assert matched(line, line + 3.0) is None


@pytest.mark.parametrize("seed", range(4))
def test_hot_pixels_at_rest_lose_against_stars_that_moved(seed):
    rng = np.random.default_rng(seed)
    stars = rng.uniform([0, 0], [3999, 2999], (40, 2))
    hot = rng.uniform([0, 0], [3999, 2999], (120, 2))
    shift = np.array([23.0, -11.0])
    first = np.concatenate([hot, stars])
    second = np.concatenate([hot, stars + shift + rng.normal(0, 0.1, stars.shape)])
    assert np.hypot(*matched(first, second).transform[:2, 2]) < 1.0, (
        "without knowing the sensor, rest is the best answer"
    )
    match = matched(first, second, same_camera=True)
    assert match.transform[:2, 2] == pytest.approx(shift, abs=0.6)


def test_guided_subs_stay_where_they_are():
    rng = np.random.default_rng(2)
    stars = rng.uniform([0, 0], [3999, 2999], (150, 2))
    match = matched(stars, stars + rng.normal(0, 0.05, stars.shape), same_camera=True)
    assert np.abs(match.transform - np.eye(3)).max() < 0.1


def test_order_of_the_calls_has_no_say():
    a, b, *_ = pair(3)
    _, d, *_ = pair(4)
    shared = StarList(a, SHAPE)
    match_stars(shared, StarList(d, SHAPE), sigma_px=1.0, accept=20.7, quick=True)
    again = match_stars(shared, StarList(b, SHAPE), sigma_px=1.0, accept=20.7)
    assert np.array_equal(again.transform, matched(a, b).transform)
