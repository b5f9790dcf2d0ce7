"""Masters as files: what is written is read back by astropy and by Siril, with right sums, header words and planes."""

import json
import shutil
import subprocess
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lerar_dask.constants import PLANES
from lerar_dask.errors import SpaceError
from lerar_dask.frames.scan import probe
from lerar_dask.products.fits import CalibrationMaster, MasterImage, rows_of, write_calibration, write_master
from lerar_dask.products.provenance import history, provenance
from lerar_dask.settings import Settings

WCS_CARDS = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRPIX1": 100.0,
    "CRPIX2": 50.0,
    "CRVAL1": 10.0,
    "CRVAL2": 41.0,
    "CD1_1": -1e-4,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 1e-4,
}
FRAMES = [
    {"path": "/n/Orión 1.fits", "fate": "used", "reason": "", "exposure_s": 60.0, "n_stars": 120, "gain": None},
    {"path": "/n/b.fits", "fate": "aside", "reason": "clouds", "exposure_s": 60.0, "n_stars": None, "gain": 100},
]


@pytest.fixture(params=[1, 3], ids=["mono", "color"])
def planes(request):
    planes = np.random.default_rng(1).normal(100, 3, (request.param, 5, 301, 203)).astype("f4")
    planes[:, 2:] = planes[:, 2:].round()
    planes[..., :7, :] = np.nan
    return planes


def master_of(planes, **facts):
    shape = (planes.shape[0], *planes.shape[2:])
    return MasterImage(read_rows=rows_of(planes), shape=shape, group="M31_L", **facts)


def full_master(planes):
    return master_of(
        planes,
        object="M 31 Andrómeda ☃",
        filter="L",
        exposure_total_s=120.0,
        n_combined=2,
        date_beg="2025-01-01T00:00:00.000",
        date_avg="2025-01-01T00:01:00.000",
        date_end="2025-01-01T00:02:00.000",
        sky_level_adu=321.5,
        noise_kernel="lanczos3",
        noise_pixel_factor=0.893,
        noise_correlation=(0.112, -0.076),
        wcs=WCS_CARDS,
        origin_yx=(-3, 5),
        row_order="TOP-DOWN",
        cards={"FOCALLEN": (530.0, "[mm]"), "EXPTIME": 5.0, "NOTE": float("nan"), "ODD": "x\ny"},
        history=history(Settings()),
        provenance=provenance(Settings()),
    )


def open_strictly(path):
    """Every warning, a wrong checksum included, is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = fits.open(path, checksum=True, memmap=False)
        file.verify("exception")
        return file


def test_master_is_valid_fits_with_right_sums_and_planes(tmp_path, planes):
    path = tmp_path / "M31_L.fits"
    write_master(path, full_master(planes), FRAMES)
    with open_strictly(path) as file:
        assert [hdu.name for hdu in file] == ["SCI", "NOISE", "COVERAGE", "REJLOW", "REJHIGH", "FRAMES", "PROVENANCE"]
        for hdu in file:
            assert hdu.verify_checksum() == 1
            assert hdu.verify_datasum() == 1
        for index, _ in enumerate(PLANES):
            data = file[index].data.reshape(planes[:, 0].shape)
            assert data.dtype.kind == ("f" if index < 2 else "i")
            np.testing.assert_array_equal(data, planes[:, index] if index < 2 else np.nan_to_num(planes[:, index]))
        assert file[0].data.ndim == (2 if planes.shape[0] == 1 else 3)
    assert list(tmp_path.iterdir()) == [path]


def test_counts_of_more_subs_than_16_bits_hold(tmp_path, planes):
    planes[:, 2:, 20, 30] = 40_000
    path = tmp_path / "M31_L.fits"
    write_master(path, master_of(planes, n_combined=40_000), FRAMES)
    with open_strictly(path) as file:
        assert file["COVERAGE"].data.reshape(planes[:, 0].shape)[0, 20, 30] == 40_000
        assert file["NOISE"].header["BITPIX"] == -32


def test_one_flipped_bit_is_noticed(tmp_path, planes):
    path = tmp_path / "M31_L.fits"
    write_master(path, full_master(planes), FRAMES)
    data = bytearray(path.read_bytes())
    data[-20_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Warning, match=r"verification failed"):
        open_strictly(path)


def test_header_says_what_the_master_is(tmp_path, planes):
    path = tmp_path / "M31_L.fits"
    write_master(path, full_master(planes), FRAMES)
    header = fits.getheader(path)
    expected = {
        "OBJECT": "M 31 Andromeda ?",
        "FILTER": "L",
        "EXPTIME": 120.0,
        "NCOMBINE": 2,
        "DATE-BEG": "2025-01-01T00:00:00.000",
        "DATE-AVG": "2025-01-01T00:01:00.000",
        "DATE-END": "2025-01-01T00:02:00.000",
        "SKYLEVEL": 321.5,
        "BUNIT": "adu",
        "NOISKERN": "LANCZOS3",
        "NOISPIX": 0.893,
        "NOISRHO2": -0.076,
        "FOCALLEN": 530.0,
        "ROWORDER": "TOP-DOWN",
        "ODD": "x?y",
    }
    assert {word: header[word] for word in expected} == expected
    assert "NOTE" not in header
    lines = "\n".join(header["HISTORY"])
    for stage in ("link", "masters", "ingest", "register", "normalize", "integrate"):
        assert f"{stage}: " in lines


def test_sky_position_of_a_star_is_the_same_in_sub_and_master(tmp_path, planes):
    path = tmp_path / "M31_L.fits"
    write_master(path, full_master(planes), FRAMES)
    header = fits.getheader(path)
    sub = WCS(fits.Header(WCS_CARDS)).pixel_to_world_values(42.0, 17.0)
    master = WCS(header, naxis=2).pixel_to_world_values(42.0 - 5, 17.0 + 3)
    np.testing.assert_allclose(master, sub, rtol=0, atol=1e-10)


def test_frames_and_provenance_come_back(tmp_path, planes):
    path = tmp_path / "M31_L.fits"
    write_master(path, full_master(planes), FRAMES)
    with fits.open(path) as file:
        table = file["FRAMES"].data
        assert list(table["reason"]) == ["", "clouds"]
        assert table["path"][0].encode().decode("unicode_escape") == "/n/Orión 1.fits"
        assert list(table["n_stars"]) == [120, -1]
        assert np.isnan(table["gain"][0])
        assert table["gain"][1] == 100
        values = {row["name"]: json.loads(row["json"]) for row in file["PROVENANCE"].data}
    assert values["settings"]["integrate"]["reject"] == "auto"
    assert values["versions"]["numpy"] == np.__version__


def test_no_frames_and_no_facts_is_still_valid(tmp_path, planes):
    write_master(tmp_path / "m.fits", master_of(planes))
    with open_strictly(tmp_path / "m.fits") as file:
        np.testing.assert_array_equal(file[0].data.reshape(planes[:, 0].shape), planes[:, 0])
        assert len(file["FRAMES"].data) == 0
        assert "OBJECT" not in file[0].header
        assert "DATE-OBS" not in file[0].header


def test_a_write_that_fails_leaves_the_old_file(tmp_path, planes):
    path = tmp_path / "m.fits"
    path.write_bytes(b"old")

    def read_rows(y0, y1):
        if y0:
            raise RuntimeError("read failed")
        return planes[:, :, y0:y1]

    shape = (planes.shape[0], *planes.shape[2:])
    with pytest.raises(RuntimeError):
        write_master(path, MasterImage(read_rows=read_rows, shape=shape, group="g"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_in_words(tmp_path, planes, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(SpaceError, match="No space left"):
        write_master(tmp_path / "m.fits", master_of(planes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["bias", "dark", "flat", "flat-dark"])
def test_calibration_master_carries_what_matching_needs(tmp_path, kind):
    image = np.random.default_rng(2).normal(1000, 3, (40, 50)).astype("f4")
    master = CalibrationMaster(
        kind=kind,
        image=image,
        n_combined=15,
        exposure_s=60.0,
        gain=100.0,
        offset=50.0,
        sensor_temp_c=-10.0,
        binning=(2, 1),
        camera="ZWO ASI2600MM",
        filter="Ha" if kind == "flat" else "",
        cfa="RGGB",
        flat_mean=21000.0 if kind == "flat" else None,
        bias_subtracted=kind == "flat",
        history=["combined by winsorized mean"],
    )
    write_calibration(tmp_path / "m.fits", master)
    with open_strictly(tmp_path / "m.fits") as file:
        header = file[0].header
        np.testing.assert_array_equal(file[0].data, image)
    words = ("EXPTIME", "GAIN", "OFFSET", "CCD-TEMP", "XBINNING", "YBINNING", "INSTRUME", "NCOMBINE", "BAYERPAT")
    assert [header[w] for w in words] == [60.0, 100.0, 50.0, -10.0, 1, 2, "ZWO ASI2600MM", 15, "RGGB"]
    names = {"bias": "Bias", "dark": "Dark", "flat": "Flat", "flat-dark": "DarkFlat"}
    assert header["IMAGETYP"] == f"Master {names[kind]}"
    assert header["PROGRAM"].startswith("lerar ")
    assert ("FLATNORM" in header) == ("FILTER" in header) == (kind == "flat")


@pytest.mark.skipif(not shutil.which("siril-cli"), reason="Siril is not installed")
def test_siril_opens_the_image(tmp_path, planes):
    write_master(tmp_path / "m.fits", full_master(planes), FRAMES)
    (tmp_path / "open.ssf").write_text("requires 1.0.0\nload m\nstat\n")
    command = ["siril-cli", "-d", str(tmp_path), "-s", str(tmp_path / "open.ssf")]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert f"m.fits, {planes.shape[0]} layer(s), 203x301 pixels" in text


@pytest.mark.parametrize("kind", ["bias", "dark", "flat", "flat-dark"])
@pytest.mark.parametrize("row_order", ["", "TOP-DOWN", "BOTTOM-UP"])
def test_our_own_masters_are_taken_back_as_what_they_are(tmp_path, kind, row_order):
    master = CalibrationMaster(
        kind=kind,
        image=np.full((40, 50), 1000, "f4"),
        n_combined=15,
        exposure_s=60.0,
        gain=100.0,
        offset=50.0,
        sensor_temp_c=-9.9,
        set_temp_c=-10.0,
        binning=(1, 2),
        camera="ZWO ASI2600MC",
        filter="Ha" if kind == "flat" else "",
        cfa="GBRG",
        row_order=row_order,
        date_beg="2025-01-01T20:00:00.000",
    )
    write_calibration(tmp_path / "m.fits", master)
    header = probe(tmp_path / "m.fits").header
    facts = ("kind", "is_master", "is_stack", "exposure_s", "gain", "offset", "binning", "camera", "filter", "n_subs")
    expected = (kind, True, False, 60.0, 100.0, 50.0, (1, 2), "ZWO ASI2600MC", "Ha" if kind == "flat" else None, 15)
    assert tuple(getattr(header, fact) for fact in facts) == expected
    assert header.cfa == "GBRG"
    assert (header.sensor_temp_c, header.set_temp_c) == (-9.9, -10.0)


def test_our_own_stacks_are_not_taken_for_subs(tmp_path, planes):
    write_master(tmp_path / "M31_L.fits", full_master(planes), FRAMES)
    assert probe(tmp_path / "M31_L.fits").header.is_stack


def test_the_same_master_written_at_another_time_is_the_same_file(planes, tmp_path, monkeypatch):
    write_master(tmp_path / "a.fits", full_master(planes), FRAMES)
    monkeypatch.setattr("astropy.io.fits.hdu.base._ValidHDU._get_timestamp", lambda self: "another time")
    write_master(tmp_path / "b.fits", full_master(planes), FRAMES)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
