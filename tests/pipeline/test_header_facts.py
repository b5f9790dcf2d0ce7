"""What the header of a master says: the plate solution it carries, its times, its optics; and counts where nothing is."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

import lerar_dask
from lerar_dask.frames.wcs import solution_of
from lerar_dask.grid import CHUNK_SHAPE
from lerar_dask.pipeline import stack
from lerar_dask.pipeline.header_facts import carry_wcs
from lerar_dask.pipeline.products import rows_reader
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.store.access import Store

BASE = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 83.0, "CRVAL2": -5.0, "CRPIX1": 200.5, "CRPIX2": 160.5}
FORMS = {
    "CD": {"CD1_1": -4e-4, "CD1_2": 1e-4, "CD2_1": 1.1e-4, "CD2_2": 3.9e-4},
    "CROTA2": {"CDELT1": -4e-4, "CDELT2": 4.1e-4, "CROTA2": 33.0},
    "PC": {"CDELT1": -4e-4, "CDELT2": 4e-4, "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8},
    "CDELT": {"CDELT1": -4e-4, "CDELT2": 4e-4},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("turn_deg", [0.0, 70.0])
def test_a_carried_solution_says_what_astropy_says(form, turn_deg):
    header = {**BASE, **FORMS[form]}
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    to_sub = np.array([[c, -s, 12.0], [s, c, -7.0], [0, 0, 1]])
    carried = carry_wcs(solution_of(header), to_sub)
    xy = np.array([[10.0, 20.0], [300.0, 40.0], [150.0, 260.0]])
    in_sub = xy @ to_sub[:2, :2].T + to_sub[:2, 2]
    assert WCS(fits.Header(carried)).wcs_pix2world(xy, 0) == pytest.approx(
        WCS(fits.Header(header)).wcs_pix2world(in_sub, 0), abs=1e-8
    )


@pytest.fixture(scope="module")
def uneven(night, tmp_path_factory):
    """Four lights: one without a date, one half as long as the others; and a focal length."""
    folder = tmp_path_factory.mktemp("uneven") / "night" / "lights"
    folder.mkdir(parents=True)
    for k, path in enumerate(sorted((night / "lights").glob("*.fits"))[:4]):
        with fits.open(path) as opened:
            header = opened[0].header
            header["FOCALLEN"], header["XPIXSZ"] = 530.0, 3.76
            header["EXPTIME"] = 60.0 if k == 1 else 120.0
            if k == 3:
                del header["DATE-OBS"]
            opened.writeto(folder / path.name)
    out = tmp_path_factory.mktemp("uneven") / "out"
    assert stack([folder.parent], out, Settings.of(), bus=Bus()).n_used == 4
    return folder, out


def test_the_mean_time_is_that_of_the_light_whose_time_is_known(uneven):
    folder, out = uneven
    header = fits.getheader(next(out.glob("*.fits")))
    first, second, third = (
        np.datetime64(fits.getheader(path)["DATE-OBS"]) for path in sorted(folder.glob("*.fits"))[:3]
    )
    seconds = [((t - first) / np.timedelta64(1, "ms")) / 1000 for t in (first, second, third)]
    expected = (120 * (seconds[0] + 60) + 60 * (seconds[1] + 30) + 120 * (seconds[2] + 60)) / 300
    mean = (np.datetime64(header["DATE-AVG"]) - first) / np.timedelta64(1, "ms") / 1000
    assert mean == pytest.approx(expected, abs=2e-3)


def test_the_optics_are_carried(uneven):
    header = fits.getheader(next(uneven[1].glob("*.fits")))
    assert (header["FOCALLEN"], header["XPIXSZ"], header["YPIXSZ"]) == (530.0, 3.76, 3.76)


def test_counts_are_zero_where_no_sub_reaches(stacked):
    run = lerar_dask.open(stacked)
    store = Store.open(run.store.url)
    height, width = 2 * CHUNK_SHAPE[0], CHUNK_SHAPE[1]
    store.create_master("empty", 1, (height, width))
    store.write_chunk("empty", 1, 0, np.ones((1, 5, *CHUNK_SHAPE), np.float32))
    rows = rows_reader(store, "empty", (1, height, width))(0, height)
    assert np.isnan(rows[0, :2, : CHUNK_SHAPE[0]]).all()
    assert (rows[0, 2:, : CHUNK_SHAPE[0]] == 0).all()
    assert (rows[0, :, CHUNK_SHAPE[0] :] == 1).all()


def test_the_report_shows_maps_the_way_the_preview_is(night, tmp_path):
    pictures = {}
    for order in ("TOP-DOWN", "BOTTOM-UP"):
        folder = tmp_path / order / "lights"
        folder.mkdir(parents=True)
        for path in sorted((night / "lights").glob("*.fits"))[:4]:
            with fits.open(path) as opened:
                opened[0].header["ROWORDER"] = order
                opened.writeto(folder / path.name)
        out = tmp_path / f"out-{order}"
        stack([folder.parent], out, Settings.of(), bus=Bus())
        uri = re.search(r'<img src="data:image/png;base64,([^"]+)" alt="Coverage"', (out / "report.html").read_text())
        coverage = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri[1]))))
        pictures[order] = coverage, np.asarray(Image.open(next(out.glob("*.png"))))
    for top_down, bottom_up in zip(*pictures.values(), strict=True):
        assert np.array_equal(bottom_up, top_down[::-1])
        assert not np.array_equal(bottom_up, top_down)
