"""The LN reference as a product: of the best subs, on the sky and scale of the master."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.image import open_image, psf_of
from lerar_dask.pipeline import stack
from lerar_dask.pipeline.picture import make_pictures
from lerar_dask.pipeline.picture_report import told_of_picture
from lerar_dask.run import Run
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from lerar_dask.simulate import simulate
from lerar_dask.stages.integrate.stack_table import load_table


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    simulate(folder / "night", n=15, shape=(640, 900), seed=23, n_darks=4, n_flats=4, n_bias=4)
    summary = stack([folder / "night"], folder / "out", Settings.of(lnref=True), bus=Bus())
    assert summary.exit_code == 0
    return folder, summary.groups[0]


def test_is_of_the_best_third_and_sharper(made):
    folder, group = made
    run = Run.open(folder / "out")
    with fits.open(group.lnref) as hdus:
        frames, header = hdus["FRAMES"].data, hdus[0].header
        assert header["NCOMBINE"] == len(frames) == 5
        assert header["EXPTIME"] == pytest.approx(5 * 120.0)
        assert hdus["COVERAGE"].data.max() == 5
    fwhm = {row["path"]: row["fwhm_px"] for row in run.frames if row["fate"] == "used"}
    assert np.mean([fwhm[path] for path in frames["path"]]) < np.mean(list(fwhm.values()))
    best, whole = (psf_of(open_image(path), fwhm_px=3.2) for path in (group.lnref, group.master))
    assert best.fwhm_px < whole.fwhm_px
    # sharper by as much as its subs are
    ratio = np.mean([fwhm[path] for path in frames["path"]]) / np.mean(list(fwhm.values()))
    assert best.fwhm_px / whole.fwhm_px == pytest.approx(ratio, rel=0.04)


def test_lies_on_the_sky_and_scale_of_the_master(made):
    _, group = made
    best, whole = fits.getdata(group.lnref), fits.getdata(group.master)
    noise = np.nanmedian(fits.getdata(group.lnref, "NOISE"))
    inner = (slice(60, -60), slice(60, -60))
    difference = (best - whole)[inner]
    tiles = [np.median(difference[y : y + 64, x : x + 64]) for y in range(0, 200, 64) for x in range(0, 380, 64)]
    assert np.abs(tiles).max() < 0.25 * noise
    bright = (whole[inner] - np.median(whole) > 300) & (whole[inner] - np.median(whole) < 20_000)
    light = [float((image[inner][bright] - np.median(image)).sum()) for image in (best, whole)]
    assert light[0] == pytest.approx(light[1], rel=0.05)


def test_is_made_on_demand_alone_and_goes_with_the_setting(made):
    folder, group = made
    before = group.master.stat().st_mtime_ns
    again = stack([folder / "night"], folder / "out", Settings.of(lnref=True), bus=Bus())
    assert again.did_nothing
    other = stack([folder / "night"], folder / "other", Settings.of(), bus=Bus())
    assert other.groups[0].lnref is None
    assert not list((folder / "other").glob("*lnref*"))
    np.testing.assert_array_equal(fits.getdata(other.groups[0].master), fits.getdata(group.master))
    assert group.master.stat().st_mtime_ns == before


def test_a_table_of_all_subs_is_the_table(made):
    folder, _ = made
    run = Run.open(folder / "out")
    (state,) = run.state.groups.values()
    table = load_table(run.store.url, state.table)
    same, turned = table.take(range(len(table))), table.take([7, 2])
    for name in ("transform", "trails", "trail_start", "voids", "ln_scale", "noise", "fwhm"):
        np.testing.assert_array_equal(getattr(same, name), getattr(table, name))
    own = [table.trails[table.trail_start[i] : table.trail_start[i + 1]] for i in (7, 2)]
    np.testing.assert_array_equal(turned.trails, np.concatenate(own))
    np.testing.assert_array_equal(turned.transform, table.transform[[7, 2]])


def test_the_picture_tells_its_psf_beside_that_of_the_master(made):
    folder, group = made
    stack([folder / "night"], folder / "out", Settings.of(lnref=True), bus=Bus())
    (work,) = make_pictures(folder / "out", Settings(), bus=Bus()).pictures
    best, whole = work.facts["psf_lnref"], work.facts["psf"]
    assert best["fwhm_x_px"] * best["fwhm_y_px"] < whole["fwhm_x_px"] * whole["fwhm_y_px"]
    assert np.sqrt(best["fwhm_x_px"] * best["fwhm_y_px"]) == pytest.approx(
        psf_of(open_image(group.lnref), fwhm_px=3.2).fwhm_px, rel=0.03
    )
    assert "best subs alone" in told_of_picture(work)["PSF of the LN reference"]
    assert make_pictures(folder / "out", Settings(), bus=Bus()).did_nothing
