"""Masters in fractions of full scale: scaled when it can be told, refused when it cannot, and said in words."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.frames.reader import band_of
from lerar_dask.frames.scan import scan
from lerar_dask.link.match import link_frames
from lerar_dask.settings import Link

SHAPE = (120, 160)
PIXINSIGHT = {"HISTORY": ["ImageIntegration.numberOfImages: 20"], "IMAGETYP": "Master Bias"}
SIRIL = {"PROGRAM": "Siril 1.4.0", "STACKCNT": 20, "IMAGETYP": "BIAS"}
NOBODY = {"STACKCNT": 20, "IMAGETYP": "BIAS"}


def write(path: Path, data: np.ndarray, **cards) -> Path:
    header = fits.Header()
    for word, value in cards.items():
        for one in value if isinstance(value, list) else [value]:
            header[word] = one
    fits.writeto(path, data, header)
    return path


def level(mean: float, dtype, *, spread: float = 3.0) -> np.ndarray:
    data = np.random.default_rng(5).normal(mean, spread, SHAPE)
    data[50, 60] = 30000.0
    return data.astype(dtype)


def linked(folder: Path):
    return link_frames(scan([folder]).frames, Link())


@pytest.fixture
def folder(tmp_path) -> Path:
    """A light of 16 bit with a sky of 900 ADU."""
    cards = {"IMAGETYP": "LIGHT", "EXPTIME": 60.0, "OBJECT": "Sim"}
    write(tmp_path / "light.fits", level(900, np.uint16, spread=30), **cards)
    return tmp_path


def bias_of(links):
    (link,) = links.of.values()
    return link.bias and (link.bias, links.masters[link.bias.master])


@pytest.mark.parametrize(("cards", "who"), [(PIXINSIGHT, "PixInsight"), (SIRIL, "Siril")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractions_of_a_known_program_become_adu(folder, cards, who, dtype):
    adu = level(500, np.float64)
    write(folder / "bias_master.fits", (adu / 65535).astype(dtype), **cards)
    choice, spec = bias_of(linked(folder))
    assert f"{who} writes numbers in 0..1: times 65535" in choice.reason
    assert band_of(spec.sample, 0, SHAPE[0]) == pytest.approx(adu, rel=1e-5)


@pytest.mark.parametrize("cards", [PIXINSIGHT, SIRIL, NOBODY])
def test_masters_in_adu_are_left_alone(folder, cards):
    adu = level(500, np.float32)
    write(folder / "bias_master.fits", adu, **cards)
    choice, spec = bias_of(linked(folder))
    assert "times" not in choice.reason
    assert np.array_equal(band_of(spec.sample, 0, SHAPE[0]), adu)


def test_an_unknown_program_when_the_lights_tell(folder):
    write(folder / "bias_master.fits", level(500, np.float64).astype("f4") / np.float32(65535), **NOBODY)
    choice, spec = bias_of(linked(folder))
    assert "it has numbers in 0..1: times 65535" in choice.reason
    assert np.median(band_of(spec.sample, 0, SHAPE[0])) == pytest.approx(500, abs=0.5)


@pytest.mark.parametrize(
    ("mean", "cards"),
    [(2.0, NOBODY), (20000.0, NOBODY), (20000.0, PIXINSIGHT)],
    ids=["no pedestal", "brighter than the lights", "brighter, of a known program"],
)
def test_what_cannot_be_told_is_refused(folder, mean, cards):
    path = write(folder / "bias_master.fits", level(mean, np.float64).astype("f4") / np.float32(65535), **cards)
    links = linked(folder)
    assert bias_of(links) is None
    ((frame, reason),) = links.aside
    assert frame.path == path
    assert "between 0 and 1" in reason
    assert "cannot be told" in reason


def test_lights_that_are_fractions_themselves_need_nothing(tmp_path):
    lights = {"IMAGETYP": "LIGHT", "EXPTIME": 60.0, "OBJECT": "Sim"}
    write(tmp_path / "light.fits", level(900, np.float32) / np.float32(65535), **lights)
    fractions = level(500, np.float32) / np.float32(65535)
    write(tmp_path / "bias_master.fits", fractions, **SIRIL)
    choice, spec = bias_of(linked(tmp_path))
    assert "times" not in choice.reason
    assert np.array_equal(band_of(spec.sample, 0, SHAPE[0]), fractions)


def test_eight_bit_lights_have_a_full_scale_of_their_own(tmp_path):
    write(tmp_path / "light.fits", level(60, np.uint8), IMAGETYP="LIGHT", EXPTIME=60.0, OBJECT="Sim")
    write(tmp_path / "bias_master.fits", level(20, np.float32).clip(0, 255) / np.float32(255), **SIRIL)
    choice, spec = bias_of(linked(tmp_path))
    assert "times 255" in choice.reason
    assert np.median(band_of(spec.sample, 0, SHAPE[0])) == pytest.approx(20, abs=1)


def test_signed_lights_tell_no_full_scale(tmp_path):
    write(tmp_path / "light.fits", level(900, np.int16), IMAGETYP="LIGHT", EXPTIME=60.0, OBJECT="Sim")
    write(tmp_path / "bias_master.fits", level(500, np.float32) / np.float32(65535), **PIXINSIGHT)
    links = linked(tmp_path)
    assert bias_of(links) is None
    assert "cannot be told" in links.aside[0][1]


def test_a_gzipped_master(folder):
    plain = write(folder / "bias_master.fits", level(500, np.float32) / np.float32(65535), **PIXINSIGHT)
    (folder / "bias_master.fits.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    choice, spec = bias_of(linked(folder))
    assert "times 65535" in choice.reason
    assert np.median(band_of(spec.sample, 0, SHAPE[0])) == pytest.approx(500, abs=0.5)


def test_a_flat_is_relative(folder):
    flat = (level(30000, np.float32) / np.float32(65535)).clip(0, 1)
    write(folder / "master_flat.fits", flat, **{**PIXINSIGHT, "IMAGETYP": "Master Flat"})
    write(folder / "bias.fits", level(500, np.uint16), IMAGETYP="BIAS")
    links = linked(folder)
    (link,) = links.of.values()
    assert np.array_equal(band_of(links.masters[link.flat.master].sample, 0, SHAPE[0]), flat)


def test_a_night_with_masters_of_others(night, tmp_path):
    """Calibrated subs are those of the same dark in ADU."""
    from lerar_dask.pipeline import stack
    from lerar_dask.run import Run
    from lerar_dask.runtime.events import Bus
    from lerar_dask.settings import Settings

    darks = np.stack([fits.getdata(p).astype(np.float64) for p in sorted((night / "darks").glob("*.fits"))])
    images = {}
    for name, divisor in (("adu", 1.0), ("fractions", 65535.0)):
        folder = tmp_path / name
        (folder / "lights").mkdir(parents=True)
        for path in sorted((night / "lights").glob("*.fits"))[:3]:
            shutil.copy(path, folder / "lights")
        cards = {**PIXINSIGHT, "IMAGETYP": "Master Dark", "EXPTIME": 120.0}
        write(folder / "masterDark.fits", (darks.mean(axis=0) / divisor).astype("f4"), **cards)
        summary = stack([folder], tmp_path / f"out {name}", Settings.of(report=False), bus=Bus())
        assert (summary.exit_code, summary.n_used) == (0, 3)
        made = Run.open(tmp_path / f"out {name}")
        images[name] = made.calibrated(made.groups[0]).compute()
    assert np.nanmax(np.abs(images["adu"] - images["fractions"])) < 0.01
    assert 100 < np.nanmedian(images["adu"]) < 1500


def test_a_dark_without_numbers_does_not_speak_for_the_others(folder):
    dark = {"IMAGETYP": "DARK", "EXPTIME": 60.0}
    empty = write(folder / "dark_0.fits", np.full(SHAPE, np.nan, np.float32), **dark)
    for k in (1, 2, 3):
        write(folder / f"dark_{k}.fits", level(500, np.uint16), **dark)
    links = linked(folder)
    assert links.aside == ((links.aside[0][0], "its pixels hold no numbers"),)
    assert links.aside[0][0].path == empty
    (spec,) = (m for m in links.masters.values() if m.kind == "dark")
    assert [f.path.name for f in spec.frames] == ["dark_1.fits", "dark_2.fits", "dark_3.fits"]
