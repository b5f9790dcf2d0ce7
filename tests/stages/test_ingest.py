"""Ingest of single lights: what arrives in the store, what is refused and with which words."""

import pickle

import numpy as np
import pytest
import xxhash
from astropy.io import fits

from lerar_dask.errors import FrameError
from lerar_dask.frames.fits import probe as probe_fits
from lerar_dask.settings import Ingest
from lerar_dask.stages import ingest
from lerar_dask.stages.ingest import Item
from lerar_dask.store.access import Store

SHAPE = (300, 340)


def sky(seed=0):
    """Noise and 25 Gaussian stars."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.full(SHAPE, 800.0)
    for sy, sx, peak in zip(*rng.uniform(20, 280, (2, 25)), rng.uniform(500, 20000, 25), strict=True):
        image += peak * np.exp(-((y - sy) ** 2 + (x - sx) ** 2) / 3.5)
    return image + rng.normal(0, 20, SHAPE)


@pytest.fixture
def store(tmp_path):
    return Store.create(str(tmp_path / "store.zarr"))


def light(tmp_path, data, **cards):
    path = tmp_path / "a light.fits"
    fits.writeto(path, data, fits.Header({"IMAGETYP": "LIGHT", "EXPTIME": 60.0, **cards}), overwrite=True)
    return probe_fits(path, path.stat())


def take_in(store, frame, *, raw_done=False, calibration=None, settings=None):
    settings = settings or Ingest()
    item = Item(frame=frame, geometry=ingest.geometry_name(frame), slot=0, calibration=calibration, raw_done=raw_done)
    ingest.prepare_arrays(store, [item], settings, "none")
    (task,) = ingest.plan(store.url, [item], settings).tasks
    task = pickle.loads(pickle.dumps(task))
    return item, task, task.function(**task.arguments)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_pixels_arrive_as_they_are(store, tmp_path, dtype):
    data = np.clip(np.round(sky()), 0, 30000).astype(dtype)
    item, _, result = take_in(store, light(tmp_path, data))
    stored = store.raw(item.geometry).read(0)
    assert stored.dtype == np.dtype(dtype)
    assert np.array_equal(stored, data)
    assert result["id"] == store.frame(item.geometry, 0)["id"] == xxhash.xxh3_128_hexdigest(data.tobytes())


def test_cards_are_kept_verbatim_and_measurements_are_there(store, tmp_path):
    frame = light(tmp_path, np.round(sky()).astype(np.uint16), FILTER="Ha ")
    item, _, result = take_in(store, frame)
    record = store.frame(item.geometry, 0)
    assert [c for c in record["cards"] if c.startswith("FILTER")] == ["FILTER  = 'Ha      '"]
    measures = store.measures(item.geometry, result["measure"])
    summary = measures.summary(0)
    assert summary["background_adu"] == pytest.approx(800, abs=4)
    assert summary["noise_adu"] == pytest.approx(20, rel=0.05)
    assert summary["n_stars"] == len(measures.read_stars(0)) >= 18
    assert measures.read_blocks(0).shape == (1, 38, 43, 3)


def test_calibration_is_applied_and_defects_are_left_out(store, tmp_path):
    data = np.round(sky()).astype(np.uint16)
    data[100, 100] = 60000
    pedestal, gain = np.full(SHAPE, 300, np.float32), np.full(SHAPE, 2, np.float32)
    for name, array in (("pedestal", pedestal), ("gain", gain)):
        store.write_array(f"calibration/set/{name}", array, dims=("y", "x"))
    store.write_array("calibration/set/defects", np.array([100 * SHAPE[1] + 100], np.int32), dims=("defect",))
    item, _, result = take_in(store, light(tmp_path, data), calibration="set")
    measures = store.measures(item.geometry, result["measure"])
    assert measures.summary(0)["background_adu"] == pytest.approx(1000, abs=8)
    assert measures.read_blocks(0)[0, 12, 12, 1] == 63
    assert len(measures.read_spikes(0)) == 0


def test_measured_again_the_file_is_not_touched(store, tmp_path):
    frame = light(tmp_path, np.round(sky()).astype(np.uint16))
    item, first_task, first = take_in(store, frame)
    stars = store.measures(item.geometry, first["measure"]).read_stars(0)
    frame.path.unlink()
    _, same_task, again = take_in(store, frame, raw_done=True)
    assert again["id"] == first["id"]
    assert again["read_bytes"] == 0
    assert same_task.digest == first_task.digest
    assert np.array_equal(store.measures(item.geometry, again["measure"]).read_stars(0), stars)


def test_a_changed_setting_is_another_measurement_of_the_same_pixels(store, tmp_path):
    frame = light(tmp_path, np.round(sky()).astype(np.uint16))
    _, task, first = take_in(store, frame)
    _, other_task, other = take_in(store, frame, raw_done=True, settings=Ingest(max_stars=10))
    assert other["measure"] != first["measure"]
    assert other_task.digest != task.digest
    assert other["raw"] == first["raw"]
    assert store.measures(ingest.geometry_name(frame), other["measure"]).summary(0)["n_stars"] == 10


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (np.zeros(SHAPE, np.uint16), "black"),
        (np.full(SHAPE, 65535, np.uint16), "white"),
        (np.full(SHAPE, 77, np.int32), "77"),
        (np.full(SHAPE, np.nan, np.float32), "NaN"),
    ],
)
def test_what_holds_no_picture_is_refused_in_words(store, tmp_path, data, word):
    with pytest.raises(FrameError, match=word):
        take_in(store, light(tmp_path, data))


def test_a_file_cut_short_after_the_scan_is_refused(store, tmp_path):
    frame = light(tmp_path, np.round(sky()).astype(np.uint16))
    frame.path.write_bytes(frame.path.read_bytes()[:50_000])
    with pytest.raises(FrameError, match="changed"):
        take_in(store, frame)


def test_eight_bits_without_noise_are_legal(store, tmp_path):
    data = np.round(sky() / 150).clip(0, 255).astype(np.uint8)
    item, _, result = take_in(store, light(tmp_path, data))
    summary = store.measures(item.geometry, result["measure"]).summary(0)
    assert summary["noise_adu"] == pytest.approx(12**-0.5, rel=0.3)
    assert summary["n_stars"] >= 10


def test_missing_pixels_are_not_counted(store, tmp_path):
    data = sky().astype(np.float32)
    data[:80] = np.nan
    data[200, 200] = np.nan
    item, _, result = take_in(store, light(tmp_path, data))
    measures = store.measures(item.geometry, result["measure"])
    blocks = measures.read_blocks(0)[0]
    assert np.isnan(blocks[:10, :, 0]).all()
    assert blocks[25, 25, 1] == 63
    assert np.isfinite(measures.read_stars(0)).all()
