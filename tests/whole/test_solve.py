"""`--solve`: a night whose headers tell nothing of the sky gets its WCS from a catalog, or from astrometry.net."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lerar_dask.cli.app import run as command

SCALE, CENTER, SHAPE = 1.5, (201.0, 47.2), (420, 560)
INDEX = 4200


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """A night of six subs without pointing or scale in their headers, and the stars of its surroundings."""
    folder = tmp_path_factory.mktemp("sky")
    rng = np.random.default_rng(4)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = (
        ["RA---TAN", "DEC--TAN"],
        CENTER,
        [SHAPE[1] / 2 + 0.5, SHAPE[0] / 2 + 0.5],
    )
    turn = np.deg2rad(31.0)
    wcs.wcs.cd = SCALE / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    xy = rng.uniform(-1.0, 2.0, (900, 2)) * SHAPE[::-1]
    light = 10 ** rng.uniform(3.4, 5.2, len(xy))
    ra, dec = wcs.all_pix2world(xy, 0).T
    (folder / "night").mkdir()
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for k in range(6):
        image = rng.normal(900, 12, SHAPE)
        for (sx, sy), f in zip(xy + rng.uniform(-4, 4, 2), light, strict=True):
            if -10 < sx < SHAPE[1] + 10 and -10 < sy < SHAPE[0] + 10:
                box = np.s_[max(0, int(sy) - 11) : max(0, int(sy) + 12), max(0, int(sx) - 11) : max(0, int(sx) + 12)]
                image[box] += f / 14 * np.exp(-((x[box] - sx) ** 2 + (y[box] - sy) ** 2) / (2 * 1.5**2))
        header = fits.Header({"IMAGETYP": "Light", "EXPTIME": 60.0, "FILTER": "L", "OBJECT": "M51", "INSTRUME": "cam"})
        header["DATE-OBS"] = f"2024-03-01T01:{k:02d}:00"
        fits.writeto(folder / "night" / f"{k}.fits", np.clip(image, 0, 65535).astype(np.uint16), header)
    mag = 20 - 2.5 * np.log10(light) + rng.normal(0, 0.1, len(light))
    order = rng.permutation(len(ra))
    rows = np.column_stack([ra, dec, mag])[order]
    np.savetxt(folder / "gaia.csv", rows, delimiter=",", header="ra,dec,phot_g_mean_mag", comments="")
    return folder, np.column_stack([xy, ra, dec]), light


def off_px(master, truth, light):
    """How far the bright stars of a master lie from where its WCS says, px: median and largest."""
    data, header = fits.getdata(master), fits.getheader(master)
    wcs = WCS(header)
    found = []
    for row in truth[light > 3e4]:
        x, y = wcs.all_world2pix(row[2], row[3], 0)
        i, j = round(float(y)), round(float(x))
        if (
            12 < i < data.shape[0] - 12
            and 12 < j < data.shape[1] - 12
            and np.isfinite(data[i - 6 : i + 7, j - 6 : j + 7]).all()
        ):
            cut = data[i - 6 : i + 7, j - 6 : j + 7] - np.nanmedian(data)
            cut = np.where(cut > 0.1 * cut.max(), cut, 0)
            ys, xs = np.mgrid[-6:7, -6:7]
            found.append(np.hypot((cut * xs).sum() / cut.sum() + j - x, (cut * ys).sum() / cut.sum() + i - y))
    return np.median(found), len(found)


def test_by_a_catalog(sky, tmp_path):
    folder, truth, light = sky
    out = tmp_path / "out"
    assert command(["stack", str(folder / "night"), "-o", str(out), "-q", "--solve", str(folder / "gaia.csv")]) == 0
    off, n = off_px(out / "M51_L.fits", truth, light)
    assert n > 15
    assert off < 0.1
    assert "solved by" in (out / "report.html").read_text()


def test_a_catalog_of_another_field_is_said(sky, tmp_path, capsys):
    folder = sky[0]
    rows = np.random.default_rng(1).uniform((100, -20), (101, -19), (500, 2))
    np.savetxt(tmp_path / "other.csv", rows, delimiter=",", header="ra_deg,dec_deg", comments="")
    out = tmp_path / "out"
    assert command(["stack", str(folder / "night"), "-o", str(out), "--solve", str(tmp_path / "other.csv")]) == 0
    assert "CTYPE1" not in fits.getheader(out / "M51_L.fits")
    assert "no plate solution by --solve" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "word"), [(None, "no such file"), ("a,b\n1,2\n", "right ascension"), ("\0\1", "right ascension")]
)
def test_what_is_no_catalog(sky, tmp_path, capsys, text, word):
    if text is not None:
        (tmp_path / "bad.csv").write_text(text)
    assert (
        command(["stack", str(sky[0] / "night"), "-o", str(tmp_path / "o"), "--solve", str(tmp_path / "bad.csv")]) == 2
    )
    assert word in " ".join(capsys.readouterr().err.split())


def test_a_solver_that_is_not_installed(sky, tmp_path, capsys):
    wanted = str(tmp_path / "solve-field")
    assert command(["stack", str(sky[0] / "night"), "-o", str(tmp_path / "o"), "--solve", wanted]) == 2
    assert "no such program" in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(not shutil.which("build-astrometry-index"), reason="astrometry.net is not installed")
def test_by_astrometry_net(sky, tmp_path, monkeypatch):
    from astropy.table import Table

    folder, truth, light = sky
    Table({"RA": truth[:, 2], "DEC": truth[:, 3], "MAG": -2.5 * np.log10(light)}).write(tmp_path / "stars.fits")
    index = tmp_path / "index"
    index.mkdir()
    command = [
        "build-astrometry-index",
        "-i",
        "stars.fits",
        "-o",
        str(index / "index-1.fits"),
        "-P",
        "0",
        "-S",
        "MAG",
        "-E",
    ]
    subprocess.run([*command, "-I", str(INDEX)], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "astrometry.cfg").write_text(f"cpulimit 120\nadd_path {index}\nautoindex\n")
    # the solver with the index of the test; who installs it has a file of his own for that
    wrapper = tmp_path / "solve-field"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("solve-field")} --config {tmp_path / "astrometry.cfg"} "$@"\n')
    os.chmod(wrapper, 0o755)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "lerar_dask", "stack", str(folder / "night"), "-o", str(out), "--solve", str(wrapper)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    off, n = off_px(out / "M51_L.fits", truth, light)
    assert n > 15, done.stdout
    assert off < 0.2
