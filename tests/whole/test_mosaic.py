"""`lerar mosaic`: masters made apart become one image without seams, at its place in the sky."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lerar_dask.errors import UsageError
from lerar_dask.pipeline.mosaic import _name_of, make_mosaic
from lerar_dask.pipeline.picture import make_pictures
from lerar_dask.runtime.events import Bus
from lerar_dask.settings import Settings
from tests.whole.nights import Night, adu, run, stamp

SCALE_DEG = 2 / 3600
SHAPE = (300, 400)
SIGMA = 4.0


def plane():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [40.0, 30.0], [1, 1]
    wcs.wcs.cd = SCALE_DEG * np.array([[-1, 0], [0, 1]])
    return wcs


class Sky:
    """Stars and a smooth nebula on a plane of pixels; panels are cut from it, each with a scale, a sky and a tilt."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.stars = np.column_stack([self.rng.uniform(-50, 1400, (900, 2)), 10 ** self.rng.uniform(2.8, 4.5, 900)])

    @staticmethod
    def nebula(x, y):
        return 60 + 30 * np.sin(x / 90) * np.cos(y / 70)

    def panel(self, path, x0, y0, *, shape=SHAPE, rim=0, planes=1, name="M 31 Panel 1", off_px=0.2, **cards):
        ys, xs = np.mgrid[: shape[0], : shape[1]].astype(float)
        image = self.nebula(xs + x0, ys + y0)
        for x, y, light in self.stars - [x0, y0, 0]:
            if -8 < x < shape[1] + 8 and -8 < y < shape[0] + 8:
                b = np.s_[max(int(y) - 8, 0) : int(y) + 9, max(int(x) - 8, 0) : int(x) + 9]
                r2 = (xs[b] - x) ** 2 + (ys[b] - y) ** 2
                image[b] += light * np.exp(-r2 / (2 * 1.4**2)) / (2 * np.pi * 1.4**2)
        tilt = self.rng.normal(0, 15, 2)
        image = image * self.rng.uniform(0.9, 1.1) + 400 + tilt[0] * xs / shape[1] + tilt[1] * ys / shape[0]
        image = np.stack([image * (1 + 0.1 * c) for c in range(planes)])
        image += self.rng.normal(0, SIGMA, image.shape)
        image[:, :rim], image[:, :, :rim] = np.nan, np.nan
        header = plane().to_header()
        header["CRPIX1"] = 1 - x0 + self.rng.normal(0, off_px)
        header["CRPIX2"] = 1 - y0 + self.rng.normal(0, off_px)
        header.update({"OBJECT": name, "IMAGETYP": "Master Light", "STACKCNT": 20, "EXPTIME": 600.0, **cards})
        fits.writeto(path, np.squeeze(image).astype(np.float32), header)


def mosaic(masters, out, **settings):
    return make_mosaic(masters, Path(out), Settings.of(report=False, **settings), bus=Bus())


def places(sky, image, wcs):
    """Distance of lonely stars from where the plate solution says they are, (n, 4): x, dx, dy, y."""
    rows = []
    x, y = wcs.all_world2pix(*plane().all_pix2world(sky.stars[:, :2], 0).T, 0)
    for k in np.flatnonzero((sky.stars[:, 2] > 4000) & (sky.stars[:, 2] < 3e4)):
        i, j = round(float(y[k])), round(float(x[k]))
        near = (np.hypot(x - x[k], y - y[k]) < 14) & (np.arange(len(x)) != k)
        if not (8 < i < image.shape[0] - 8 and 8 < j < image.shape[1] - 8) or sky.stars[near, 2].sum() > 40:
            continue
        part = image[i - 6 : i + 7, j - 6 : j + 7]
        if np.isfinite(part).all():
            own = part - np.median(part)
            ys, xs = np.mgrid[-6:7, -6:7]
            own = np.where(np.hypot(xs, ys) < 4.5, own, 0)
            rows.append((x[k], j - x[k] + (own * xs).sum() / own.sum(), i - y[k] + (own * ys).sum() / own.sum(), y[k]))
    return np.array(rows)


def test_four_panels_of_several_sizes_without_a_seam(tmp_path):
    sky = Sky(1)
    for k, (x, y) in enumerate([(0, 0), (330, 12), (8, 240), (340, 236)]):
        sky.panel(
            tmp_path / f"p{k}.fits",
            x,
            y,
            shape=(300 + 7 * k, 400 - 5 * k),
            rim=4 * k,
            FILTER="L",
            name=f"M 31 Panel {k}",
        )
    summary = mosaic([tmp_path], tmp_path / "out")
    assert summary.exit_code == 0
    assert [g.name for g in summary.groups] == ["M-31_L"]
    assert summary.n_used == 4, summary.aside
    with fits.open(tmp_path / "out" / "M-31_L.fits") as hdus:
        image, coverage, wcs = hdus[0].data.astype(float), hdus["COVERAGE"].data[0], WCS(hdus[0].header)
        noise = hdus["NOISE"].data[0]
    found = places(sky, image, wcs)
    assert len(found) > 10
    assert np.abs(found[:, 1:3]).max() < 0.5, "plate solutions are off by 0.2 px"
    # the solution of the whole is no better than theirs, but the stars of all panels agree with one another
    home = np.column_stack([found[:, 0], found[:, 3], np.ones(len(found))])
    away = found[:, 1:3] - home @ np.linalg.lstsq(home, found[:, 1:3], rcond=None)[0]
    assert np.sqrt(np.mean(away**2)) < 0.05
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]].astype(float)
    x, y = plane().all_world2pix(*wcs.all_pix2world(xs, ys, 0), 0)
    # what is left once scale and a plane are taken off, in blocks, in units of the noise of a pixel
    h, w = (s // 16 * 16 for s in image.shape)
    blocks = [a[:h, :w].reshape(h // 16, 16, w // 16, 16) for a in (image, sky.nebula(x, y), xs, ys)]
    whole = np.isfinite(blocks[0]).all(axis=(1, 3))
    level, truth, bx, by = (np.median(b, axis=(1, 3))[whole] for b in blocks)
    design = np.column_stack([truth, bx, by, np.ones(len(bx))])
    scale = np.linalg.lstsq(design, level, rcond=None)[0]
    left = (level - design @ scale) / np.nanmedian(noise)
    assert 0.85 < scale[0] < 1.15
    assert 1.4826 * np.median(np.abs(left)) < 0.25
    count = coverage[:h, :w].reshape(h // 16, 16, w // 16, 16).mean(axis=(1, 3))[whole]
    assert {1.0, 2.0, 4.0} <= set(np.round(count, 3))
    means = [left[(count > n - 0.01) & (count < n + 0.01)].mean() for n in (1, 2)]
    assert abs(means[0] - means[1]) < 0.2
    again = mosaic([tmp_path], tmp_path / "out")
    assert again.did_nothing


def test_colors_become_a_mosaic_each_on_one_grid(tmp_path):
    sky = Sky(2)
    sky.panel(tmp_path / "a.fits", 0, 0, planes=3)
    sky.panel(tmp_path / "b.fits", 320, 5, planes=3)
    summary = mosaic([tmp_path / "a.fits", tmp_path / "b.fits"], tmp_path / "out", preview=False)
    assert [g.name for g in summary.groups] == ["M-31-Panel-1_B", "M-31-Panel-1_G", "M-31-Panel-1_R"]
    shapes = {fits.getdata(g.master).shape for g in summary.groups}
    assert len(shapes) == 1
    level = {g.name[-1]: np.nanmedian(fits.getdata(g.master)) for g in summary.groups}
    assert level["B"] > level["G"] > level["R"]


def test_panels_without_overlap_lie_where_their_solutions_say(tmp_path):
    """Two that overlap, beside a gap two more that do: these are tied to each other by their stars."""
    sky = Sky(3)
    for name, x in (("a", 0), ("b", 330), ("c", 770), ("d", 1000)):
        sky.panel(tmp_path / f"{name}.fits", x, 0, off_px=0.0, FILTER="L")
    summary = mosaic([tmp_path], tmp_path / "out", preview=False)
    assert summary.n_used == 4, summary.aside
    assert any("2 subs without a star in common" in note for note in summary.notes)
    with fits.open(summary.groups[0].master) as hdus:
        found = places(sky, hdus[0].data.astype(float), WCS(hdus[0].header))
    assert found[:, 0].max() > 1000
    assert np.abs(found[:, 1:3]).max() < 0.3
    assert np.sqrt(np.mean(found[:, 1:3] ** 2)) < 0.08


def test_a_panel_far_away_is_set_aside(tmp_path):
    sky = Sky(4)
    more = np.column_stack([sky.rng.uniform(3950, 4450, 300), sky.rng.uniform(-50, 350, 300), sky.stars[:300, 2]])
    sky.stars = np.concatenate([sky.stars, more])
    for name, x in (("a", 0), ("b", 300), ("far", 4000)):
        sky.panel(tmp_path / f"{name}.fits", x, 0, off_px=0.0, FILTER="L")
    summary = mosaic([tmp_path], tmp_path / "out", preview=False)
    assert summary.n_used == 2, summary.aside
    ((path, reason),) = summary.aside
    assert "far" in path
    assert "beside the others" in reason


def test_a_panel_whose_pixels_cannot_be_read_is_set_aside(tmp_path):
    sky = Sky(6)
    for k in range(3):
        sky.panel(tmp_path / f"p{k}.fits", 300 * k, 0, FILTER="L")
    whole = (tmp_path / "p2.fits").read_bytes()
    (tmp_path / "p2.fits").write_bytes(whole[: len(whole) // 2])
    summary = mosaic([tmp_path], tmp_path / "out", preview=False)
    assert summary.n_used == 2
    ((path, _),) = summary.aside
    assert path.endswith("p2.fits")


def test_what_makes_no_mosaic_is_said(tmp_path):
    sky = Sky(5)
    sky.panel(tmp_path / "a.fits", 0, 0)
    (tmp_path / "b.fits").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"1 can be used \(b.fits: it is no FITS file\)"):
        mosaic([tmp_path], tmp_path / "out")
    with pytest.raises(UsageError, match="no such file"):
        mosaic([tmp_path / "c.fits"], tmp_path / "out")
    with pytest.raises(UsageError, match="folder of the results"):
        mosaic([tmp_path / "a.fits"], tmp_path)


@pytest.mark.parametrize(
    ("names", "target"),
    [
        (["M 31 Panel 1", "M 31 Panel 2"], "M-31"),
        (["NGC 7000_1-1", "NGC 7000_1-2", "NGC 7000_2-1"], "NGC-7000"),
        (["NGC 1", "NGC 1"], "NGC-1"),
        (["M31 P10", "M31 P11"], "M31"),
        (["", ""], "mosaic"),
        (["A", "B"], "mosaic"),
        (["Ic 1805", ""], "Ic-1805"),
    ],
)
def test_name_of_panels(names, target):
    assert _name_of(names) == target


def test_masters_of_runs_are_taken_from_their_folders_and_pictures_are_not(tmp_path):
    """Two runs of neighboring panels, of which one has a picture beside its master."""
    for k, x in enumerate((0, 300)):
        night = Night(tmp_path / f"night{k}", 17)
        rng = np.random.default_rng(3)
        night.stars = np.column_stack(
            [rng.uniform(-60, 900, 400), rng.uniform(-60, 380, 400), 10 ** rng.uniform(1.5, 3.6, 400)]
        )
        for i in range(3):
            shift = (-x + night.rng.uniform(-5, 5), night.rng.uniform(-5, 5))
            night.put(
                "light", f"l{i}.fits", adu(night.light(shift=shift)), EXPTIME=60.0, DATE_OBS=stamp(i), OBJECT=f"X P{k}"
            )
        night.darks(3)
        run(night, tmp_path / f"out{k}")
    make_pictures(tmp_path / "out0", Settings(), bus=Bus())
    extra = sorted(path.name for path in (tmp_path / "out0").glob("*.fits"))
    assert len(extra) > 1
    summary = mosaic([tmp_path / "out0", tmp_path / "out1"], tmp_path / "mosaic")
    (group,) = summary.groups
    assert (group.n_used, group.n_aside) == (2, 0)
    assert fits.getdata(group.master).shape[1] > 700
    (picture,) = [path for path in (tmp_path / "out0").glob("*.fits") if "stretched" in path.name]
    with pytest.raises(UsageError, match="it is stretched"):
        mosaic([picture], tmp_path / "other")
