"""A folder in, a master out: against the truth, again and again, interrupted, on other schedulers."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.kernels.register import transform as tf
from lerar_dask.pipeline import stack
from lerar_dask.pipeline.products import rows_reader
from lerar_dask.run import Run
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate


def run(night, out, **settings):
    nights = night if isinstance(night, list) else [night]
    return stack(nights, Path(out), Settings.of(**settings), bus=Bus())


def pixels(out: Path) -> np.ndarray:
    """All planes of the only master, from its FITS."""
    (path,) = Path(out).glob("*.fits")
    with fits.open(path) as opened:
        return np.stack([np.squeeze(opened[i].data) for i in range(5)])


def fingerprint(out: Path) -> str:
    return hashlib.sha256(pixels(out).tobytes()).hexdigest()


def test_transforms_and_scales_are_those_of_the_truth(stacked, truth):
    state = Run.open(stacked).state
    (group,) = state.groups.values()
    target = state.targets[group.target]
    run_ = Run.open(stacked)
    registration = run_.store.read_array(f"registration/{target.registration}/transforms")
    numbers = [int(Path(s.path).stem.split("_")[-1]) for s in target.subs]
    home = next(k for k in range(len(numbers)) if np.allclose(registration[k], np.eye(3)))
    first = truth.subs[numbers[home]].transform
    corners = np.array([[20.0, 20], [380, 20], [20, 300], [380, 300], [200, 160]])
    for k, number in enumerate(numbers):
        expected = truth.subs[number].transform @ tf.invert(first)
        away = tf.apply(registration[k], corners) - tf.apply(expected, corners)
        assert np.abs(away).max() < 0.12
    scale = run_.normalization(next(iter(state.groups))).scale[:, 0]
    expected = np.array([truth.subs[numbers[i]].transparency for i in group.subs])
    ratio = scale / expected
    assert np.std(ratio) / np.mean(ratio) < 0.01


def test_the_master_is_the_scene_with_the_noise_it_claims(stacked, truth):
    run_ = Run.open(stacked)
    (name,) = run_.groups
    master = run_.master(name).compute()[0]
    assert np.isfinite(master[0]).mean() > 0.95
    noise = master[1][np.isfinite(master[1])]
    with fits.open(stacked / f"{name}.fits") as opened:
        assert opened[0].header["NCOMBINE"] == 8
        assert opened[0].header["EXPTIME"] == pytest.approx(960.0)
        assert np.array_equal(opened[0].data, master[0], equal_nan=True)
    middle = master[0][60:-60, 60:-60]
    two = (middle[::2, ::2] + middle[1::2, ::2] + middle[::2, 1::2] + middle[1::2, 1::2])[: middle.shape[0] // 2]
    difference = (two[:, 1:] - two[:, :-1]) / 4
    measured = 1.4826 * np.median(np.abs(difference)) / np.sqrt(2)
    assert measured == pytest.approx(np.median(noise) / 2, rel=0.15)


def test_done_is_done(night, stacked):
    assert run(night, stacked).did_nothing  # notes how it stands, whatever other tests have done to the folder
    before = {p: p.stat().st_mtime_ns for p in stacked.rglob("*") if p.is_file() and "ledger" not in str(p)}
    summary = run(night, stacked)
    assert summary.did_nothing
    assert summary.exit_code == 0
    after = {p: p.stat().st_mtime_ns for p in before}
    assert {p for p in before if before[p] != after[p]} <= {stacked / "store.zarr" / n for n in ("run.json", "lock")}
    assert not {p for p in stacked.rglob("*") if p.is_file() and "ledger" not in str(p)} - set(before)


@pytest.mark.parametrize(
    "settings", [{"threads": 1}, {"memory": "700MiB", "threads": 2}, {"codec": "lz4"}, {"scheduler": "processes"}]
)
def test_the_same_bits_however_it_runs(night, stacked, tmp_path, settings):
    assert run(night, tmp_path / "out", **settings).exit_code == 0
    assert fingerprint(tmp_path / "out") == fingerprint(stacked)


def test_a_changed_setting_redoes_what_depends_on_it(night, stacked, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(stacked, out)
    shards = {p: p.stat().st_mtime_ns for p in (out / "store.zarr" / "raw").rglob("*") if p.is_file()}
    summary = run(night, out, reject="none")
    assert not summary.did_nothing
    assert summary.read_bytes == 0
    assert {p: p.stat().st_mtime_ns for p in shards} == shards
    assert fingerprint(out) != fingerprint(stacked)
    run(night, out)
    assert fingerprint(out) == fingerprint(stacked)


def test_new_subs_alone_are_read(night, stacked, tmp_path):
    first, out = tmp_path / "first", tmp_path / "out"
    shutil.copytree(night, first)
    late = sorted((first / "lights").glob("*.fits"))[5:]
    for path in late:
        path.rename(first / f"{path.name}.later")
    assert run(first, out).exit_code == 0
    for path in late:
        (first / f"{path.name}.later").rename(path)
    summary = run(first, out)
    assert summary.exit_code == 0
    assert summary.read_bytes == sum(p.stat().st_size for p in late)
    assert summary.n_used == 8


def begun(out: Path, stage: str) -> bool:
    """Whether the ledger tells of a task of a stage."""
    return any(f'"{stage}/' in path.read_text() for path in (out / "store.zarr" / "ledger").glob("*.jsonl"))


def stopped_at(night: Path, out: Path, stage: str, by: signal.Signals) -> subprocess.CompletedProcess:
    """A run that gets a signal the moment a task of a stage is done; slow enough to be in the middle of it."""
    text = "import time, lerar_dask.runtime.guard as g, lerar_dask.runtime.local as l\n"
    text += "plain = g.guarded\ndef slow(task):\n    time.sleep(0.1)\n    return plain(task)\nl.guarded = slow\n"
    text += "import sys\nfrom lerar_dask.cli.app import run\nsys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", text, "stack", str(night), "-o", str(out), "--threads", "1", "--tile-px", "96"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        give_up = time.monotonic() + 100
        while not begun(out, stage):
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.01)
        process.send_signal(by)
        said = process.communicate(timeout=20)
    assert not list(out.glob("*.fits"))
    return subprocess.CompletedProcess(command, process.returncode, *said)


@pytest.mark.parametrize("stage", ["ingest", "register", "normalize", "integrate"])
def test_killed_in_a_stage_and_called_again_it_gives_the_same_bits(night, stacked, tmp_path, stage):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert stopped_at(night, out, stage, signal.SIGKILL).returncode == -signal.SIGKILL
    assert run(night, out, tile_px=96).exit_code == 0
    shutil.copytree(stacked, whole)
    run(night, whole, tile_px=96)
    assert fingerprint(out) == fingerprint(whole)
    assert not list(out.rglob("*.partial"))


def test_one_light_and_two_lights(night, tmp_path):
    for n in (1, 2):
        folder = tmp_path / f"night{n}"
        folder.mkdir()
        for path in sorted((night / "lights").glob("*.fits"))[:n]:
            shutil.copy(path, folder / path.name)
        summary = run(folder, tmp_path / f"out{n}")
        assert summary.exit_code == 0
        assert summary.n_used == n
        image = pixels(tmp_path / f"out{n}")[0]
        assert np.isfinite(image).mean() > 0.9


def test_color_gives_three_channels(tmp_path):
    folder = simulate(tmp_path / "night", n=4, shape=(256, 320), seed=9, cfa="RGGB", n_darks=3, n_flats=3, n_bias=3)
    assert run(folder, tmp_path / "out").exit_code == 0
    image = pixels(tmp_path / "out")[0]
    assert image.shape[0] == 3
    sky = np.nanmedian(image, axis=(1, 2))
    assert sky[1] > sky[0] > sky[2]


@pytest.mark.parametrize("method", ["none", "minmax", "percentile", "sigma", "winsorized", "mad"])
def test_each_rejection_gives_a_master(night, stacked, tmp_path, method):
    out = tmp_path / "copy"
    shutil.copytree(stacked, out)
    assert run(night, out, reject=method, report=False).exit_code == 0
    planes, usual = pixels(out), pixels(stacked)
    same = np.isfinite(planes[0]) == np.isfinite(usual[0])
    assert same.all()
    away = ((planes[0] - usual[0]) / usual[1])[np.isfinite(planes[0])]
    assert np.abs(away).max() > 0  # each leaves out others
    assert np.percentile(np.abs(away), 90) < 1.0
    assert np.abs(np.median(away)) < 0.1
    assert (
        planes[3:].sum() == 0 if method == "none" else method in ("sigma", "winsorized") or planes[3:].sum() > 0
    )  # of 8


@pytest.mark.parametrize("method", ["global", "linear-fit", "none"])
def test_each_normalization_gives_a_master(night, stacked, tmp_path, method):
    out = tmp_path / "copy"
    shutil.copytree(stacked, out)
    assert run(night, out, normalization=method, report=False, interpolation="bilinear").exit_code == 0
    image, usual = pixels(out)[0], pixels(stacked)[0]
    assert (np.isfinite(image) == np.isfinite(usual)).all()
    both = np.isfinite(image)
    detail = [plane[both] - np.median(plane[both]) for plane in (image, usual)]
    assert np.corrcoef(*detail)[0, 1] > 0.9  # the same scene
    assert np.abs(detail[0] - detail[1]).max() > 0.5  # but not the same sky


def test_interrupt_leaves_soon_and_says_how_to_go_on(night, tmp_path):
    ended = stopped_at(night, tmp_path / "out", "ingest", signal.SIGINT)
    assert ended.returncode == 130
    assert "goes on from here" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_graph_computes_the_master(stacked, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(stacked, out)
    run_ = Run.open(out)
    (name,) = run_.groups
    graph = run_.graph(name)
    keys = [str(k) for k in graph.dask]
    assert sum(k.startswith("ingest/") for k in keys) == 8
    assert any(k.startswith("integrate/") for k in keys)
    key, canvas = run_.state.groups[name].master, run_.state.targets["Sim"].canvas
    for path in Path(run_.store.url, "master").rglob("*"):
        if path.is_file() and path.name != "zarr.json":
            path.unlink()
    assert not run_.store.has_chunk(key, 0, 0)
    graph.compute(scheduler="threads")
    rows = rows_reader(run_.store, key, (1, *canvas.shape))(0, canvas.shape[0])
    assert np.array_equal(rows[0], pixels(stacked), equal_nan=True)


def test_a_region_computes_without_the_rest(stacked, monkeypatch):
    run_ = Run.open(stacked)
    (name,) = run_.groups
    counted = []
    import lerar_dask.store.raw as raw

    plain = raw.RawReader.window
    monkeypatch.setattr(raw.RawReader, "window", lambda self, slot, *a: counted.append(slot) or plain(self, slot, *a))
    run_.normalized(name)[3, 0, 10:20, 10:20].compute()
    assert len(counted) == 1
    run_.raw(name)[2, :5, :5].compute()
    assert len(counted) == 2


def test_the_store_opens_in_zarr_and_xarray(stacked):
    import xarray
    import zarr

    run_ = Run.open(stacked)
    group = zarr.open_group(run_.store.url, mode="r", use_consolidated=False)
    (geometry,) = run_.store.geometries()
    sub = run_.state.targets["Sim"].subs[0]
    assert np.array_equal(group[f"raw/{geometry}/pixels"][sub.slot], run_.store.raw(geometry).read(sub.slot))
    data = xarray.open_zarr(run_.store.url, group=f"raw/{geometry}", consolidated=False)
    assert data["pixels"].dims == ("slot", "y", "x")
    assert data["pixels"].attrs["unit"] == "adu"


def test_environment_has_no_say_in_the_bits(night, stacked, tmp_path):
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-m", "lerar_dask", "stack", str(night), "-o", str(tmp_path / "out"), "-q"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert fingerprint(tmp_path / "out") == fingerprint(stacked)


def test_all_that_is_read_and_written_counts(night, tmp_path):
    summary = run(night, tmp_path / "out")
    files = [p for kind in ("lights", "darks", "flats", "bias") for p in (night / kind).glob("*.fits")]
    assert summary.read_bytes == pytest.approx(sum(p.stat().st_size for p in files), rel=0.01)
    there = sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file() and p.suffix != ".html")
    assert 0.9 * there < summary.written_bytes <= there


@pytest.mark.parametrize("cfa", [None, "RGGB"])
def test_a_dry_run_foretells_what_is_read_and_written(tmp_path, cfa):
    folder = simulate(tmp_path / "night", n=4, shape=(480, 960), seed=3, cfa=cfa, n_darks=3, n_flats=3, n_bias=3)
    plan = stack([folder], tmp_path / "out", Settings.of(), bus=Bus(), dry_run=True)
    summary = run(folder, tmp_path / "out")
    assert plan.read_bytes == pytest.approx(summary.read_bytes, rel=0.02)
    assert plan.written_bytes == pytest.approx(summary.written_bytes, rel=0.15)  # the canvas is not known before
