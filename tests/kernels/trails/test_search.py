"""Trails in frames of pure noise with lines of known place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.kernels.normalize.block_scene import add_to_scene, block_residuals, scene_of
from lerar_dask.kernels.trails.fit import _row_medians, extent_windows, refine_line
from lerar_dask.kernels.trails.search import find_lines

SHAPE = (450, 600)


def _frame(lines, seed, shape=SHAPE):
    """Noise of sigma 1 with lines (y, x, direction, peak), sigma 1.5 px."""
    image = np.random.default_rng(seed).standard_normal(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for y0, x0, angle, peak in lines:
        away = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
        image += peak * np.exp(-0.5 * (away / 1.5) ** 2)
    return image.astype(np.float32)


def _blocks(image):
    h, w = (-(-n // 8) for n in image.shape)
    padded = np.full((h * 8, w * 8), np.nan)
    padded[: image.shape[0], : image.shape[1]] = image
    parts = padded.reshape(h, 8, w, 8).transpose(0, 2, 1, 3).reshape(h, w, 64)
    high = parts > 6
    count = (np.isfinite(parts) & ~high).sum(axis=2)
    mean = np.nansum(np.where(high, np.nan, parts), axis=2) / np.maximum(count, 1)
    return np.stack([mean, count, np.nansum(np.where(high, parts, 0), axis=2)], axis=2).astype(np.float32)


def _search(image):
    blocks = _blocks(image)
    none = np.zeros(blocks.shape[:2], np.float32)
    excess = block_residuals(
        blocks, none.astype(bool), none, np.eye(3), np.zeros((none.shape[0] + 4, none.shape[1] + 4), np.float32),
        scale=1.0, noise=np.ones((1, 1), np.float32), noise_cell_px=64, origin_xy=(-8.0, -8.0),
    )  # fmt: skip
    found = []
    for line in find_lines(excess, shape=image.shape):
        windows = extent_windows(line, image.shape)
        pixels = [image[a:b, c:d] for a, b, c, d in windows]
        found += refine_line(line, windows, pixels, shape=image.shape)
    return found


def _away(line, truth):
    y, x, angle, _ = truth
    return max(
        abs((line.y0 - y) * np.cos(angle) - (line.x0 - x) * np.sin(angle)),
        abs((line.y1 - y) * np.cos(angle) - (line.x1 - x) * np.sin(angle)),
    )


@pytest.mark.parametrize("peak", [0.6, 1.5, 5.0, 20.0])
@pytest.mark.parametrize("angle", [0.001, 0.7, 1.57, 2.3])
def test_every_line_is_found_to_a_pixel(peak, angle):
    truth = (220.0, 310.0, angle, peak)
    (line,) = _search(_frame([truth], seed=int(10 * peak + 100 * angle)))
    assert _away(line, truth) < (2.0 if peak < 1 else 1.0)
    assert 1.5 * np.sqrt(2 * np.log(peak / 0.03)) * 0.8 < line.half_width < 10


@pytest.mark.parametrize("seed", range(4))
def test_none_in_noise(seed):
    assert _search(_frame([], seed=seed)) == []


def test_several_lines_and_a_double_one():
    truths = [(100.0, 200.0, 0.4, 4.0), (300.0, 300.0, 1.3, 2.0)]
    found = _search(_frame(truths, seed=3))
    assert len(found) == 2
    assert all(min(_away(line, t) for line in found) < 1 for t in truths)
    pair = [(200.0, 300.0, 0.3, 4.0), (200.0 + 18 / np.cos(0.3), 300.0, 0.3, 3.0)]
    found = _search(_frame(pair, seed=4))
    assert all(min(_away(line, t) for line in found) < 1.5 for t in pair)


def test_a_bright_spot_is_no_line():
    image = _frame([], seed=9)
    image[200:212, 300:312] += 30
    assert _search(image) == []


def test_the_scene_leaves_a_single_trail_out():
    known = None
    for _ in range(2):
        total, weight = np.zeros((62, 80)), np.zeros((62, 80))
        for k in range(8):
            blocks = _blocks(_frame([(220.0, 310.0, 0.5, 6.0)] if k == 0 else [], seed=k))
            blocks[..., 0] += 50
            sky = np.full(blocks.shape[:2], 50, np.float32)
            add_to_scene(
                blocks, np.zeros(sky.shape, bool), sky, np.eye(3), scale=1.0, sigma=1.0, origin_xy=(-8.0, -8.0),
                total=total, weight=weight, known=known,
            )  # fmt: skip
        known = scene_of(total, weight)
    inside = known[5:50, 5:70]
    assert np.nanmax(np.abs(inside)) < 0.5


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_medians_of_rows(seed, share):
    rng = np.random.default_rng(seed)
    values, use = rng.normal(size=(6, 9)).round(1), rng.random((6, 9)) < share
    expected = [np.median(v[u]) if u.any() else np.nan for v, u in zip(values, use, strict=True)]
    np.testing.assert_array_equal(_row_medians(values, use), expected)
