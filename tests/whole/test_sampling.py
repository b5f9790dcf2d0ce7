"""Pixels of several sizes in one target: the grid is that of the finest group, and it is said."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from lerar_dask.run import Run
from tests.whole.nights import SKY, Night, adu, plane, rates, run, stamp


def binned(night: Night, i: int, name: str, *, exposure_s: float = 60.0, n: int = 2, **cards) -> None:
    """A light in n x n binning, without bias structure or dark current."""
    shift = night.rng.uniform(-12, 12, 2)
    image = night.image(*shift, bins=n) * exposure_s
    data = 500 + night.rng.poisson(image) + night.rng.normal(0, 4.0, image.shape)
    words = {"EXPTIME": exposure_s, "DATE_OBS": stamp(i), "XBINNING": n, "YBINNING": n, **cards}
    night.put("light", name, adu(data), **words)


def plain(night: Night, i: int, name: str, **cards) -> None:
    night.put("light", name, adu(night.light()), EXPTIME=60.0, DATE_OBS=stamp(i), **cards)


@pytest.fixture
def night(tmp_path) -> Night:
    made = Night(tmp_path / "night", 21)
    made.rate[:], made.vignetting[:], made.bias[:] = 0.0, 1.0, 500.0
    return made


def master(summary, group: str) -> np.ndarray:
    (path,) = [g.master for g in summary.groups if group in g.name]
    return plane(path)


@pytest.mark.parametrize("told", [True, False])
def test_a_few_binned_subs_among_others(night, tmp_path, told):
    cards = {} if told else {"XBINNING": None, "YBINNING": None}
    for i in range(8):
        plain(night, i, f"light_{i}.fits", **cards)
    for i in (8, 9):
        binned(night, i, f"light_{i}.fits", **cards)
    summary = run(night, tmp_path / "out")
    assert summary.exit_code == 0
    assert sorted(g.n_used for g in summary.groups) == [2, 8]
    image, coarse = master(summary, "440x320"), master(summary, "220x160")
    assert image.shape == coarse.shape
    assert all(side < wide < side + 60 for side, wide in zip(night.shape, image.shape, strict=True))
    assert rates(night, image) == pytest.approx(60, rel=0.04)
    assert np.nanmedian(coarse) == pytest.approx(500 + 4 * 60 * SKY, abs=8)
    (note,) = [note for note in summary.notes if "resampled" in note]
    assert "220x160" in note
    assert "2 subs are 2.00 times as large as the grid's" in note


def test_binned_colors_on_the_grid_of_an_unbinned_luminance(night, tmp_path):
    optics = {"FOCALLEN": 500.0}
    for i in range(4):
        plain(night, i, f"L_{i}.fits", XPIXSZ=3.76, **optics)
    for k, color in enumerate("RGB"):
        for i in range(5):
            binned(night, 4 + 5 * k + i, f"{color}_{i}.fits", exposure_s=120.0, FILTER=color, XPIXSZ=7.52, **optics)
    summary = run(night, tmp_path / "out")
    assert summary.exit_code == 0
    planes = {g.name[-1]: plane(g.master) for g in summary.groups}
    assert len({image.shape for image in planes.values()}) == 1
    assert all(side < wide < side + 60 for side, wide in zip(night.shape, planes["L"].shape, strict=True))
    assert rates(night, planes["L"]) == pytest.approx(60, rel=0.06)
    # stars of a binned color lie where those of the luminance do
    luminance, red = planes["L"], planes["R"]
    for y, x in np.argwhere(luminance > np.nanquantile(luminance, 0.9995))[:40]:
        if 20 < y < luminance.shape[0] - 20 and 20 < x < luminance.shape[1] - 20:
            near = red[y - 3 : y + 4, x - 3 : x + 4]
            assert np.nanmax(near) > np.nanmedian(red) + 50
    for g in summary.groups:
        header = fits.getheader(g.master)
        assert (header["XPIXSZ"], header["XBINNING"]) == (pytest.approx(3.76, rel=0.01), 1)
    # widths of stars are told in pixels of the grid
    rows = {row["group"][-1]: row["fwhm_px"] for row in Run.open(tmp_path / "out").frames}
    assert rows["R"] == pytest.approx(rows["L"], rel=0.35)


def test_the_grid_changes_when_finer_subs_come_later(night, tmp_path):
    for i in range(5):
        binned(night, i, f"R_{i}.fits", FILTER="R")
    assert master(run(night, tmp_path / "out"), "R").shape < (240, 300)
    for i in range(4):
        plain(night, 9 + i, f"L_{i}.fits")
    summary = run(night, tmp_path / "out")
    assert summary.exit_code == 0
    assert master(summary, "L").shape == master(summary, "R").shape > night.shape


def test_one_stray_fine_sub_sets_no_grid(night, tmp_path):
    for i in range(11):
        binned(night, i, f"R_{i}.fits", FILTER="R")
    plain(night, 12, "L_0.fits")
    summary = run(night, tmp_path / "out")
    assert master(summary, "R").shape < (240, 300)
    assert any("times finer than the grid's" in note for note in summary.notes)


def test_subs_of_a_wider_field_are_not_too_far_away(night, tmp_path):
    """A camera of larger pixels and a field three times as wide: the canvas is its, in the pixels of the finer one."""
    wide = Night(tmp_path / "night", 21, shape=(480, 660))
    wide.rate[:], wide.vignetting[:], wide.bias[:] = 0.0, 1.0, 500.0
    wide.stars = np.concatenate([night.stars, night.stars + np.array([440, 0, 0]), night.stars + np.array([0, 320, 0])])
    for i in range(4):
        plain(night, i, f"L_{i}.fits")
    for i in range(4):
        shift = wide.rng.uniform(-6, 6, 2)
        grown = Night(tmp_path / "night", 21, shape=(960, 1320))
        grown.stars = wide.stars
        image = grown.image(*shift, bins=2) * 60.0
        data = adu(500 + wide.rng.poisson(image) + wide.rng.normal(0, 4.0, image.shape))
        wide.put("light", f"W_{i}.fits", data, EXPTIME=60.0, DATE_OBS=stamp(20 + i), FILTER="W", INSTRUME="Widecam")
    summary = run(wide, tmp_path / "out")
    assert summary.exit_code == 0
    assert summary.n_used == 8
    assert min(master(summary, "W").shape) > 900


@pytest.mark.parametrize("bins", [1, 2])
def test_a_night_over_the_meridian(tmp_path, bins):
    """Turned by 180 degrees in the middle and 25 px off; the subs around it binned or not."""
    sky = Night(tmp_path / "night", 231)
    flat = np.ones(sky.shape)
    for i in range(10):
        late, few = i >= 5, bins if i in (4, 5) else 1
        dx, dy = sky.rng.uniform(-9, 9, 2) + ((25, -18) if late else (0, 0))
        image = sky.image(dx, dy, flip=late, bins=few) * 60.0
        data = 500 + sky.rng.poisson(image) + sky.rng.normal(0, 4.0, image.shape)
        when = {"EXPTIME": 60.0, "DATE_OBS": stamp(i), "XBINNING": few, "YBINNING": few}
        sky.put("light", f"l{i}.fits", adu(data), **when)
    for few in {1, bins}:
        part = flat[::few, ::few]
        for i in range(3):
            words = {"EXPTIME": 0.0, "DATE_OBS": stamp(i, hour=9), "XBINNING": few, "YBINNING": few}
            data = 500 + sky.rng.normal(0, 4.0, part.shape)
            sky.put("bias", f"b{few}_{i}.fits", adu(data), **words)
    summary = run(sky, tmp_path / "out")
    assert summary.exit_code == 0
    assert max(g.n_used for g in summary.groups) >= 8
    image = plane(max(summary.groups, key=lambda g: g.n_used).master)
    assert image.shape[0] > sky.shape[0]
    found = rates(sky, image) / 60.0
    assert found.std() < 0.02
    assert found.mean() == pytest.approx(1.0, abs=0.02)
