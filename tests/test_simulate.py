"""Simulated nights: the same seed gives the same bytes, and the frames hold what the truth says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import UsageError
from lerar_dask.frames.reader import read_pixels
from lerar_dask.frames.scan import scan
from lerar_dask.simulate import KINDS, Truth, simulate

SMALL = dict(n=2, shape=(64, 80), n_darks=1, n_flats=1, n_bias=1)
FEW = dict(shape=(160, 200), n_darks=2, n_flats=2, n_bias=2)


def digests(folder) -> dict[str, str]:
    files = (p for p in folder.rglob("*.fit*"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes(tmp_path):
    a, b, c = (simulate(tmp_path / name, seed=seed, **SMALL) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert len(digests(a)) == 5
    assert digests(a) == digests(b)
    assert digests(a) != digests(c)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(tmp_path, kind):
    folder = simulate(tmp_path / kind, kind=kind, cfa="RGGB", **SMALL)
    frames = scan([folder]).frames
    assert not any(f.problem for f in frames)
    assert sorted(f.header.kind for f in frames) == ["bias", "dark", "flat", "light", "light"]
    assert {f.header.cfa for f in frames if f.header.kind == "light"} == {"RGGB"}
    assert all(read_pixels(f).data.shape == (64, 80) for f in frames)
    assert Truth.load(folder).facts["kind"] == kind


@pytest.mark.parametrize("wrong", [dict(kind="rainy"), dict(n=0), dict(shape=(10, 10))])
def test_what_makes_no_night(tmp_path, wrong):
    with pytest.raises(UsageError):
        simulate(tmp_path / "x", **{**SMALL, **wrong})


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="holds something"):
        simulate(tmp_path, **SMALL)


def test_sky_of_the_truth_is_in_the_lights(night, truth):
    lights = [f for f in scan([night]).frames if f.header.kind == "light"]
    ys, xs = np.mgrid[0 : truth.shape[0], 0 : truth.shape[1]].astype(float)
    for k, frame in enumerate(lights[:2]):
        level = np.median(read_pixels(frame).data) - 500.0
        assert level == pytest.approx(np.median(truth.sky(k, ys, xs)), rel=0.25)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(fits.getdata(path), np.float64)


def lights(folder: Path) -> list[Path]:
    return sorted((folder / "lights").glob("*.fits"))


def calibrated(truth: Truth, path: Path) -> np.ndarray:
    """Electrons at the sensor, with the true dark and flat."""
    return (pixels(path) - truth.facts["offset_adu"] - truth.arrays["dark"]) / truth.arrays["flat"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return simulate(
        tmp_path_factory.mktemp("sim") / "plain", n=6, shape=(300, 360), seed=3, n_darks=4, n_flats=4, n_bias=4
    )


def test_threads_change_no_byte(tmp_path, monkeypatch):
    first = digests(simulate(tmp_path / "a", seed=5, **SMALL))
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    assert digests(simulate(tmp_path / "b", seed=5, **SMALL)) == first


def test_frames_open_in_astropy_with_the_cards_that_link_them(plain):
    light, flat = fits.getheader(lights(plain)[0]), fits.getheader(plain / "flats" / "flats_0000.fits")
    assert (light["IMAGETYP"], light["EXPTIME"], light["FILTER"], light["OBJECT"]) == ("LIGHT", 120.0, "L", "Sim")
    assert (light["NAXIS1"], light["NAXIS2"], light["BZERO"]) == (360, 300, 32768)
    assert light["GAIN"] == flat["GAIN"]
    assert light["SET-TEMP"] == flat["SET-TEMP"]
    sides = [fits.getheader(p)["PIERSIDE"] for p in lights(plain)]
    assert sides == ["East"] * 3 + ["West"] * 3
    starts = [fits.getheader(p)["DATE-OBS"] for p in lights(plain)]
    assert starts == sorted(starts)
    assert len(set(starts)) == 6
    for path in plain.rglob("*.fits"):
        with fits.open(path) as opened:
            opened.verify("exception")


def test_bright_stars_lie_where_the_transforms_say(plain):
    truth = Truth.load(plain)
    checked = 0
    for k, path in enumerate(lights(plain)):
        image = calibrated(truth, path) - truth.sky(k, *np.mgrid[:300, :360])
        image[truth.arrays["dark"] > 150] = 0
        transform = truth.subs[k].transform
        for x, y, flux in truth.arrays["stars"][:40]:
            u, v, _ = transform @ (x, y, 1.0)
            if not (8 < u < 351 and 8 < v < 291) or not 3e4 < flux < 3e5:
                continue
            row, column = round(v), round(u)
            stamp = np.clip(image[row - 4 : row + 5, column - 4 : column + 5], 0, None)
            dy, dx = np.mgrid[-4:5, -4:5]
            weight = stamp * np.exp(-(dx**2 + dy**2) / 8)
            assert abs((weight * dx).sum() / weight.sum() + column - u) < 1.0
            assert abs((weight * dy).sum() / weight.sum() + row - v) < 1.0
            checked += 1
    assert checked > 15


def test_sky_and_noise_are_those_of_the_truth(plain):
    truth = Truth.load(plain)
    ys, xs = np.mgrid[:300, :360].astype(float)
    for k, path in enumerate(lights(plain)):
        back = np.linalg.inv(truth.subs[k].transform)
        reference = np.einsum("ij,jyx->iyx", back, np.stack([xs, ys, np.ones_like(xs)]))
        sky = truth.sky(k, ys, xs)
        nebula = truth.transparency(k, ys, xs) * truth.scene(reference[1], reference[0])
        left = calibrated(truth, path) - sky - nebula
        # Stars add light, hence lower quartile and lower half: below them lies noise only.
        light = sky + nebula
        flat, dark = truth.arrays["flat"], truth.arrays["dark"]
        sigma = np.sqrt(light / flat + (dark + truth.facts["read_noise_e"] ** 2) / flat**2)
        steps = (left[:, 1:] - left[:, :-1]) / np.hypot(sigma[:, 1:], sigma[:, :-1])
        assert 1.4826 * np.median(np.abs(steps)) == pytest.approx(1.0, abs=0.06)
        assert np.median(left) / sky.mean() == pytest.approx(0.0, abs=0.03)


def test_gradients_of_the_moon_are_steeper_and_its_sky_rises(tmp_path):
    ys, xs = np.mgrid[:160, :200].astype(float)

    def swing(kind: str) -> tuple[list[float], list[float]]:
        truth = Truth.load(simulate(tmp_path / kind, kind=kind, n=4, seed=2, **FEW))
        skies = [truth.sky(k, ys, xs) for k in range(4)]
        return [float(np.ptp(s) / s.mean()) for s in skies], [float(s.mean()) for s in skies]

    (plain_swing, _), (moon_swing, moon_level) = swing("plain"), swing("moon")
    assert np.mean(moon_swing) > 1.5 * np.mean(plain_swing)
    assert moon_level[-1] / moon_level[0] == pytest.approx(3.0, rel=0.05)


def test_steady_gradient_turns_with_the_horizon(tmp_path):
    """Seen from the scene, five hours turn the gradient by tens of degrees."""
    truth = Truth.load(simulate(tmp_path / "steady", kind="steady", n=5, seed=2, **FEW))
    angles = [np.arctan2(s.sky[2], s.sky[1]) + np.pi * s.flipped for s in truth.subs]
    turned = np.rad2deg(np.angle(np.exp(1j * (np.unwrap(angles)[-1] - angles[0]))))
    assert 20 < abs(turned) < 120
    assert truth.subs[-1].start_s - truth.subs[0].start_s == pytest.approx(5 * 3600)


def test_narrowband_has_few_stars_and_partial_moves_far(tmp_path):
    narrow = Truth.load(simulate(tmp_path / "n", kind="narrowband", n=2, seed=1, **FEW))
    plain = Truth.load(simulate(tmp_path / "p", kind="plain", n=2, seed=1, **FEW))
    assert len(narrow.arrays["stars"]) < 0.05 * len(plain.arrays["stars"])
    partial = Truth.load(simulate(tmp_path / "f", kind="partial", n=8, seed=1, **FEW))
    unflipped = [s.transform for s in partial.subs if not s.flipped]
    moved = [np.hypot(*(t @ (99.5, 79.5, 1.0))[:2] - (99.5, 79.5)) for t in unflipped]
    assert max(moved) > 30


def test_cirrus_varies_over_the_frame_in_half_of_the_subs(tmp_path):
    truth = Truth.load(simulate(tmp_path / "c", kind="cirrus", n=4, seed=1, **FEW))
    ys, xs = np.mgrid[:160, :200].astype(float)
    spread = [np.ptp(truth.transparency(k, ys, xs)) for k in range(4)]
    assert [s > 0.01 for s in spread] == [False, True, False, True]


def test_trails_stand_where_they_are_said_to_be(tmp_path):
    folder = simulate(tmp_path / "t", n=12, seed=4, **FEW)
    truth = Truth.load(folder)
    ys, xs = np.mgrid[:160, :200].astype(float)
    bright = [(k, t) for k, s in enumerate(truth.subs) for t in s.trails if t[3] > 5]
    assert bright
    for k, (x, y, angle, peak) in bright:
        image = calibrated(truth, lights(folder)[k]) - truth.sky(k, ys, xs)
        away = (xs - x) * np.sin(angle) - (ys - y) * np.cos(angle)
        on, beside = np.abs(away) < 0.7, (np.abs(away) > 6) & (np.abs(away) < 9)
        sigma = np.sqrt(truth.subs[k].sky[0] + truth.facts["read_noise_e"] ** 2)
        assert (np.median(image[on]) - np.median(image[beside])) / sigma == pytest.approx(peak, rel=0.2, abs=1.0)


def test_calibration_frames_hold_dark_flat_and_bias(plain):
    truth = Truth.load(plain)
    offset = truth.facts["offset_adu"]
    bias = np.mean([pixels(p) for p in (plain / "bias").glob("*.fits")], axis=0)
    dark = np.mean([pixels(p) for p in (plain / "darks").glob("*.fits")], axis=0) - offset
    flat = np.mean([pixels(p) for p in (plain / "flats").glob("*.fits")], axis=0) - offset
    assert bias.mean() == pytest.approx(offset, abs=0.1)
    hot = truth.arrays["dark"] > 300
    assert hot.any()
    assert dark[hot] == pytest.approx(truth.arrays["dark"][hot], rel=0.2)
    assert np.std(flat / flat.mean() / truth.arrays["flat"] - 1) < 0.006


def test_color_sensor_sees_less_red_and_blue(tmp_path):
    folder = simulate(tmp_path / "c", n=1, seed=1, cfa="GBRG", **FEW)
    image = pixels(lights(folder)[0]) - 500
    green, blue, red, _ = (np.median(image[i // 2 :: 2, i % 2 :: 2]) for i in range(4))
    assert red / green == pytest.approx(0.7, abs=0.05)
    assert blue / green == pytest.approx(0.55, abs=0.05)
    assert fits.getheader(lights(folder)[0])["BAYERPAT"] == "GBRG"
