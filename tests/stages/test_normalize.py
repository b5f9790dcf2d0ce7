"""Normalization of a stored group: scales, skies and trails against the truth they were made with."""

import numpy as np
import pytest

from lerar_dask.kernels.normalize.surface import evaluate_surface
from lerar_dask.settings import Normalize
from lerar_dask.stages import trails as trails_stage
from lerar_dask.stages.normalize import solve as normalize
from lerar_dask.store.access import Store
from lerar_dask.sub import Sub

SHAPE, N, NOISE = (320, 480), 8, 5.0
TRAIL = (3, 150.0, 240.0, 0.6, 4.0)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A store with raw subs and their measurements, and the truth."""
    rng = np.random.default_rng(5)
    store = Store.create(tmp_path_factory.mktemp("night") / "store.zarr")
    store.add_geometry("cam", SHAPE, "uint16", "none")
    store.reserve("cam", N)
    measures = store.measures("cam", "key")
    by, bx = SHAPE[0] // 8, SHAPE[1] // 8
    measures.create(N, {"blocks": (1, by, bx, 3), "grid": (1, 5, 8, 2), "stars": (80, 10), "spikes": (1, 3)})
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    scale = np.exp(rng.normal(0, 0.1, N))
    stars = np.column_stack([rng.uniform(10, 470, 40), rng.uniform(10, 310, 40), 10 ** rng.uniform(3.5, 4.5, 40)])
    members, skies = [], []
    for k in range(N):
        sky = 800 * (1 + 0.02 * k) * (1 + 0.1 * ((x - 240) * np.cos(0.2 * k) + (y - 160) * np.sin(0.2 * k)) / 288)
        image = sky + scale[k] * 20 * np.exp(-(((x - 200) / 80) ** 2) - ((y - 150) / 60) ** 2)
        image += NOISE * rng.standard_normal(SHAPE)
        if k == TRAIL[0]:
            away = (y - TRAIL[1]) * np.cos(TRAIL[3]) - (x - TRAIL[2]) * np.sin(TRAIL[3])
            image += NOISE * TRAIL[4] * np.exp(-0.5 * (away / 1.5) ** 2)
        table = np.zeros((len(stars), 10))
        table[:, :2] = stars[:, :2]
        table[:, 2] = scale[k] * stars[:, 2] * (1 + 0.003 * rng.standard_normal(len(stars)))
        table[:, 3], table[:, 5] = 0.003 * table[:, 2], 3.0
        parts = image.reshape(by, 8, bx, 8).mean(axis=(1, 3))
        blocks = np.stack([parts, np.full_like(parts, 64), np.zeros_like(parts)], axis=2)[None].astype(np.float32)
        grid = np.stack([np.full((5, 8), np.median(image)), np.full((5, 8), NOISE)], axis=2)[None].astype(np.float32)
        measures.write(k, blocks=blocks, grid=grid, stars=table, spikes=np.zeros((0, 3)), summary={})
        store.write_raw("cam", k, np.rint(image).astype(np.uint16))
        members.append(
            Sub(
                path=f"{k}.fits",
                group="g",
                geometry="cam",
                slot=k,
                measure="key",
                shape=SHAPE,
                start=1.7e9 + 150 * k,
                exposure_s=60.0,
                noise_cell_px=64,
            )
        )
        skies.append(sky)
    return store, members, scale, np.array(skies)


def _solved(night, method, key, trails=False):
    store, members, *_ = night
    transforms = np.tile(np.eye(3), (N, 1, 1))
    step = normalize.plan(
        store.url, members, transforms, Normalize(normalization=method), key=key, name="g", reference=0, site=None
    )
    steps = [step]
    if trails:
        trails_stage.prepare_scene(store, members, transforms, 1, key=key)
        steps.append(trails_stage.plan_scene(store.url, members, transforms, key=key, name="g"))
        steps.append(trails_stage.plan(store.url, members, transforms, [None] * N, key=key, name="g"))
    for step in steps:
        for task in step.tasks:
            task.function(**task.arguments)
    return normalize.load(store.url, key)


def test_local(night):
    _, _, scale, truth = night
    found = _solved(night, "local", "local", trails=True)
    np.testing.assert_allclose(found.scale[:, 0], scale / scale[0], rtol=0.01)
    ys, xs = (a[::20, ::20] for a in np.mgrid[: SHAPE[0], : SHAPE[1]])
    error = np.array(
        [
            (evaluate_surface(found.coefficients[k, 0], SHAPE, found.tile_px, ys, xs) - truth[k][::20, ::20])
            / found.scale[k, 0]
            for k in range(N)
        ]
    )
    assert (error - error.mean(axis=0)).std() < 0.8
    assert found.level == [0]
    assert np.isfinite(found.error).all()
    assert 0.3 < np.median(found.f) < 1.5


def test_trails(night):
    found = _solved(night, "local", "trails", trails=True)
    assert found.trails[:, 0].tolist() == [TRAIL[0]]
    y0, x0, y1, x1 = found.trails[0, 1:5]
    for y, x in ((y0, x0), (y1, x1)):
        assert abs((y - TRAIL[1]) * np.cos(TRAIL[3]) - (x - TRAIL[2]) * np.sin(TRAIL[3])) < 1.5


def test_the_scene_does_not_depend_on_its_bands(night, monkeypatch):
    scenes = []
    for rows in (4, 11, 128):
        monkeypatch.setattr(trails_stage, "_scene_rows", lambda _, rows=rows: rows)
        _solved(night, "local", f"bands{rows}", trails=True)
        scenes.append(night[0].read_array(f"normalization/bands{rows}/block_scene"))
    assert np.isfinite(scenes[0]).mean() > 0.5
    for scene in scenes[1:]:
        np.testing.assert_allclose(scene, scenes[0], rtol=1e-6, atol=1e-4)


def test_none_changes_nothing(night):
    found = _solved(night, "none", "none")
    assert (found.scale == 1).all()
    assert found.coefficients.shape[2:] == (0, 0)
    assert found.sky_level == [0]
    assert found.level > 700


@pytest.mark.parametrize("method", ["global", "linear-fit"])
def test_constants_only(night, method):
    found = _solved(night, method, method)
    first = found.coefficients[:, 0, :1, :1]
    np.testing.assert_allclose(
        found.coefficients[:, 0], np.broadcast_to(first, found.coefficients[:, 0].shape), rtol=1e-4
    )


def test_the_key_knows_settings_and_inputs(night):
    _, members, *_ = night
    keys = {
        normalize.normalization_key(m, "r", s, t, 0)
        for m in (members, members[1:])
        for s in (Normalize(), Normalize(tile_px=64))
        for t in (True, False)
    }
    assert len(keys) == 8
