"""A night normalized to an image of one's own: its background, its scale, and what cannot be used."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.errors import LerarError, UsageError
from lerar_dask.kernels.register import transform as tf
from lerar_dask.pipeline import stack
from lerar_dask.run import Run
from lerar_dask.runtime.events import Bus, Note
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate

SHAPE = (320, 400)
SCALE, LEVEL, FWHM = 2.5, 3000.0, 3.2
"""Of the image, in units of the truth; ADU; px."""


def run(night, out, *, events=None, **settings):
    bus = Bus()
    if events is not None:
        bus.subscribe(events.append)
    return stack([Path(night)], Path(out), Settings.of(**settings), bus=bus)


def placed(turn_deg: float, shift: tuple[float, float]) -> np.ndarray:
    """Truth's plane to image."""
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    middle = np.array([(SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2])
    reference_to_sub = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    reference_to_sub[:2, 2] = middle - reference_to_sub[:2, :2] @ middle + shift
    return reference_to_sub


def sky_of(x, y):
    """Background of the image in its own pixels: steep and curved as in none of the subs."""
    u, v = (x - 200) / 256, (y - 160) / 256
    return LEVEL * (1 + 0.15 * u - 0.1 * v + 0.05 * u * v - 0.06 * v * v)


def image_of(truth, reference_to_sub, noise=8.0) -> np.ndarray:
    """The truth's scene as another telescope saw it."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    places = tf.apply(tf.invert(reference_to_sub), np.column_stack([x.ravel(), y.ravel()]))
    light = truth.scene(places[:, 1], places[:, 0]).reshape(SHAPE)
    alpha = FWHM / (2 * np.sqrt(2 ** (1 / 3.0) - 1))
    for (px, py), flux in zip(
        tf.apply(reference_to_sub, truth.arrays["stars"][:, :2]), truth.arrays["stars"][:, 2], strict=True
    ):
        rows, columns = (slice(max(0, int(p) - 60), max(0, int(p) + 60)) for p in (py, px))
        r2 = (x[rows, columns] - px) ** 2 + (y[rows, columns] - py) ** 2
        light[rows, columns] += flux * 2 / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -3
    image = SCALE * light + sky_of(x, y) + noise * np.random.default_rng(8).standard_normal(SHAPE)
    return image.astype(np.float32)


def to_truth(out, truth) -> np.ndarray:
    """Master's pixel to truth's plane."""
    run_ = Run.open(out)
    (target,) = run_.state.targets.values()
    transforms = run_.store.read_array(f"registration/{target.registration}/transforms")
    home = next(k for k, t in enumerate(transforms) if np.allclose(t, np.eye(3)))
    number = int(Path(target.subs[home].path).stem.split("_")[-1])
    y0, x0 = target.canvas.origin_yx
    return tf.invert(truth.subs[number].transform) @ np.array([[1, 0, x0], [0, 1, y0], [0, 0, 1.0]])


def master_of(out) -> np.ndarray:
    (path,) = Path(out).glob("*.fits")
    return np.squeeze(fits.getdata(path)).astype(float)


def background_error(out, truth, reference_to_sub) -> tuple[np.ndarray, np.ndarray]:
    """Master less nebula and less the image's background, medians of 32 px beside stars; whether the image covers it."""
    master, back = master_of(out), to_truth(out, truth)
    y, x = np.mgrid[: master.shape[0], : master.shape[1]].astype(float)
    at = tf.apply(back, np.column_stack([x.ravel(), y.ravel()]))
    inside = tf.apply(reference_to_sub, at)
    rest = master - SCALE * truth.scene(at[:, 1], at[:, 0]).reshape(master.shape)
    rest -= sky_of(inside[:, 0], inside[:, 1]).reshape(master.shape)
    stars = truth.arrays["stars"]
    for (px, py), flux in zip(tf.apply(tf.invert(back), stars[:, :2]), stars[:, 2], strict=True):
        rest[(x - px) ** 2 + (y - py) ** 2 < (3 + (flux / 20) ** 0.33) ** 2] = np.nan
    covered = ((inside > 0) & (inside < SHAPE[::-1])).all(axis=1).reshape(master.shape)
    height, width = (n // 32 * 32 for n in master.shape)
    blocks = [a[:height, :width].reshape(height // 32, 32, width // 32, 32) for a in (rest, covered)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = np.nanmedian(blocks[0], axis=(1, 3))
    seen = np.isfinite(error)
    return error[seen], (blocks[1].mean(axis=(1, 3)) > 0.99)[seen]


def fluxes(image, places) -> np.ndarray:
    """Light within 10 px of each place over its surroundings; NaN at the rim."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    out = np.full(len(places), np.nan)
    for i, (px, py) in enumerate(places):
        r = np.hypot(x - px, y - py)
        star, around = r < 10, (r > 12) & (r < 18)
        if 20 < px < image.shape[1] - 20 and 20 < py < image.shape[0] - 20:
            out[i] = image[star].sum() - np.median(image[around]) * star.sum()
    return out


@pytest.fixture(scope="module")
def image(truth, tmp_path_factory) -> Path:
    """An image of the night's field, turned and shifted."""
    path = tmp_path_factory.mktemp("image") / "of my own.fits"
    fits.writeto(path, image_of(truth, placed(6.0, (12.0, -8.0))))
    return path


@pytest.fixture(scope="module")
def adopted(night, image, tmp_path_factory):
    """OUT of the night, normalized to the image, and what was said."""
    out, events = tmp_path_factory.mktemp("adopted") / "out", []
    assert run(night, out, events=events, ln_reference=image).exit_code == 0
    return out, [e.text for e in events if isinstance(e, Note)]


def test_the_master_has_the_background_of_the_image(adopted, truth):
    out, _ = adopted
    error, covered = background_error(out, truth, placed(6.0, (12.0, -8.0)))
    assert covered.sum() > 60
    gradient = np.std([sky_of(x, y) for x in (50, 350) for y in (50, 270)])
    assert error[covered].std() < 0.015 * gradient
    assert abs(error[covered].mean()) < 0.001 * LEVEL
    assert error[~covered].std() < 0.05 * gradient


def test_its_stars_have_the_fluxes_of_the_image(adopted, image, truth):
    out, _ = adopted
    stars = truth.arrays["stars"]
    bright = stars[(stars[:, 2] > 1e4) & (stars[:, 2] < 3e5), :2]
    here = fluxes(master_of(out), tf.apply(tf.invert(to_truth(out, truth)), bright))
    there = fluxes(fits.getdata(image).astype(float), tf.apply(placed(6.0, (12.0, -8.0)), bright))
    both = np.isfinite(here) & np.isfinite(there)
    assert both.sum() >= 8
    assert here[both].sum() / there[both].sum() == pytest.approx(1.0, abs=0.01)


def test_header_and_log_tell_of_it(adopted, image):
    out, notes = adopted
    (path,) = Path(out).glob("*.fits")
    header = fits.getheader(path)
    assert header["SKYLEVEL"] == pytest.approx(LEVEL, rel=0.03)
    assert image.name in " ".join(str(header["HISTORY"]).split())
    assert any(image.name in note and "% of the field" in note for note in notes)


def test_done_is_done_until_the_image_changes(night, image, truth, tmp_path):
    given = tmp_path / "image.fits"
    given.write_bytes(image.read_bytes())
    run(night, tmp_path / "out", ln_reference=given)
    assert run(night, tmp_path / "out", ln_reference=given).did_nothing
    before = np.nanmedian(master_of(tmp_path / "out"))
    fits.writeto(given, 2 * fits.getdata(given), overwrite=True)
    assert not run(night, tmp_path / "out", ln_reference=given).did_nothing
    assert np.nanmedian(master_of(tmp_path / "out")) == pytest.approx(2 * before, rel=0.01)


def test_partial_cover_is_continued(night, truth, tmp_path):
    reference_to_sub = placed(0.0, (150.0, 0.0))
    fits.writeto(tmp_path / "image.fits", image_of(truth, reference_to_sub))
    events: list = []
    run(night, tmp_path / "out", events=events, ln_reference=tmp_path / "image.fits")
    error, covered = background_error(tmp_path / "out", truth, reference_to_sub)
    gradient = np.std([sky_of(x, y) for x in (50, 350) for y in (50, 270)])
    assert error[covered].std() < 0.015 * gradient
    assert error[~covered].std() < 0.1 * gradient
    assert any("continued smoothly" in e.text for e in events if isinstance(e, Note))


def test_an_earlier_master_gives_itself_again(night, stacked, tmp_path):
    (path,) = stacked.glob("*.fits")
    run(night, tmp_path / "out", ln_reference=path)
    first, again = master_of(stacked), master_of(tmp_path / "out")
    assert abs(np.nanmedian(again - first)) < 0.002 * np.nanmedian(first)
    assert np.nanstd((again - first)[40:-40, 40:-40]) < 2.0


def test_a_sub_of_the_night_is_taken_as_calibrated(night, truth, tmp_path):
    path = sorted((night / "lights").glob("*.fits"))[2]
    run(night, tmp_path / "out", ln_reference=path)
    run_ = Run.open(tmp_path / "out")
    (group,) = run_.state.groups.values()
    k = [Path(s.path).name for s in run_.state.targets[group.target].subs].index(path.name)
    scale = run_.normalization(next(iter(run_.state.groups))).scale[:, 0]
    assert scale[group.subs.index(k)] == pytest.approx(1.0, abs=0.003)
    error = master_of(tmp_path / "out")
    assert np.nanmedian(error) == pytest.approx(truth.subs[2].sky[0], rel=0.1)


def test_a_color_master_gives_itself_again(tmp_path):
    night = simulate(tmp_path / "night", n=6, shape=SHAPE, seed=4, cfa="RGGB", n_darks=5, n_flats=5, n_bias=0)
    run(night, tmp_path / "first")
    (path,) = (tmp_path / "first").glob("*.fits")
    run(night, tmp_path / "out", ln_reference=path)
    first, again = master_of(tmp_path / "first"), master_of(tmp_path / "out")
    inner = (again - first)[:, 40:-40, 40:-40]
    assert np.abs(np.nanmedian(inner, axis=(1, 2))).max() < 1.5
    light = (first - np.nanmedian(first, axis=(1, 2), keepdims=True))[:, 40:-40, 40:-40]
    bright = light > 300
    assert np.nanstd(inner[~bright]) < 1.5
    # The scale of a sub of so few stars is known to 1.5 %, against the truth as well.
    assert abs(np.nansum(inner[bright]) / np.nansum(light[bright])) < 0.02


def test_what_cannot_be_used(night, stacked, image, tmp_path):
    (tmp_path / "text.fits").write_text("no picture " * 1000)
    for path in (tmp_path / "missing.fits", tmp_path / "text.fits"):
        with pytest.raises(UsageError, match="--ln-reference"):
            run(night, tmp_path / "out", ln_reference=path)
    fits.writeto(tmp_path / "planes.fits", np.ones((4, *SHAPE), np.float32), fits.Header({"STACKCNT": 9}))
    with pytest.raises(UsageError, match="plane"):
        run(night, tmp_path / "out", ln_reference=tmp_path / "planes.fits")
    with pytest.raises(UsageError, match="linear-fit"):
        run(night, tmp_path / "out", ln_reference=image, normalization="linear-fit")
    own = tmp_path / "out" / "own.fits"
    own.write_bytes(image.read_bytes())
    with pytest.raises(UsageError, match="write over"):
        run(night, tmp_path / "out", ln_reference=own)


def test_a_missing_image_is_said_at_once(night, tmp_path):
    command = [sys.executable, "-m", "lerar_dask", "stack", str(night), "-o", str(tmp_path / "out")]
    done = subprocess.run([*command, "--ln-reference", "nowhere.fits"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert not (tmp_path / "out").exists()


def test_another_field_is_one_line_and_exit_1(night, tmp_path):
    other = simulate(tmp_path / "other", n=1, shape=SHAPE, seed=77, n_darks=0, n_flats=0, n_bias=0)
    path = next((other / "lights").glob("*.fits"))
    with pytest.raises(LerarError, match="match those of no sub"):
        run(night, tmp_path / "out", ln_reference=path)
    command = [sys.executable, "-m", "lerar_dask", "stack", str(night), "-o", str(tmp_path / "out"), "--quiet"]
    done = subprocess.run([*command, "--ln-reference", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "match those of no sub" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
