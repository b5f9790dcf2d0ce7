"""From masters to a picture: colors against the truth, the order of the steps, again and again, other palettes."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image, ImageCms
from scipy.spatial import cKDTree

from lerar_dask.cli.app import run as command
from lerar_dask.errors import LerarError, UsageError
from lerar_dask.kernels.picture.psf import Psf, psf_image
from lerar_dask.kernels.picture.star_colors import measure_colors
from lerar_dask.pipeline.picture import make_pictures
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.settings_toml import from_toml
from lerar_dask.simulate import Truth, simulate_colors
from lerar_dask.stages.picture.recipe import Channel, make_recipe
from lerar_dask.store.access import Store
from tests.conftest import run

SHAPE = (520, 640)


@pytest.fixture(scope="module")
def night(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("colors") / "night"
    return simulate_colors(folder, n=7, shape=SHAPE, seed=6, n_darks=5, n_flats=5)


@pytest.fixture(scope="module")
def out(night, tmp_path_factory) -> Path:
    """A run of four filters, and its picture."""
    folder = tmp_path_factory.mktemp("picture") / "out"
    assert run(night, folder).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def made(out):
    return picture(out)


def picture(out, **settings):
    return make_pictures(out, Settings.of(**settings), bus=Bus())


def read(path) -> tuple[np.ndarray, fits.Header]:
    with fits.open(path) as file:
        return np.array(file[0].data), file[0].header


def test_colors_of_stars_are_true(night, out, made):
    """Colors of stars in the linear picture against what was put in, up to the white."""
    work = made.pictures[0]
    rgb, header = read(work.files["linear"])
    assert header["LERSTATE"] == "linear"
    found = measure_colors(rgb, work.fwhm_px, inside=(30, rgb.shape[1] - 30, 30, rgb.shape[2] - 30))
    truth = np.load(night / "colors.npz")
    oy, ox = work.canvas.origin_yx
    stars, bands = truth["stars"], truth["bands"]
    # The grid is a sub's own plane: shifts and flips of it are found by the brightest stars themselves.
    place = matched(found[:, :2] + [ox, oy], stars[:, :2], SHAPE)
    distance, index = cKDTree(place(stars[:, :2])).query(found[:, :2] + [ox, oy])
    good = distance < 1.0
    assert good.sum() > 25
    colors = np.log(found[good][:, [2, 4]] / found[good][:, [3]])
    wanted = np.log(bands[index[good]][:, [0, 2]])
    wanted -= np.median(wanted - colors, axis=0)
    assert np.median(np.abs(colors - wanted)) < 0.02
    # The usual star is white.
    assert np.abs(np.median(colors, axis=0)).max() < 0.06


def matched(found, stars, shape):
    """Map from the truth's plane to the grid's: as it is, or turned by 180 degrees, and the shift that most stars have."""
    best = (0, lambda p: p)
    for turned in (False, True):
        flip = (lambda p: np.array([shape[1] - 1, shape[0] - 1]) - p) if turned else (lambda p: p)
        own = flip(stars)[:150]
        steps = (found[:60, None] - own[None]).reshape(-1, 2)
        steps = steps[np.abs(steps).max(axis=1) < 60]
        tree = cKDTree(steps)
        counts = [len(n) for n in tree.query_ball_point(steps, 0.7)]
        k = int(np.argmax(counts))
        shift = np.median(steps[tree.query_ball_point(steps[k], 0.7)], axis=0)
        if counts[k] > best[0]:
            best = (counts[k], lambda p, flip=flip, shift=shift: flip(p) + shift)
    return best[1]


def test_no_fog_and_one_sky(made):
    facts = made.pictures[0].facts
    assert facts["before"]["fog_sky"] > 2  # the cast of sky and sensor
    assert abs(facts["after"]["fog_sky"]) < 1
    sky, noise = np.array(facts["after"]["sky"][:3]), np.array(facts["after"]["noise"][:3])
    assert np.abs(sky - sky.mean()).max() < 0.2 * noise.mean()


def test_the_picture_is_stretched_last(out, made):
    files = made.pictures[0].files
    rgb, header = read(files["finished"])
    assert header["LERSTATE"] == "stretched"
    text = "\n".join(header["HISTORY"])
    order = [
        text.index(word) for word in ("ChannelCombination", "BackgroundNeutralization", "White", "Histogram", "LRGB")
    ]
    assert order == sorted(order)
    assert "Histogram" not in "\n".join(read(files["linear"])[1]["HISTORY"])
    there = np.isfinite(rgb).all(axis=0)
    assert there.mean() > 0.9
    assert np.nanmin(rgb) >= 0
    assert np.nanmax(rgb) <= 1
    assert 0.12 < np.median(rgb[:, there]) < 0.32
    assert made.pictures[0].facts["clipped_black"] < 0.02


def test_all_files_hold_the_same_picture(made):
    import tifffile

    files = made.pictures[0].files
    wanted = np.moveaxis(np.nan_to_num(read(files["finished"])[0]), 0, -1)
    tiff = tifffile.imread(files["tiff"])
    np.testing.assert_allclose(tiff / 65535, wanted, atol=1e-5)
    np.testing.assert_array_equal(png_of(files["png"]), tiff)
    with Image.open(files["jpeg"]) as jpeg, Image.open(files["png"]) as png:
        assert jpeg.size == png.size == wanted.shape[1::-1]
        assert np.abs(np.asarray(jpeg) / 255 - wanted).mean() < 0.02
        for one in (jpeg, png):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(one.info["icc_profile"]))
            assert "sRGB" in ImageCms.getProfileDescription(profile)


def png_of(path) -> np.ndarray:
    """A PNG of 16 bit color with filters 0 and 2, decoded by the letter of the standard."""
    data, at, packed, size = Path(path).read_bytes(), 8, b"", (0, 0)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
            assert body[8:] == bytes([16, 2, 0, 0, 0])
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(size[1], 1 + 6 * size[0])
    assert (rows[:, 0] == 2).all()
    plain = np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8)
    return plain.view(">u2").reshape(size[1], size[0], 3)


def test_called_again_it_does_nothing(night, out, made):
    assert picture(out).did_nothing
    assert run(night, out).did_nothing
    assert picture(out).did_nothing


def test_the_report_shows_the_steps(out, made):
    page = (out / "report.html").read_text()
    for words in ("Sim: the picture", "channels combined", "white balanced", "luminance", "green fog, sky", "PSF"):
        assert words in page
    assert page.count("data:image/jpeg") > 5


def test_the_settings_are_kept(out, made, night, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    picture(copy, saturation=0.3)
    assert from_toml(copy / "lerar.toml").picture.saturation == 0.3
    run(night, copy, sigma_low=4.0)
    kept = from_toml(copy / "lerar.toml")
    assert (kept.picture.saturation, kept.integrate.sigma_low) == (0.3, 4.0)


def test_deconvolved_stars_are_narrower_and_as_bright(night, made, out, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    work = picture(copy, deconvolution="richardson-lucy").pictures[0]
    text = "\n".join(read(work.files["finished"])[1]["HISTORY"])
    assert text.index("White") < text.index("Deconvolution") < text.index("Histogram")
    assert "Deconvolution" not in str(read(work.files["linear"])[1]["HISTORY"])
    store, key = Store.open(copy / "store.zarr"), work.sharp
    sharp = store.open_array(f"picture/{key}/image")[0]
    light = store.open_array(f"picture/{work.linear}/image")[3]
    seeing = np.mean([sub.fwhm_px for sub in Truth.load(night / "L").subs])
    assert abs(work.psf_fwhm_px / seeing - 1) < 0.05
    found = measure_colors(
        np.stack([light, sharp]), work.fwhm_px, inside=(30, light.shape[0] - 30, 30, light.shape[1] - 30)
    )
    plain = found[(found[:, 4] < 0.5 * found[:, 4].max()) & (found[:, 2] > np.median(found[:, 2]))]
    assert len(plain) > 10
    # The aperture lacks what lies beyond it of the blurred stars (Moffat, beta 3), and its ring has some of it.
    width = work.psf_fwhm_px
    blurred = psf_image(Psf(fwhm_x_px=width, fwhm_y_px=width, theta=0.0, beta=3.0), radius := int(12 * width))
    away = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) / work.fwhm_px
    sky = np.median(blurred[(away >= 3.5) & (away <= 5.0)])
    caught = (blurred[away <= 3.0] - sky).sum()
    assert 0.98 < caught < 0.995
    assert abs(np.median(plain[:, 3] / plain[:, 2]) * caught - 1) < 0.01
    assert np.median(plain[:, 5] / plain[:, 4]) > 1.5
    shutil.rmtree(copy / "store.zarr" / "picture")
    again = picture(copy, deconvolution="richardson-lucy", scheduler="processes", threads=2).pictures[0]
    np.testing.assert_array_equal(Store.open(copy / "store.zarr").open_array(f"picture/{again.sharp}/image")[0], sharp)


def test_a_changed_stretch_does_the_stretch_alone(out, made, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    before = read(copy / "Sim_RGB.fits")[0]
    events = []
    bus = Bus()
    bus.subscribe(lambda e: events.append(getattr(e, "step", "")))
    make_pictures(copy, Settings.of(sky_shade=0.3), bus=bus)
    steps = {e for e in events if e}
    assert "picture: finish" in steps
    assert not steps & {"picture: measure", "picture: linear"}
    np.testing.assert_array_equal(read(copy / "Sim_RGB.fits")[0], before)
    brighter = read(copy / "Sim_LRGB.fits")[0]
    assert np.nanmedian(brighter) > 0.25


def test_the_same_bits_on_processes(out, made, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    shutil.rmtree(copy / "store.zarr" / "picture")
    for path in made.pictures[0].files.values():
        (copy / path.name).unlink()
    again = picture(copy, scheduler="processes", threads=2)
    assert not again.did_nothing
    for path in made.pictures[0].files.values():
        assert (copy / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"stretch": "arcsinh"},
        {"stretch": "hyperbolic"},
        {"stretch": "manual", "shadows": -0.001, "midtones": 0.02},
        {"lrgb": "linear", "chroma_layers": 0},
        {"luminance": "none", "white": "g2v", "green_removal": "maximum"},
        {"palette": "gray"},
        {"red": "R", "green": "0.5*G + 0.5*B", "blue": "B - 0.1*R", "degree": 1},
        {"white_factors": "1.4,1,2", "background_region": "100,100,400,300"},
    ],
)
def test_other_ways(out, made, tmp_path, settings):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    work = picture(copy, **settings).pictures[0]
    assert work.problem == ""
    rgb, _ = read(work.files["finished"])
    assert np.isfinite(rgb).mean() > 0.9
    assert 0.02 < np.nanmedian(rgb) < 0.5
    assert np.nanstd(rgb) > 0.01


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"red": "Ha"}, "no master is of Ha"),
        ({"red": "R +"}, "no mix"),
        ({"palette": "sho"}, "needs"),
        ({"background_region": "1,2"}, "no rectangle"),
        ({"background_region": "-90,-90,-80,-80"}, "no tile"),
        ({"white_factors": "1,2"}, "3 factors"),
    ],
)
def test_rubbish_is_said(out, made, settings, words):
    with pytest.raises(UsageError, match=words):
        picture(out, **settings)


def test_gaps_of_one_color_are_blank_or_gray(out, made, tmp_path):
    """A strip that only two filters cover: no picture there, or one without its missing color."""
    folder = tmp_path / "masters"
    folder.mkdir()
    files = {}
    for role in "RGB":
        files[role] = folder / f"{role}.fits"
        pixels = np.array(fits.getdata(out / f"Sim_{role}.fits"), np.float32)
        if role == "B":
            pixels[:, :120] = np.nan
        fits.writeto(files[role], pixels)
    shares = {}
    for uncovered in ("blank", "gray"):
        settings = Settings.of(uncovered=uncovered)
        work = make_pictures(tmp_path / uncovered, settings, bus=Bus(), files=files).pictures[0]
        strip = read(work.files["finished"])[0][:, 100:400, 20:100]
        shares[uncovered] = float(np.isfinite(strip).mean())
        if uncovered == "gray":
            rest = read(work.files["finished"])[0][:, 100:400, 150:400]
            level = np.nanmedian(rest, axis=(1, 2))
            np.testing.assert_allclose(np.nanmedian(strip, axis=(1, 2)), level, atol=0.06)
    assert shares["blank"] == 0
    assert shares["gray"] > 0.95


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_master_that_lost_a_part_is_no_picture_with_a_hole(night, out, made, tmp_path, how):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    shutil.rmtree(copy / "store.zarr" / "picture")
    part = sorted((copy / "store.zarr" / "master").glob("*/image/c/0/0/0/0"))[0]
    if how == "gone":
        part.unlink()
    else:
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(bytes(content))
    with pytest.raises(LerarError) as caught:
        picture(copy)
    assert "lerar stack makes" in str(caught.value)
    assert run(night, copy).exit_code == 0
    again = picture(copy).pictures[0]
    np.testing.assert_array_equal(read(again.files["finished"])[0], read(made.pictures[0].files["finished"])[0])


def test_without_a_run(tmp_path):
    with pytest.raises(LerarError):
        picture(tmp_path)


def test_masters_of_another_program(out, made, tmp_path):
    """Turned by 180 degrees, cut, in other units: they are brought to one grid, and colors come out the same."""
    folder = tmp_path / "masters"
    folder.mkdir()
    files = {}
    for role, change in {
        "L": lambda d: d,
        "R": lambda d: d[::-1, ::-1],
        "G": lambda d: d / 65535,
        "B": lambda d: d[9:-14, 5:-11],
    }.items():
        files[role] = folder / f"my {role}.fits"
        pixels = np.ascontiguousarray(change(fits.getdata(out / f"Sim_{role}.fits")), np.float32)
        fits.writeto(files[role], pixels, fits.Header({"OBJECT": "NGC 1/2"}))
    new = tmp_path / "new"
    summary = make_pictures(new, Settings(), bus=Bus(), files=files)
    work = summary.pictures[0]
    assert work.problem == ""
    rgb, header = read(work.files["linear"])
    assert header["OBJECT"] == "NGC 1/2"
    assert work.files["png"].name == "NGC 1_2_LRGB.png"
    own = read(made.pictures[0].files["linear"])[0]
    assert rgb.shape == own.shape
    there = np.isfinite(rgb).all(axis=0) & np.isfinite(own).all(axis=0)
    assert there.mean() > 0.85
    bright = there & (rgb[1] != 0) & (own[1] > np.nanquantile(own[1], 0.998))
    for c in (0, 2):  # colors: green was given in other units, white balance undoes that
        ratio = (rgb[c] / rgb[1])[bright] / (own[c] / own[1])[bright]
        assert abs(np.median(ratio) - 1) < 0.06
    assert make_pictures(new, Settings(), bus=Bus(), files=files).did_nothing
    with pytest.raises(UsageError, match="holds a run"):
        make_pictures(out, Settings(), bus=Bus(), files=files)
    with pytest.raises(UsageError, match="no such file"):
        make_pictures(tmp_path / "x", Settings(), bus=Bus(), files={"L": tmp_path / "none.fits"})
    noise = folder / "noise.fits"
    fits.writeto(noise, np.random.default_rng(1).normal(100, 5, (300, 400)).astype(np.float32))
    with pytest.raises(UsageError, match="few stars"):
        make_pictures(tmp_path / "y", Settings(), bus=Bus(), files={**files, "R": noise})


def test_what_no_picture_needs_is_removed(out, made, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    store = Store.open(copy / "store.zarr")
    before = set(store.names("picture"))
    work = picture(copy, sky_shade=0.3).pictures[0]
    after = set(store.names("picture"))
    assert len(after) == len(before)
    assert work.linear in before & after
    assert work.finished in after - before


def test_numbers_for_programs(out, made, capsys):
    assert command(["picture", str(out), "--json"]) == 0
    line = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    (told,) = line["result"]["pictures"]
    assert told["target"] == "Sim"
    assert abs(told["facts"]["after"]["fog_sky"]) < 1
    assert Path(told["files"]["png"]).exists()


def test_palettes_are_chosen_by_what_there_is():
    def known(*roles):
        return {r: Channel(master=r, channel=0, n_channels=1, group=f"M_{r}") for r in roles}

    assert make_recipe(known("L", "R", "G", "B")).luminance is not None
    assert make_recipe(known("R", "G", "B", "Ha")).palette == "rgb"
    assert make_recipe(known("Ha", "OIII", "SII")).palette == "sho"
    assert [m.text for m in make_recipe(known("Ha", "OIII")).colors] == ["M_Ha", "M_OIII", "M_OIII"]
    assert make_recipe(known("Ha")).palette == "gray"
    mixed = make_recipe(known("R", "G", "B", "Ha"), formulas=("0.7*R + 0.3*Ha", "", ""))
    assert mixed.colors[0].text == "0.7 M_R + 0.3 M_Ha"
    assert make_recipe(known("Ha", "R"), palette="gray").colors[0].text == "M_Ha"
    with pytest.raises(LerarError, match="B missing"):
        make_recipe(known("R", "G"))
