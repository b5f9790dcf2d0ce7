"""Registration of star lists in a store: transforms against truth, and the reasons of those that do not match."""

import numpy as np
import pytest

from lerar_dask.kernels.measure.sub import measure_shapes
from lerar_dask.kernels.register.transform import apply
from lerar_dask.settings import Register
from lerar_dask.stages.register.agree import agree_key, load, plan_agree
from lerar_dask.stages.register.match import plan_match
from lerar_dask.stages.register.reference import choose_reference
from lerar_dask.store.access import Store
from lerar_dask.sub import Sub

SHAPE = (900, 1200)
SETTINGS = Register()


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store.zarr")
    shapes = measure_shapes(SHAPE, cfa=None, cell_px=64, max_stars=500, max_spikes=4)
    store.measures("camera", "m").create(40, shapes)
    return store


def put(store, slot, xy, flux, *, eccentricity=0.2, fwhm=3.0):
    """Star list of one sub."""
    inside = ((xy > 0) & (xy < [SHAPE[1] - 1, SHAPE[0] - 1])).all(axis=1)
    xy, flux = xy[inside], flux[inside]
    order = np.argsort(-flux)
    table = np.zeros((len(xy), 10))
    table[:, :2], table[:, 2], table[:, 5], table[:, 8] = xy[order], flux[order], fwhm, 100.0
    empty = {"blocks": np.zeros((1, 1, 1, 3)), "grid": np.zeros((1, 1, 1, 2)), "spikes": np.zeros((0, 3))}
    summary = {"n_stars": len(xy), "fwhm_px": fwhm, "eccentricity": eccentricity, "noise_adu": 10.0}
    summary |= {"background_adu": 100.0, "gradient_adu": 0.0}
    store.measures("camera", "m").write(slot, stars=table, summary=summary, **empty)


def member(slot, group="M1_L", **more):
    return Sub(geometry="camera", slot=slot, measure="m", shape=SHAPE, group=group, path=f"{slot}.fits", **more)


def register(store, members, reference, settings=SETTINGS, key="k"):
    """Run both rounds here."""
    step = plan_match(store.url, members, reference, settings, key)
    found = [f for task in step.tasks for f in task.function(**task.arguments)["found"]]
    (task,) = plan_agree(store.url, members, reference, found, settings).tasks
    task.function(**task.arguments)
    return load(store.url, agree_key(members, reference, found, settings))


def sky(seed=0, n=800, reach=3000):
    rng = np.random.default_rng(seed)
    return rng.uniform(-reach, reach + 1200, (n, 2)), 1e4 / rng.random(n), rng


def turned(angle_deg, shift):
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    center, matrix = np.array([599.5, 449.5]), np.eye(3)
    matrix[:2, :2] = [[c, -s], [s, c]]
    matrix[:2, 2] = center - matrix[:2, :2] @ center + shift
    return matrix


def test_dithers_a_flip_and_everything_that_can_be_wrong(store):
    xy, flux, rng = sky(n=12000)
    truth = [turned(180.0 * (i >= 4) + 0.1 * i, rng.uniform(-40, 40, 2) * (i > 0)) for i in range(8)]
    truth[0] = np.eye(3)
    for i, matrix in enumerate(truth):
        put(store, i, apply(matrix, xy) + rng.normal(0, 0.03, xy.shape), flux)
    bright = flux > np.sort(flux)[-90]
    strange = rng.uniform(0, 900, (230, 2))
    put(store, 8, xy[bright][:3] * 0 + [[100, 100], [300, 200], [500, 600]], flux[:3])
    put(store, 9, rng.uniform(0, 900, (40, 2)), flux[:40])
    put(store, 10, strange, flux[:230], eccentricity=0.8)
    put(store, 11, strange, flux[:230])
    put(store, 12, strange, flux[:230], fwhm=9.0)
    members = [member(i) for i in range(13)]
    found = register(store, members, members[0])
    assert found.accepted.tolist() == [True] * 8 + [False] * 5
    for i, matrix in enumerate(truth):
        assert (
            np.abs(
                apply(found.transforms[i], np.array([[0, 0], [1199, 899.0]]))
                - apply(matrix, np.array([[0, 0], [1199, 899.0]]))
            ).max()
            < 0.03
        )
    assert found.model == {"M1_L": "similarity"}
    near = len(store.measures("camera", "m").read_stars(0))
    assert near > 200
    assert found.reasons[8].startswith("clouds: 3 stars where its neighbors have ")
    assert found.reasons[9].startswith("clouds: 40 stars where its neighbors have ")
    assert found.reasons[10] == "trailed (eccentricity 0.80)"
    assert found.reasons[11] == "other field: its 230 stars match those of no other sub"
    assert found.reasons[12] == "out of focus: stars 9.0 px wide where its neighbors have 3.0"
    assert found.reasons[:8] == [""] * 8


def test_far_dithers_reach_the_reference_by_way_of_others(store):
    xy, flux, rng = sky(seed=1, n=20000)
    for i in range(4):
        put(store, i, xy - [700.0 * i, 0] + rng.normal(0, 0.03, xy.shape), flux)
    members = [member(i) for i in range(4)]
    found = register(store, members, members[0])
    assert found.accepted.all()
    assert found.transforms[3][:2, 2] == pytest.approx([-2100, 0], abs=0.6)


def test_nothing_has_stars(store):
    for i in range(3):
        put(store, i, np.zeros((0, 2)), np.zeros(0))
    members = [member(i) for i in range(3)]
    found = register(store, members, members[0])
    assert found.reasons[1:] == ["too few stars (0 found, 6 needed)"] * 2


def test_reference_from_an_image_of_ones_own(store):
    xy, flux, rng = sky(seed=2, n=12000)
    for i in range(3):
        put(store, i, xy - [10.0 * i + 5, 3] + rng.normal(0, 0.03, xy.shape), flux)
    align_image = np.zeros((300, 10))
    inside = np.nonzero(((xy > 0) & (xy < [1199, 899])).all(axis=1))[0][:300]
    align_image = align_image[: len(inside)]
    align_image[:, :2], align_image[:, 2], align_image[:, 5], align_image[:, 8] = xy[inside], flux[inside], 3.0, 100.0
    store.write_array("registration/guides/g/stars", align_image, dims=("star", "column"))
    reference = Sub(
        geometry="align-to",
        slot=0,
        measure="",
        shape=SHAPE,
        group="align-to",
        path="g",
        stars_at="registration/guides/g/stars",
    )
    found = register(store, [member(i) for i in range(3)], reference)
    assert found.transforms.shape == (3, 3, 3)
    assert found.transforms[:, 0, 2] == pytest.approx([-5, -15, -25], abs=0.03)
    assert list(found.model) == ["M1_L"]


def test_sharp_and_starry_sub_is_the_reference():
    subs = [
        {"n_stars": 300, "fwhm_px": 3.0, "eccentricity": 0.3, "noise_adu": 10.0},
        {"n_stars": 310, "fwhm_px": 2.5, "eccentricity": 0.3, "noise_adu": 10.0},
        {"n_stars": 320, "fwhm_px": 2.6, "eccentricity": 0.8, "noise_adu": 10.0},
        {"n_stars": 40, "fwhm_px": 2.0, "eccentricity": 0.1, "noise_adu": 10.0},
        {"n_stars": 0, "fwhm_px": 0.0, "eccentricity": 0.0, "noise_adu": 10.0},
    ]
    assert choose_reference(subs)[0] == 1
    assert set(choose_reference(subs)[-2:]) == {3, 4}
