"""Drizzle against a slow clipping of polygons and STScI's drizzle; its noise against simulated drops."""

from __future__ import annotations

import numpy as np
import pytest
from drizzle import resample
from hypothesis import given, settings
from hypothesis import strategies as st

from lerar_dask.kernels.drizzle.noise import noise_of_drops
from lerar_dask.kernels.drizzle.overlap import cut_edges, lay_edges, overlap
from lerar_dask.kernels.drizzle.pour import finish_drops, pour
from lerar_dask.kernels.drizzle.terms import KERNELS, Drop, Fine, Rules
from lerar_dask.kernels.drizzle.use import NONE, SPARE, USED, mark_use
from lerar_dask.kernels.resample.terms import Lattice, Part, Sky

NOWHERE = np.zeros(0, np.int32)


def clipped_area(corners, row, column):
    """Area of a convex polygon within a pixel: cut by each side in turn (Sutherland and Hodgman), then the shoelace."""
    polygon = [tuple(c) for c in corners]
    for axis, limit, side in ((0, column - 0.5, 1), (0, column + 0.5, -1), (1, row - 0.5, 1), (1, row + 0.5, -1)):
        cut = []
        for k, point in enumerate(polygon):
            before = polygon[k - 1]
            inside, was = side * (point[axis] - limit) >= 0, side * (before[axis] - limit) >= 0
            if inside != was:
                t = (limit - before[axis]) / (point[axis] - before[axis])
                cut.append(tuple(b + t * (p - b) for b, p in zip(before, point, strict=True)))
            if inside:
                cut.append(point)
        polygon = cut
    if len(polygon) < 3:
        return 0.0
    x, y = np.array(polygon).T
    return 0.5 * abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))))


@given(
    st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 6.3), st.floats(0.05, 3), st.floats(0.05, 3), st.floats(-0.8, 0.8)
)
@settings(max_examples=200, deadline=None)
def test_overlap_is_that_of_clipped_polygons(x, y, angle, a, b, shear):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    (xu, xv), (yu, yv) = turn @ np.array([[a, shear * b], [0, b]]) / 2
    corners = np.array([[-xu - xv, -yu - yv], [xu - xv, yu - yv], [xu + xv, yu + yv], [xv - xu, yv - yu]]) + np.array(
        [x, y]
    )
    edges, across = np.empty((4, 4)), np.empty((4, 3))
    lay_edges(x, y, xu, xv, yu, yv, edges)
    for column in (-1.0, 0.0, 2.0):
        cut_edges(edges, column, across)
        for row in (-1.0, 0.0, 1.0):
            # the way around the corners goes from x to y: its area counts as negative
            assert -overlap(across, row) == pytest.approx(clipped_area(corners, row, column), abs=1e-6)


def poured(pixels, inverse, *, scale, drop, kernel="square", shape, at=(0, 0), use=None, rejected=None, weight=1.0,
           lattice=(1, 0, 0), sums=None):  # fmt: skip
    """Sums of one sub's drops on a window of the fine grid."""
    sums = np.zeros((*shape, 9)) if sums is None else sums
    use = np.zeros(pixels.shape, np.uint8) if use is None else use
    rejected = np.zeros((0, 0), np.uint8) if rejected is None else rejected
    model = np.tile(np.array([weight, 2.0, 0.5], np.float32), (8, 8, 1))
    rules = Rules(use, rejected, 0, 0, model, 0, 0)
    sky = Sky(np.zeros((4, 4), np.float32), 0, 0, np.float32(1))
    fine = Fine(sums, scale, *at)
    pour(Part(pixels, 0, 0), Lattice(*lattice), inverse, Drop(KERNELS[kernel], drop), sky, rules, fine)
    return sums


def some_transform(rng, k):
    """Sub pixel to canvas pixel: a few degrees and pixels, a little perspective."""
    angle, scale = rng.normal(0, 0.05) + 0.3 * (k % 2), 1 + rng.normal(0, 0.01)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix[:2, 2] = rng.uniform(-3, 3, 2) + np.array([6, 2])
    matrix[2, :2] = rng.normal(0, 1e-6, 2)
    return matrix


@pytest.mark.parametrize("kernel", ["square", "gaussian", "point"])
@pytest.mark.parametrize(("scale", "drop"), [(1, 1.0), (2, 0.9), (3, 0.6)])
def test_is_drizzle_as_stsci_has_it(kernel, scale, drop):
    rng = np.random.default_rng(scale)
    shape, fine_shape = (30, 34), (40 * scale, 44 * scale)
    oracle = resample.Drizzle(kernel=kernel, out_shape=fine_shape, fillval=np.nan)
    sums = np.zeros((*fine_shape, 9))
    for k in range(4):
        pixels, inverse = rng.normal(100, 10, shape).astype(np.float32), some_transform(rng, k)
        y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
        cx, cy, cz = np.einsum("ij,jyx->iyx", inverse, np.stack([x, y, np.ones_like(x)]))
        places = np.stack([cx / cz, cy / cz], axis=-1) * scale + 0.5 * (scale - 1)
        weight = float(rng.uniform(0.5, 2))
        oracle.add_image(
            pixels, exptime=1.0, pixmap=places, pixfrac=drop, in_units="cps", iscale=1.0,
            weight_map=np.full(shape, weight, np.float32), pixel_scale_ratio=1 / scale,
        )  # fmt: skip
        poured(pixels, inverse, scale=scale, drop=drop, kernel=kernel, shape=fine_shape, weight=weight, sums=sums)
    planes = np.zeros((5, *fine_shape), np.float32)
    finish_drops(sums, scale, 0.0, 0.0, planes)
    # theirs leaves out drops that reach over the edge of the grid; what only the corner of a drop touches tells nothing
    inner = (slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
    theirs, weights, ours, own = oracle.out_img[inner], oracle.out_wht[inner], planes[0][inner], sums[..., 1][inner]
    solid = (weights > 0.02 * weights.max()) & (own > 0.02 * own.max())
    assert solid.mean() > 0.1
    # their Gaussian has the nominal scale, ours that of each sub, 1 % off
    exact = 2e-5 if kernel != "gaussian" else 1e-2
    np.testing.assert_allclose(ours[solid], theirs[solid], rtol=exact)
    if kernel != "gaussian":
        np.testing.assert_allclose(own, weights, atol=3e-6)


def test_a_sub_gives_all_its_light_and_only_once():
    rng = np.random.default_rng(5)
    pixels = rng.uniform(50, 100, (12, 14)).astype(np.float32)
    for kernel in KERNELS:
        sums = poured(pixels, some_transform(rng, 0), scale=2, drop=0.8, kernel=kernel, shape=(70, 70))
        assert sums[..., 0].sum() == pytest.approx(pixels.sum(dtype=float), rel=1e-6 if kernel != "gaussian" else 0.05)
        assert sums[..., 4].sum() == pytest.approx(pixels.size, rel=1e-6 if kernel != "gaussian" else 0.05)


def test_no_bit_depends_on_windows():
    rng = np.random.default_rng(6)
    pixels, inverse = rng.normal(100, 10, (40, 44)).astype(np.float32), some_transform(rng, 1)
    for kernel in KERNELS:
        whole = poured(pixels, inverse, scale=2, drop=0.9, kernel=kernel, shape=(120, 120))
        part = poured(pixels, inverse, scale=2, drop=0.9, kernel=kernel, shape=(31, 43), at=(20, 17))
        np.testing.assert_array_equal(part, whole[20:51, 17:60])


def test_rejected_and_missing_pixels_are_left_out_and_spare_ones_fill_gaps():
    pixels = np.full((6, 8), 10.0, np.float32)
    pixels[2, 3], pixels[4, 5], pixels[1, 1] = 1000, 500, -700
    use = np.zeros(pixels.shape, np.uint8)
    use[4, 5], use[1, 1] = SPARE, NONE
    rejected = np.zeros((6, 8), np.uint8)
    rejected[2, 3] = 1
    sums = poured(pixels, np.eye(3), scale=1, drop=1.0, shape=(6, 8), use=use, rejected=rejected)
    planes = np.zeros((5, 6, 8), np.float32)
    finish_drops(sums, 1, 0.0, 3.0, planes)
    expected = pixels + 3
    expected[2, 3] = expected[1, 1] = np.nan
    np.testing.assert_allclose(planes[0], expected, rtol=1e-6)
    np.testing.assert_allclose(planes[2], np.isfinite(expected), atol=1e-12)


def test_noise_is_white_equivalent():
    """The sum over an aperture scatters by NOISE times the root of its pixels."""
    rng = np.random.default_rng(8)
    sums, truth = [], []
    for _ in range(60):
        own = np.zeros((60, 60, 9))
        for k in range(6):
            pixels, inverse = rng.normal(0, np.sqrt(2), (32, 32)).astype(np.float32), some_transform(rng, k)
            inverse[:2, 2] -= 3
            poured(pixels, inverse, scale=2, drop=0.8, shape=(60, 60), sums=own)
        planes = np.zeros((5, 60, 60), np.float32)
        finish_drops(own, 2, 1e9, 0.0, planes)
        sums.append(planes[0, 18:42, 18:42].sum(dtype=float))
        truth.append(np.sqrt(np.mean(planes[1, 18:42, 18:42].astype(float) ** 2)) * 24)
    assert np.std(sums) == pytest.approx(np.mean(truth), rel=0.25)


def test_use_of_pixels():
    use = np.empty((8, 10), np.uint8)
    lines = np.array([[5.0, 0.0, 5.0, 20.0, 0.6]])
    missing = np.zeros((8, 10), np.uint8)
    missing[4, 4] = 1
    # a window that begins a row and two columns outside of a sub of (20, 30)
    mark_use(use, -1, -2, 20, 30, missing, np.array([2 * 30 + 1], np.int32), np.array([0, 65], np.int32), lines)
    assert (use[0] == NONE).all()
    assert (use[:, :2] == NONE).all()
    assert use[3, 3] == SPARE  # saturated: sub (2, 1)
    assert use[1, 2] == use[3, 7] == SPARE  # defects: sub (0, 0) and (2, 5)
    assert (use[6, 2:] == SPARE).all()  # the trail on sub row 5
    assert use[4, 4] == NONE
    assert np.count_nonzero(use == USED) == 7 * 8 - 3 - 8 - 1
    mark_use(use, 3, 3, 20, 30, np.zeros((0, 0), np.uint8), NOWHERE, NOWHERE, np.zeros((0, 5)))
    assert (use == USED).all()


@pytest.mark.parametrize("side", [0.5, 1.0, 1.8, 2.7])
def test_noise_of_square_drops_is_that_of_fruchter_and_hook(side):
    ratio = side / (1 - 1 / (3 * side)) if side >= 1 else 1 / (1 - side / 3)
    assert noise_of_drops("square", side)[0] == pytest.approx(1 / ratio, rel=2e-3)


@pytest.mark.parametrize("kernel", ["square", "gaussian", "point"])
def test_noise_of_drops_is_that_of_many_subs(kernel):
    rng = np.random.default_rng(9)
    sums = np.zeros((120, 120, 9))
    for _ in range(150):
        inverse = np.eye(3)
        inverse[:2, 2] = rng.uniform(-1, 0, 2)
        poured(rng.normal(0, 1, (63, 63)).astype(np.float32), inverse, scale=2, drop=0.9, kernel=kernel,
               shape=(120, 120), sums=sums)  # fmt: skip
    planes = np.zeros((5, 120, 120), np.float32)
    finish_drops(sums, 2, 1e9, 0.0, planes)
    image = planes[0, 4:-4, 4:-4]
    scatter, (first, second) = noise_of_drops(kernel, 1.8)
    # the sub's variance is 2 by its model, and 1 in truth
    assert image.std() / planes[1].mean() * np.sqrt(2) == pytest.approx(scatter, rel=0.03)
    variance = np.mean(image**2)
    assert np.mean(image[:, 1:] * image[:, :-1]) / variance == pytest.approx(first, abs=0.03)
    assert np.mean(image[2:] * image[:-2]) / variance == pytest.approx(second, abs=0.03)
