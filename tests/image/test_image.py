"""Steps by hand: the order is kept, nothing depends on chunks, and files tell what was done."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from astropy.io import fits

from lerar_dask import image as steps
from lerar_dask.cli.app import run
from lerar_dask.errors import UsageError
from lerar_dask.image import Image
from lerar_dask.kernels.picture.balance import band_ratios
from lerar_dask.kernels.picture.color import to_lab

SHAPE = (300, 600)


@pytest.fixture(scope="module")
def linear() -> Image:
    """A field with a cast: sky, stars of many colors, no data in a corner."""
    rng = np.random.default_rng(9)
    sky, cast = np.array([50.0, 80.0, 30.0]), np.array([0.6, 1.0, 0.5])
    light = rng.normal(0, 1, (3, *SHAPE))
    ys, xs = np.mgrid[-12:13, -12:13]
    spot = (1 + (ys**2 + xs**2) / 2.5**2) ** -3.0
    for _ in range(60):
        y, x = rng.integers(20, SHAPE[0] - 20), rng.integers(20, SHAPE[1] - 20)
        color = band_ratios(float(rng.normal(0.7, 0.2)), 0.7)
        light[:, y - 12 : y + 13, x - 12 : x + 13] += rng.uniform(300, 3000) * (color * cast)[:, None, None] * spot
    pixels = (light + sky[:, None, None]).astype(np.float32)
    pixels[:, :30, :40] = np.nan
    return Image(data=da.from_array(pixels, chunks=(3, 100, 170)), cards={"OBJECT": "M 1"})


def test_neutral_and_white(linear):
    neutral = steps.neutralize(linear)
    found = np.nanmedian(neutral.data.compute(), axis=(1, 2))
    np.testing.assert_allclose(found, 0, atol=0.15)
    white = steps.balance(neutral)
    factors = np.nanmax(white.data.compute(), axis=(1, 2)) / np.nanmax(neutral.data.compute(), axis=(1, 2))
    np.testing.assert_allclose(factors / factors[1], [1 / 0.6, 1, 2.0], rtol=0.05)
    assert [line.split(":")[0] for line in white.history] == ["BackgroundNeutralization", "White balance"]


def chain(image):
    white = steps.balance(steps.neutralize(image))
    return steps.reduce_chroma_noise(steps.reduce_green(steps.stretch(white)), layers=3)


def test_chunks_do_not_show(linear):
    one = chain(linear).data.compute()
    pixels = linear.data.compute()
    for chunks in ((1, 300, 600), (3, 37, 91)):
        other = chain(Image(data=da.from_array(pixels, chunks=chunks))).data.compute()
        np.testing.assert_array_equal(one, other)


def test_lazy_until_asked(linear):
    out = chain(linear)
    assert isinstance(out.data, da.Array)
    part = out.data[:, 100:140, 200:260].compute()
    np.testing.assert_array_equal(part, out.data.compute()[:, 100:140, 200:260])


@pytest.mark.parametrize(
    "step",
    [
        steps.neutralize,
        steps.balance,
        steps.stretch,
        lambda i: steps.combine([i, i, i], onto=None),
    ],
)
def test_linear_steps_refuse_what_is_stretched(linear, step):
    stretched = steps.stretch(linear)
    with pytest.raises(UsageError) as caught:
        step(stretched)
    assert "HistogramTransformation" in str(caught.value) or "one channel" in str(caught.value)


@pytest.mark.parametrize("step", [steps.reduce_green, steps.reduce_chroma_noise])
def test_looks_refuse_what_is_linear(linear, step):
    with pytest.raises(UsageError, match="the order is ChannelCombination"):
        step(linear)


def test_states_are_not_mixed(linear):
    gray = Image(data=linear.data[:1])
    with pytest.raises(UsageError, match="linear and stretched"):
        steps.join_luminance(steps.stretch(gray), linear)
    with pytest.raises(UsageError, match="linear and stretched"):
        steps.combine([gray, steps.stretch(gray), gray])
    with pytest.raises(UsageError, match="cannot be combined"):
        steps.combine([gray, gray, Image(data=gray.data[:, :50])])


def test_luminance_joins_linear_and_stretched(linear):
    color = steps.balance(steps.neutralize(linear))
    light = Image(data=color.data.mean(axis=0, keepdims=True) * np.float32(2))
    joined = steps.join_luminance(light, color)
    assert joined.state == "linear"
    both = steps.join_luminance(steps.stretch(light), steps.stretch(color))
    assert both.state == "stretched"
    lab = to_lab(both.data.compute())
    wanted = to_lab(np.repeat(steps.stretch(light).data.compute(), 3, axis=0))[0]
    good = np.isfinite(wanted)
    assert np.abs(lab[0][good] - wanted[good]).mean() < 0.01


@pytest.mark.parametrize("space", ["hsv", "lab", "xyz"])
def test_components_make_the_image_again(space):
    from lerar_dask.kernels.picture.color import SPACES

    rgb = np.random.default_rng(2).random((3, 70, 90)).astype(np.float32)
    parts = [Image(data=da.from_array(c[None])) for c in SPACES[space][0](rgb)]
    np.testing.assert_allclose(steps.combine(parts, space=space).data.compute(), rgb, atol=1e-4)
    onto = Image(data=da.from_array(rgb))
    same = steps.combine([None, parts[1], None], space=space, onto=onto)
    np.testing.assert_allclose(same.data.compute(), rgb, atol=1e-4)


def test_files_keep_state_and_history(linear, tmp_path):
    path = tmp_path / "a.fits"
    steps.save_image(steps.neutralize(linear), path)
    back = steps.open_image(path)
    assert back.state == "linear"
    assert back.cards["OBJECT"] == "M 1"
    assert back.history[0].startswith("BackgroundNeutralization")
    steps.save_image(steps.stretch(back), tmp_path / "b.fits")
    assert steps.open_image(tmp_path / "b.fits").state == "stretched"
    with fits.open(tmp_path / "b.fits", checksum=True) as file:
        file.verify("exception")
    with pytest.raises(UsageError, match="needs a stretched"):
        steps.save_image(back, tmp_path / "c.png")
    with pytest.raises(UsageError, match="no picture is written"):
        steps.save_image(back, tmp_path / "c.gif")
    for name in ("d.png", "d.tif", "d.jpg"):
        steps.save_image(steps.stretch(back), tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_the_place_in_the_sky_is_carried_whole(linear, tmp_path):
    words = {"CTYPE1": "RA---TAN-SIP", "CRPIX1": 10.5, "CD1_1": -1e-4, "A_ORDER": 2, "A_2_0": 1e-7, "AP_ORDER": 2}
    fits.PrimaryHDU(linear.data.compute(), fits.Header({**words, "EQUIPMEN": "x"})).writeto(tmp_path / "a.fits")
    steps.save_image(steps.neutralize(steps.open_image(tmp_path / "a.fits")), tmp_path / "b.fits")
    header = fits.getheader(tmp_path / "b.fits")
    assert {word: header.get(word) for word in words} == words
    assert "EQUIPMEN" not in header


@pytest.mark.parametrize("mode", ["target", "truncate", "rescale", "rescale-as-needed"])
def test_modes_are_those_of_the_kernel(linear, mode):
    from lerar_dask.kernels.picture import sky as skies

    whole = linear.data.compute()
    tiles = skies.tile_statistics(whole)
    level, _ = skies.sky_of(tiles, skies.sky_tiles(tiles))
    wanted = skies.neutralize(whole, level, mode=mode, target=0.1)
    np.testing.assert_array_equal(steps.neutralize(linear, mode=mode, target=0.1).data.compute(), wanted)


def test_too_few_stars_are_said(linear):
    empty = Image(data=linear.data[:, :, :40] * 0 + np.random.default_rng(1).normal(0, 1, (3, 300, 40)))
    with pytest.raises(UsageError, match="stars tell too little"):
        steps.balance(empty)


def test_a_file_that_is_cut_is_said(linear, tmp_path):
    path = tmp_path / "a.fits"
    steps.save_image(linear, path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(UsageError, match="cut short"):
        steps.open_image(path)


def test_commands_make_a_picture(linear, tmp_path, capsys):
    pixels = linear.data.compute()
    for name, channel in zip("rgb", pixels, strict=True):
        fits.PrimaryHDU(channel).writeto(tmp_path / f"{name}.fits")
    at = str(tmp_path) + "/"
    lines = (
        f"combine {at}r.fits {at}g.fits {at}b.fits -o {at}1.fits",
        f"neutralize {at}1.fits -o {at}2.fits",
        f"balance {at}2.fits -o {at}3.fits",
        f"stretch {at}3.fits -o {at}4.fits",
        f"scnr {at}4.fits -o {at}5.fits",
        f"chroma {at}5.fits -o {at}6.png",
    )
    for line in lines:
        assert run(line.split()) == 0
    assert run(f"balance {at}4.fits -o {at}x.fits".split()) == 2
    assert "the order is ChannelCombination" in capsys.readouterr().err
    assert run(f"neutralize {at}none.fits -o {at}x.fits".split()) == 2
    assert run(f"neutralize {at}6.png -o {at}x.fits".split()) == 2
    assert not (tmp_path / "x.fits").exists()


def test_deconvolution_by_hand(linear, tmp_path, capsys):
    light = Image(data=linear.data.mean(axis=0, keepdims=True))
    psf = steps.psf_of(light, fwhm_px=2.5)
    # 2 s sqrt(2^(1/beta) - 1) of the spots, which were not averaged over pixels as the profile is (1 px box: 0.29 px^2)
    spot = 2 * 2.5 * np.sqrt(2 ** (1 / 3) - 1)
    assert np.hypot(psf.fwhm_px, 2.3548 * np.sqrt(1 / 12)) == pytest.approx(spot, rel=0.03)
    before, after = light.data.compute()[0], steps.deconvolve(light, fwhm_px=2.5).data.compute()[0]
    assert np.isnan(after[:30, :40]).all()
    assert np.nanmedian(after) == pytest.approx(np.nanmedian(before), abs=0.1)
    y, x = np.unravel_index(np.nanargmax(before[20:-20, 20:-20]), before[20:-20, 20:-20].shape)
    here = (slice(y + 8, y + 33), slice(x + 8, x + 33))
    assert after[here].max() > 1.8 * before[here].max()
    lights = [float((a[here] - np.nanmedian(a)).sum()) for a in (before, after)]
    assert lights[1] == pytest.approx(lights[0], rel=0.02)
    # the same by command, with the PSF of another image
    steps.save_image(light, tmp_path / "light.fits")
    words = ["deconvolve", str(tmp_path / "light.fits"), "-o", str(tmp_path / "sharp.fits"), "--fwhm-px", "2.5"]
    assert run([*words, "--psf-of", str(tmp_path / "light.fits")]) == 0
    assert "Richardson-Lucy" in capsys.readouterr().out
    np.testing.assert_allclose(fits.getdata(tmp_path / "sharp.fits").squeeze(), after, rtol=1e-5)
    for wrong in (linear, steps.stretch(light)):
        with pytest.raises(UsageError):
            steps.deconvolve(wrong)
