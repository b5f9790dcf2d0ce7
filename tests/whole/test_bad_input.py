"""Rubbish in: a frame set aside with a reason, or one line and an exit code; never a traceback, never a lost night."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from dask.core import toposort

import lerar_dask
from lerar_dask.errors import LerarError, StoreError
from lerar_dask.pipeline import stack
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate
from lerar_dask.stages.calibrate import masters


def run(night, out, **settings):
    return stack([Path(night)], Path(out), Settings.of(**settings), bus=Bus())


def write(path: Path, data: np.ndarray, **cards) -> None:
    header = fits.Header()
    base = {
        "IMAGETYP": "LIGHT",
        "OBJECT": "Sim",
        "FILTER": "L",
        "EXPTIME": 120.0,
        "INSTRUME": "Simulated camera",
        "GAIN": 100,
    }
    for word, value in {**base, **cards}.items():
        header[word] = value
    fits.writeto(path, data, header)


@pytest.fixture(scope="module")
def rubbish(night, tmp_path_factory):
    """A good night with every kind of bad light in it; and what became of each."""
    folder = tmp_path_factory.mktemp("rubbish") / "night"
    shutil.copytree(night, folder)
    lights = folder / "lights"
    good = sorted(lights.glob("*.fits"))[0].read_bytes()
    shape = (320, 400)
    rng = np.random.default_rng(1)
    (lights / "truncated.fits").write_bytes(good[: len(good) // 2])
    (lights / "empty.fits").write_bytes(b"")
    (lights / "text.fits").write_text("this is no picture " * 400)
    (lights / "copy.fits").write_bytes(good)
    (lights / "huge.fits").write_bytes(
        good.replace(b"NAXIS1  =                  400", b"NAXIS1  =              4000000")
    )
    (lights / "negative.fits").write_bytes(
        good.replace(b"NAXIS1  =                  400", b"NAXIS1  =                 -400")
    )
    (lights / "endless.fits").write_bytes(
        (b"SIMPLE  =                    T".ljust(80) + b"COMMENT x".ljust(80) * 100_000).ljust(2880 * 2800)
    )
    (lights / "bomb.fits.gz").write_bytes(
        gzip.compress(b"SIMPLE  =                    T".ljust(80) + b"\0" * 20_000_000)
    )
    write(lights / "black.fits", np.zeros(shape, np.uint16))
    write(lights / "white.fits", np.full(shape, 65535, np.uint16))
    write(lights / "constant.fits", np.full(shape, 1234, np.uint16))
    write(lights / "nan.fits", np.full(shape, np.nan, np.float32))
    write(lights / "cube.fits", np.zeros((7, 320, 400), np.uint16))
    write(lights / "small.fits", rng.normal(900, 30, (100, 120)).astype(np.uint16))
    write(lights / "noise.fits", rng.normal(900, 30, shape).astype(np.uint16))
    write(lights / "stacked.fits", rng.normal(900, 30, shape).astype(np.float32), STACKCNT=20)
    other = simulate(tmp_path_factory.mktemp("other") / "n", n=1, shape=shape, seed=77, n_darks=0, n_flats=0, n_bias=0)
    shutil.copy(next((other / "lights").glob("*.fits")), lights / "other_field.fits")
    out = tmp_path_factory.mktemp("rubbish") / "out"
    summary = run(folder, out)
    return summary, {Path(path).name: reason for path, reason in summary.aside}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("truncated.fits", "cut short"),
        ("empty.fits", "empty"),
        ("text.fits", "no FITS"),
        ("copy.fits", "same picture"),
        ("huge.fits", "cut short"),
        ("negative.fits", "size"),
        ("endless.fits", "no end"),
        ("bomb.fits.gz", "no end"),
        ("black.fits", "black"),
        ("white.fits", "white"),
        ("constant.fits", "1234"),
        ("nan.fits", "NaN"),
        ("cube.fits", "cube"),
        ("stacked.fits", "stacking"),
        ("noise.fits", "stars"),
        ("other_field.fits", "other field"),
    ],
)
def test_a_bad_light_is_set_aside_with_its_reason(rubbish, name, word):
    _, aside = rubbish
    assert word in aside[name]


def test_the_good_lights_are_stacked_all_the_same(rubbish):
    summary, _ = rubbish
    good = next(g for g in summary.groups if g.n_used)
    assert good.n_used == 8
    assert good.master.exists()


def test_nothing_disappears(rubbish):
    summary, aside = rubbish
    assert summary.n_lights == summary.n_used + summary.n_aside
    assert summary.n_failed == 0
    assert all(aside.values())


def test_eight_bit_frames_without_noise(tmp_path):
    rng = np.random.default_rng(3)
    scene = np.full((256, 320), 11.0)
    for x, y in rng.uniform(20, 230, (40, 2)):
        yy, xx = np.mgrid[:256, :320]
        scene += 180 * np.exp(-((yy - y) ** 2 + (xx - x * 1.25) ** 2) / 5)
    lights = tmp_path / "night" / "lights"
    lights.mkdir(parents=True)
    for k in range(4):
        write(
            lights / f"l{k}.fits",
            np.clip(np.roll(scene, k, axis=1), 0, 255).astype(np.uint8),
            **{"DATE-OBS": f"2026-01-01T00:0{k}:00"},
        )
    summary = run(tmp_path / "night", tmp_path / "out")
    assert summary.exit_code == 0
    assert summary.n_used == 4


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_every_type_of_pixel(night, tmp_path, dtype):
    lights = tmp_path / "night" / "lights"
    lights.mkdir(parents=True)
    for path in sorted((night / "lights").glob("*.fits"))[:3]:
        with fits.open(path) as opened:
            data = opened[0].data.astype(np.float64)
            cards = {"DATE-OBS": opened[0].header["DATE-OBS"]}
        data = np.clip(data / 16, 0, 255) if dtype == np.uint8 else np.clip(data, 0, 32767)
        write(lights / path.name, data.astype(dtype), **cards)
    summary = run(tmp_path / "night", tmp_path / "out")
    assert summary.n_used == 3


def test_out_that_holds_something_else_is_refused(night, tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(StoreError, match="something else"):
        run(night, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["diary.txt"]


def test_out_inside_the_night_is_not_stacked_again(night, tmp_path):
    folder = tmp_path / "night"
    shutil.copytree(night, folder)
    assert run(folder, folder / "out").n_used == 8
    assert run(folder, folder / "out").did_nothing


def test_no_lights_is_one_line_and_exit_1(night, tmp_path):
    (tmp_path / "night").mkdir()
    shutil.copytree(night / "darks", tmp_path / "night" / "darks")
    with pytest.raises(LerarError, match="no lights"):
        run(tmp_path / "night", tmp_path / "out")
    command = [sys.executable, "-m", "lerar_dask", "stack", str(tmp_path / "night"), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no lights" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_frames_of_one_name(night, tmp_path):
    for k, path in enumerate(sorted((night / "lights").glob("*.fits"))[:4]):
        folder = tmp_path / "night" / f"session {k % 2}" / "lights"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"light_{k // 2}.fits")
    assert run(tmp_path / "night", tmp_path / "out").n_used == 4


def test_a_budget_that_cannot_do_is_refused_before_anything_is_read(night, tmp_path):
    with pytest.raises(LerarError, match="MiB"):
        run(night, tmp_path / "out", memory="64MiB")
    assert not list((tmp_path / "out").glob("*.fits"))


def test_every_real_frame_ends_well(shared_data, tmp_path):
    summary = run(shared_data, tmp_path / "out")
    assert summary.n_failed == 0
    assert {g.name for g in summary.groups if g.master} >= {"eso085-030_Clear"}
    assert all(reason for _, reason in summary.aside)


def test_m13_drifts_as_its_correlation_says(shared_data, tmp_path):
    """Five blue subs with hardly a star: the shifts that cross-correlation finds are 0, 12, 25, 34, 46 px in x."""
    from lerar_dask.run import Run

    summary = run(shared_data / "m13_blue", tmp_path / "out")
    assert summary.n_used == 5
    rows = sorted(Run.open(tmp_path / "out").frames, key=lambda row: row["path"])
    shifts = np.array([row["shift_x_px"] for row in rows])
    assert np.abs(np.abs(shifts - shifts[0]) - [0, 12, 25, 34, 46]).max() < 2.0


def test_panoptes_color_pair(shared_data, tmp_path):
    summary = run(shared_data / "panoptes_kic8462852", tmp_path / "out")
    (master,) = [g.master for g in summary.groups if g.n_used == 2]
    with fits.open(master) as opened:
        assert opened[0].data.shape[0] == 3
        assert "CD1_1" in opened[0].header


@pytest.fixture(scope="module")
def unfit(night, tmp_path_factory):
    """A night with one dark whose file is damaged behind its header and one flat without light."""
    folder = tmp_path_factory.mktemp("spoiled") / "night"
    shutil.copytree(night, folder)
    darks, flats = (sorted((folder / kind).glob("*.fits")) for kind in ("darks", "flats"))
    packed = gzip.compress(darks[0].read_bytes())
    darks[0].with_suffix(".fits.gz").write_bytes(packed[: len(packed) // 2])
    darks[0].unlink()
    shutil.copy(next((folder / "bias").glob("*.fits")), flats[2])
    with fits.open(flats[2], mode="update") as opened:
        opened[0].header.update(fits.getheader(flats[0]))
        opened[0].data = opened[0].data - np.uint16(5)
    return folder


def test_a_bad_calibration_frame_is_set_aside_and_its_master_made_of_the_others(unfit, tmp_path):
    summary = run(unfit, tmp_path / "out")
    assert summary.exit_code == 0
    assert summary.n_used == 8
    aside = {Path(path).name: reason for path, reason in summary.aside}
    assert set(aside) == {"darks_0000.fits.gz", "flats_0002.fits"}
    assert "cannot be unpacked" in aside["darks_0000.fits.gz"]
    assert "no brighter" in aside["flats_0002.fits"]
    (dark,) = (tmp_path / "out" / "calibration").glob("dark*.fits")
    assert fits.getheader(dark)["NCOMBINE"] == 4
    graph = dict(lerar_dask.open(tmp_path / "out").graph("Sim_L").__dask_graph__())
    assert len(toposort(graph)) == len(graph)  # raises where tasks wait for each other
    assert run(unfit, tmp_path / "out").did_nothing


def test_when_all_flats_are_bad_the_lights_go_on_without(night, tmp_path):
    folder = tmp_path / "night"
    shutil.copytree(night, folder)
    for path in (folder / "flats").glob("*.fits"):
        with fits.open(path, mode="update") as opened:
            opened[0].data[:] = 0
    summary = run(folder, tmp_path / "out")
    assert summary.n_used > 0
    assert summary.exit_code == 0
    assert {reason for path, reason in summary.aside if "/flats/" in path} == {
        "the flat is no brighter than its pedestal: it cannot be used"
    }
    assert any("no flat fits" in note for note in summary.notes)
    assert run(folder, tmp_path / "out").did_nothing


def test_called_again_with_bad_lights_in_the_night_it_does_nothing(night, tmp_path):
    folder = tmp_path / "night"
    shutil.copytree(night, folder)
    write(folder / "lights" / "black.fits", np.zeros((320, 400), np.uint16))
    assert "black" in run(folder, tmp_path / "out").aside[0][1]
    assert run(folder, tmp_path / "out").did_nothing


def test_what_was_not_measured_is_not_zero(night, tmp_path):
    folder = tmp_path / "night"
    shutil.copytree(night / "lights", folder / "lights")
    sky = np.random.default_rng(2).integers(900, 906, (320, 400), np.uint16)  # no star, nor a peak that looks like one
    write(folder / "lights" / "starless.fits", sky)
    run(folder, tmp_path / "out")
    rows = {Path(row["path"]).name: row for row in lerar_dask.open(tmp_path / "out").frames}
    assert rows["starless.fits"]["n_stars"] == 0
    assert rows["starless.fits"].get("fwhm_px") is None
    assert rows["starless.fits"].get("eccentricity") is None
    assert rows["Sim_L_0000.fits"]["fwhm_px"] > 1


def test_a_master_whose_group_has_another_name_now_is_told(night, tmp_path):
    folder = tmp_path / "night"
    shutil.copytree(night, folder)
    assert not [note for note in run(folder, tmp_path / "out").notes if "earlier" in note]
    with fits.open(folder / "lights" / "Sim_L_0000.fits") as opened:
        header = opened[0].header
        for word in ("DATE-BEG", "DATE-OBS"):  # an exposure of its own
            if word in header:
                header[word] = "2031" + header[word][4:]
        fits.writeto(folder / "lights" / "cut.fits", opened[0].data[:300, :360], header)
    for _ in range(2):
        (note,) = [note for note in run(folder, tmp_path / "out").notes if "earlier" in note]
        assert note.startswith("Sim_L.fits ")


def test_a_master_that_fails_for_reasons_of_its_own_is_told_as_such(night, tmp_path, monkeypatch):
    """No frame is to blame, and no disk: the flats that need it, and their lights, go aside with what happened."""
    combine = masters.combine_band

    def starve(**arguments):
        if "bias" in arguments["frames"][0].path.name:
            raise MemoryError("no room for the bias")
        return combine(**arguments)

    monkeypatch.setattr(masters, "combine_band", starve)
    summary = run(night, tmp_path / "out")
    reasons = {reason for _, reason in summary.aside}
    assert summary.n_used == 0
    assert len(reasons) == 1
    assert re.search(r"its flat.* could not be made: its bias.* could not be made: .*no room for the bias", *reasons)
