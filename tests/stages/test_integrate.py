"""Integration of small simulated groups in a real store."""

from __future__ import annotations

import numpy as np
import pytest

from lerar_dask.grid import Canvas, Window
from lerar_dask.settings import Integrate
from lerar_dask.stages.calibration_maps import forget_maps
from lerar_dask.stages.integrate import chunk as integrate
from lerar_dask.stages.integrate import sources, tiles
from lerar_dask.stages.integrate.stack_table import StackTable, load_table, save_table
from lerar_dask.store.access import Store

SHAPE = (150, 190)
SIGMA = 10.0


def scene(y, x):
    """A smooth scene with stars of FWHM 3.5, in ADU above the sky."""
    out = 20 * np.exp(-((x - 90) ** 2 + (y - 70) ** 2) / 2 / 30**2)
    for sy, sx, peak in ((40.3, 50.2, 3000), (100.7, 120.4, 8000), (75.1, 160.9, 500), (20.5, 20.5, 1500)):
        out = out + peak * np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / 2 / 1.5**2)
    return out


def transforms(n, rng):
    """Shifts, a little rotation; every third sub turned by 180 degrees."""
    out = []
    for k in range(n):
        a = np.deg2rad(rng.uniform(-0.2, 0.2) + (180 if k % 3 == 2 else 0))
        c, s = np.cos(a), np.sin(a)
        middle = np.array([(SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2])
        turn = np.array([[c, -s], [s, c]])
        out.append(np.block([[turn, (middle - turn @ middle + rng.uniform(-6, 6, 2))[:, None]], [np.zeros((1, 2)), 1]]))
    out[0] = np.eye(3)
    return np.array(out)


def make_table(n, matrices, *, pattern="", **changes):
    channels = 3 if pattern else 1
    values = {
        "geometries": ["g"],
        "calibrations": ["cal"],
        "patterns": [pattern] * n,
        "geometry": np.zeros(n, np.int32),
        "slot": np.arange(n, dtype=np.int32),
        "shape": np.tile(np.array(SHAPE, np.int32), (n, 1)),
        "scale": np.ones(n),
        "zero": np.zeros(n),
        "blank": np.full(n, np.nan),
        "saturation": np.full(n, 65535.0),
        "calibration": np.zeros(n, np.int32),
        "transform": matrices,
        "ln_scale": np.ones((n, channels)),
        "ln_coefficients": np.zeros((n, channels, 4, 4), np.float32),
        "tile_px": 1000,
        "noise": np.full((n, channels, 3, 3), SIGMA, np.float32),
        "noise_cell_px": 64,
        "sky": np.full((n, channels), 500, np.float32),
        "weight_factor": np.ones(n),
        "trails": np.zeros((0, 5)),
        "trail_start": np.zeros(n + 1, np.int64),
        "e_per_adu": np.full(n, 1.0),
        "fwhm": np.full(n, 3.5),
        "registration_px": np.full(n, 0.05),
        "sky_level": np.full(channels, 100.0),
        "level": np.zeros(channels),
    }
    return StackTable(**{**values, **changes})


def make_group(folder, n, *, pattern="", seed=1, defects=(), trail=None):
    """A store with `n` subs of the scene: sky 500 + gradient of each sub, scale, dark 200, flat."""
    rng = np.random.default_rng(seed)
    store = Store.create(folder / "store.zarr")
    store.add_geometry("g", SHAPE, "uint16", "none")
    store.reserve("g", n)
    matrices = transforms(n, rng)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    gain = (1 + 0.1 * ((x - 90) ** 2 + (y - 70) ** 2) / 100**2).astype(np.float32)
    store.write_array("calibration/cal/pedestal", np.full(SHAPE, 200, np.float32), dims=("y", "x"))
    store.write_array("calibration/cal/gain", gain, dims=("y", "x"))
    store.write_array("calibration/cal/defects", np.array(sorted(defects), np.int32), dims=("defect",))
    scale = rng.uniform(0.8, 1.25, n)
    channels = 3 if pattern else 1
    coefficients = np.zeros((n, channels, 4, 4), np.float32)
    color = np.zeros(SHAPE, int)
    for i, c in enumerate(pattern):
        color[i // 2 :: 2, i % 2 :: 2] = "RGB".index(c)
    for k in range(n):
        back = np.linalg.inv(matrices[k])
        rx, ry = (back[a, 0] * x + back[a, 1] * y + back[a, 2] for a in (0, 1))
        level = 500 + 20 * k
        coefficients[k] = level
        light = scale[k] * scene(ry, rx) * np.array([1.0, 0.7, 0.4])[color] + level
        pixels = light + rng.normal(0, SIGMA, SHAPE) * (1 if SIGMA else 0)
        if trail is not None and k == trail[0]:
            pixels[trail[1] : trail[1] + 2] += 60
        raw = pixels / gain + 200
        for d in defects:
            raw.reshape(-1)[d] = 60000
        store.write_raw("g", k, np.clip(np.round(raw), 0, 65535).astype(np.uint16))
    changes = {
        "ln_scale": np.repeat(scale[:, None], channels, axis=1),
        "ln_coefficients": coefficients,
        "sky": np.repeat((500 + 20 * np.arange(n, dtype=np.float32))[:, None], channels, axis=1),
    }
    if trail is not None:
        start = np.zeros(n + 1, np.int64)
        start[trail[0] + 1 :] = 1
        changes["trails"] = np.array([[trail[1] + 0.5, 0, trail[1] + 0.5, SHAPE[1] - 1, 3.0]])
        changes["trail_start"] = start
    save_table(store, "t", make_table(n, matrices, pattern=pattern, **changes))
    load_table.cache_clear()
    forget_maps()
    return store.url, Canvas.union(matrices, np.tile((0, SHAPE[0], 0, SHAPE[1]), (n, 1)))


def whole(url, canvas, settings, memory=1 << 29):
    ny, nx = canvas.chunk_grid
    return np.block(
        [
            [integrate.compute_chunk(url, "t", canvas, settings, cy, cx, memory=memory) for cx in range(nx)]
            for cy in range(ny)
        ]
    )


def truth(canvas):
    y, x = np.mgrid[: canvas.shape[0], : canvas.shape[1]].astype(float)
    return scene(y + canvas.origin_yx[0], x + canvas.origin_yx[1]) + 100


@pytest.mark.parametrize("reject", ["auto", "none", "minmax", "sigma", "winsorized", "mad"])
def test_master_is_the_scene_within_its_noise(tmp_path, reject):
    url, canvas = make_group(tmp_path, 9)
    image, noise, coverage, low, high = whole(url, canvas, Integrate(reject=reject))[0]
    full = (coverage + low + high) == 9
    assert full.mean() > 0.7
    quiet = full & (truth(canvas) < 115)
    z = (image - truth(canvas))[quiet] / noise[quiet]
    assert abs(z.mean()) < 0.1
    assert 0.8 < z.std() < (1.0 if reject in ("auto", "none", "sigma", "winsorized") else 1.4)
    assert (
        abs((image - truth(canvas))[full & (truth(canvas) > 1000)] / truth(canvas)[full & (truth(canvas) > 1000)]).max()
        < 0.05
    )


def test_stars_keep_their_samples(tmp_path):
    url, canvas = make_group(tmp_path, 12)
    _, _, coverage, low, high = whole(url, canvas, Integrate())[0]
    bright = truth(canvas) > 400
    assert (low + high)[bright].sum() / (coverage + low + high)[bright].sum() < 0.012


def test_same_bits_for_any_memory(tmp_path):
    url, canvas = make_group(tmp_path, 7, defects=range(3000, 24000, 97), trail=(3, 60))
    table = load_table(url, "t")
    for settings in (Integrate(), Integrate(reject="winsorized", interpolation="bilinear")):
        reference = whole(url, canvas, settings)
        seen = set()
        for tile in ((16, 128), (48, 256), (256, 512)):
            memory = tiles.task_bytes(table, 7, tile, settings)
            seen.add(tiles.fitting_tile(table, 7, memory, settings))
            np.testing.assert_array_equal(whole(url, canvas, settings, memory), reference)
        assert len(seen) > 1


def test_defects_are_left_out_and_filled_where_nobody_knows_better(tmp_path):
    defects = [70 * SHAPE[1] + 60, 71 * SHAPE[1] + 60, 120 * SHAPE[1] + 150]
    url, canvas = make_group(tmp_path, 5, defects=defects)
    image, _, coverage, low, high = whole(url, canvas, Integrate(reject="none"))[0]
    assert np.nanmax(abs(image - truth(canvas))[coverage > 3]) < 400
    assert (low + high).sum() == 0
    alone = make_table(
        1,
        np.eye(3)[None],
        slot=np.zeros(1, np.int32),
        sky=np.full((1, 1), 500, np.float32),
        ln_coefficients=np.full((1, 1, 4, 4), 500, np.float32),
    )
    save_table(Store.open(url), "alone", alone)
    one = integrate.compute_chunk(url, "alone", Canvas((0, 0), SHAPE), Integrate(), 0, 0)[0]
    assert np.isfinite(one[0]).all()
    assert one[2, 70, 60] == 1
    assert abs(one[0, 70, 60] - one[0, 66, 56]) < 80


def test_trails_are_counted_high_and_leave_no_trace(tmp_path):
    url, canvas = make_group(tmp_path, 6, trail=(1, 80))
    with_mask = whole(url, canvas, Integrate(reject="none"))[0]
    without = whole(url, canvas, Integrate(reject="none", trails=False))[0]
    hit = with_mask[4] > 0
    assert 150 * 5 < hit.sum() < 200 * 8
    assert (np.isfinite(with_mask[0]) == np.isfinite(without[0])).all()
    quiet = hit & (truth(canvas) < 115) & (with_mask[2] + with_mask[4] > 2)
    assert abs((with_mask[0] - truth(canvas))[quiet].mean()) < 1.0
    assert (without[0] - truth(canvas))[quiet].mean() > 2.0


def test_reach_is_the_whole_union(tmp_path):
    url, canvas = make_group(tmp_path, 4)
    coverage = whole(url, canvas, Integrate(reject="none"))[0, 2]
    y, x = np.mgrid[: canvas.shape[0], : canvas.shape[1]]
    table = load_table(url, "t")
    covered = np.zeros(canvas.shape)
    for matrix in table.transform:
        p = matrix @ np.stack([x.ravel() + canvas.origin_yx[1], y.ravel() + canvas.origin_yx[0], np.ones(x.size)])
        inside = (p[0] >= 0) & (p[1] >= 0) & (p[0] <= SHAPE[1] - 1) & (p[1] <= SHAPE[0] - 1)
        covered += inside.reshape(canvas.shape)
    assert (coverage != covered).mean() < 1e-3


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG"])
def test_color_lattices_give_three_channels(tmp_path, pattern):
    url, canvas = make_group(tmp_path, 8, pattern=pattern)
    out = whole(url, canvas, Integrate())
    assert out.shape[:2] == (3, 5)
    inside = (slice(20, -20), slice(20, -20))
    for c, share in enumerate((1.0, 0.7, 0.4)):
        expected = (truth(canvas) - 100) * share + 100
        quiet = (expected < 115)[inside]
        z = ((out[c, 0] - expected) / out[c, 1])[inside][quiet]
        assert abs(z.mean()) < 0.15
        assert np.nanmax(out[c, 2]) == 8  # the two greens of a sub are one sample


def test_one_sub_in_its_three_states(tmp_path):
    url, canvas = make_group(tmp_path, 3)
    settings = Integrate()
    calibrated = integrate.compute_sub(url, "t", canvas, settings, 1, Window(10, 60, 20, 90), what="calibrated")
    assert calibrated.shape == (50, 70)
    assert abs(np.median(calibrated) - 520) < 15
    window = Window(30, 90, 40, 140)
    registered, normalized = (
        integrate.compute_sub(url, "t", canvas, settings, 1, window, what=what) for what in ("registered", "normalized")
    )
    table = load_table(url, "t")
    np.testing.assert_allclose(normalized, (registered - 520) / table.ln_scale[1, 0], rtol=1e-4, atol=1e-2)


def test_plan_leaves_out_chunks_that_nobody_touches_and_tasks_write_what_they_compute(tmp_path):
    url, canvas = make_group(tmp_path, 3)
    wide = Canvas(canvas.origin_yx, (canvas.shape[0], 1100))
    step = integrate.plan(url, "t", wide, Integrate(), name="x", memory_per_task=1 << 28)
    assert [task.key for task in step.tasks] == ["integrate/x/0.0"]
    store, key = Store.open(url), integrate.master_key("t", wide, Integrate())
    store.create_master(key, 1, wide.shape)
    result = step.tasks[0].function(**step.tasks[0].arguments)
    assert sum(result["used"]) > 0.9 * 3 * SHAPE[0] * SHAPE[1]
    written = store.read_chunk(key, 0, 0)[:, :, : wide.shape[0]]
    expected = integrate.compute_chunk(url, "t", wide, Integrate(), 0, 0)
    np.testing.assert_array_equal(written, expected)
    assert tiles.task_bytes(load_table(url, "t"), 3, (256, 512), Integrate()) <= step.task_bytes


def test_buffers_stay_within_what_the_memory_model_says(tmp_path):
    import tracemalloc

    url, canvas = make_group(tmp_path, 20, pattern="RGGB")
    table, settings = load_table(url, "t"), Integrate()
    integrate.compute_chunk(url, "t", canvas, settings, 0, 0)
    sources._threads.__dict__.clear()
    tracemalloc.start()
    integrate.compute_chunk(url, "t", canvas, settings, 0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < tiles.task_bytes(table, 20, (256, 512), settings)


def test_a_turned_camera_fits_the_grid(tmp_path):
    url, _ = make_group(tmp_path, 4)
    table = load_table(url, "t")
    matrices = table.transform.copy()
    back = np.array([[0.0, -1, SHAPE[0] - 1], [1, 0, 0], [0, 0, 1]])
    turned = make_table(
        1,
        (back @ matrices[0])[None],
        slot=np.zeros(1, np.int32),
        shape=np.array([SHAPE], np.int32),
        ln_coefficients=np.full((1, 1, 4, 4), 500, np.float32),
    )
    save_table(Store.open(url), "turned", turned)
    grid = Canvas((0, 0), SHAPE)
    out = integrate.compute_chunk(url, "turned", grid, Integrate(), 0, 0)[0]
    straight = make_table(1, np.eye(3)[None], slot=np.zeros(1, np.int32), ln_coefficients=turned.ln_coefficients)
    save_table(Store.open(url), "straight", straight)
    plain = integrate.compute_chunk(url, "straight", grid, Integrate(), 0, 0)[0, 0]
    # canvas (x, y) lies at sub (149 - y, x)
    for y, x in ((20, 30), (100, 140), (149, 0), (60, 149)):
        assert out[0, y, x] == pytest.approx(plain[x, 149 - y], rel=1e-4, abs=0.05)
